"""Which family a table's columns have: asked for, or read off their kinds."""

from collections.abc import Callable
from typing import Any

from ppl_gen.data import Schema
from ppl_gen.families import (
    FAMILIES,
    Bernoulli,
    Categorical,
    Columns,
    Family,
    MixtureFamily,
    Normal,
)

#: What "auto" takes for a kind of column.
AUTO_FAMILIES = {"number": Normal("diag"), "bool": Bernoulli(), "category": Categorical()}


def choose_family(
    spec: Any,
    schema: Schema,
    who: str,
    settings: Callable[[Family], Family] = lambda family: family,
) -> Family:
    """Make a family for a table: one for all columns, or a product of several.

    Parameters
    ----------
    spec : "auto", str, Family, or dict from columns to str or Family
    schema : Schema
        Names and kinds of the columns.
    who : str
        Model that asks, for errors.
    settings : callable
        Gives a family that is chosen by name or by "auto" the settings of the model.
    """
    if isinstance(spec, Family):
        return spec
    if isinstance(spec, str) and spec != "auto":
        return settings(_named(spec, who))
    chosen: dict[Any, Any] = {}
    if isinstance(spec, dict):
        names = schema.names
        unknown = [name for name in spec if name not in names]
        if unknown:
            raise ValueError(
                f"{who}: family names columns {unknown} that X does not have; it has {names}"
            )
        chosen = {names.index(name): family for name, family in spec.items()}
    elif spec != "auto":
        raise TypeError(
            f"{who}: family is {spec!r}; expected 'auto', a name, a Family, or a dict of columns"
        )
    parts: dict[str, tuple[Family, list[int]]] = {}
    for place, column in enumerate(schema.columns):
        family = chosen.get(place, AUTO_FAMILIES[column.kind])
        family = _named(family, who) if isinstance(family, str) else family
        if not isinstance(chosen.get(place), Family):
            family = settings(family)
        # Equal families share a part, and with it their matrix products.
        key = next((k for k, (other, _) in parts.items() if _same(other, family)), None)
        if key is None:
            taken = sum(k.rstrip("_0123456789") == family.name for k in parts)
            key = family.name if taken == 0 else f"{family.name}_{taken + 1}"
            parts[key] = (family, [])
        parts[key][1].append(place)
    for key, (family, places) in parts.items():
        if isinstance(family, Categorical) and family.n_categories is None:
            known = [schema.columns[place].categories for place in places]
            if all(known):
                sizes = tuple(len(categories or ()) for categories in known)
                parts[key] = (family.replace(n_categories=sizes), places)
    if len(parts) == 1:
        return next(iter(parts.values()))[0]
    return Columns(tuple((name, family, tuple(p)) for name, (family, p) in parts.items()))


def _same(a: Family, b: Family) -> bool:
    # Columns of one mixture would depend on each other by its component.
    return type(a) is type(b) and repr(a) == repr(b) and not isinstance(a, MixtureFamily)


def _named(name: str, who: str) -> Family:
    if name not in FAMILIES:
        raise ValueError(f"{who}: unknown family {name!r}; expected one of {', '.join(FAMILIES)}")
    # One covariance over columns that were named one by one would tie them together.
    return Normal("diag") if name == "normal" else FAMILIES[name]()
