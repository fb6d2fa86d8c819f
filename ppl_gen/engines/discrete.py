"""Exact posteriors of discrete sites, by enumeration over draws of everything else.

Plates make this cheap. Given what is outside of a plate, its elements are independent, so all
elements of a site take the value k at once, and the joint density *per element* is read off the
pointwise log densities: K evaluations, whatever the size of the plate. Discrete latents in deeper
plates are summed out element by element before they are added up.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ppl_gen.engines.core import Model, Record, Site, unwrap

if TYPE_CHECKING:
    from ppl_gen.engines.base import Engine

Plates = tuple[tuple[str, int], ...]

#: Evaluations of the model (one for each joint value of the discrete sites) that we accept.
MAX_ASSIGNMENTS = 4096


def discrete_log_joint(
    engine: Engine,
    model: Model,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    draws: Mapping[str, Any],
    site: str,
    *,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Return the log joint density of each value of a discrete site and what depends on it.

    Parameters
    ----------
    engine : Engine
    model : callable
        A native model; called with `args` and `kwargs`, its data observed.
    draws : dict of str to ndarray (S, ...)
        Values of the other latents. Other discrete latents are summed out where they are missing.
    site : str
        A discrete site, latent or observed (then each value replaces the observation), or the
        latent inside a `Mixture`, a `HiddenMarkov` or a `BayesNet`.
    seed : int
        For the shapes only; the result does not depend on it.

    Returns
    -------
    ndarray (S, ..., K)
        In nats; the middle axes are the site's plates, and the steps T of a chain. Up to a
        constant over the last axis where terms outside of the site's plates do not depend on it.
        Its softmax over the last axis is the posterior.

    Raises
    ------
    ValueError
        If there is no such site, it is not finite, or it does not decompose over its plates.
    """
    first = {name: value[0] for name, value in draws.items()}
    trace = engine.trace(model, args, kwargs, seed=seed, values=first)
    holder = next((s.name for s in trace.values() if s.latent == site), None)
    if holder is not None:
        return _inside_distribution(engine, model, args, kwargs, draws, trace, holder)
    target = trace.get(site)
    if target is None or target.support is None:
        finite = [s.name for s in trace.values() if s.support is not None]
        finite += [s.latent for s in trace.values() if s.latent is not None]
        raise ValueError(
            f"discrete_posterior: {site!r} is no finite discrete site; expected one of "
            f"{', '.join(finite) or '(the program has none)'}"
        )
    others = {
        s.name: s for s in trace.values() if s.discrete and not s.observed and s.name not in draws
    }
    enumeration = _Enumeration(engine, model, args, kwargs, draws, trace, {**others, site: target})
    return enumeration.log_joint(target)


def _inside_distribution(
    engine: Engine,
    model: Model,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    draws: Mapping[str, Any],
    trace: Mapping[str, Site],
    holder: str,
) -> NDArray[np.float64]:
    """Return the log joint of a marginalised latent and the data, (S, ..., K)."""

    def extract(records: dict[str, Record]) -> dict[str, Any]:
        record = records[holder]
        return {holder: unwrap(record.distribution).latent_log_joint(record.value)}

    found = engine._over_draws(
        model,
        args,
        kwargs,
        draws,
        extract,
        size=len(next(iter(draws.values()))),
        elements=32 * trace[holder].value.size,  # room for some tens of components
    )
    return found[holder]


def marginal_log_prob(
    engine: Engine,
    model: Model,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    draws: Mapping[str, Any],
    sites: Sequence[str],
    trace: Mapping[str, Site],
) -> dict[str, NDArray[np.float64]]:
    """Return the pointwise log probability of each site, discrete latents summed out.

    Raises
    ------
    ValueError
        If a discrete latent is shared by elements of a site, so that these are not independent.
    """
    latent = {
        s.name: s for s in trace.values() if s.discrete and not s.observed and s.name not in draws
    }
    found = {}
    for site in sites:
        plates = trace[site].plates
        if shared := [s.name for s in latent.values() if not set(s.plates) >= set(plates)]:
            raise ValueError(
                f"pointwise_log_prob: the elements of {site} share the discrete "
                f"{', '.join(shared)}; expected independent elements; pass draws of it"
            )
        scored = [*latent, site]
        enumeration = _Enumeration(engine, model, args, kwargs, draws, trace, latent, scored)
        same = [s for s in latent.values() if set(s.plates) == set(plates)]
        terms = [enumeration.total(plates, v) for v in enumeration.assignments(same)]
        found[site] = np.logaddexp.reduce(np.stack(terms), axis=0)
    return found


def _values(site: Site) -> NDArray[Any]:
    """Return the support of a finite site."""
    return np.empty(0) if site.support_values is None else site.support_values


class _Enumeration:
    """The log densities of all sites under joint values of the discrete ones."""

    def __init__(
        self,
        engine: Engine,
        model: Model,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        draws: Mapping[str, Any],
        trace: Mapping[str, Site],
        discrete: Mapping[str, Site],
        scored: Sequence[str] | None = None,
    ) -> None:
        self.engine, self.call = engine, (model, args, kwargs)
        self.trace, self.discrete = trace, discrete
        self.draws = {name: value for name, value in draws.items() if name not in discrete}
        self.size = len(next(iter(draws.values()))) if draws else 1
        every = [name for name, s in trace.items() if s.log_prob is not None]
        self.scored = every if scored is None else list(scored)
        infinite = [name for name, s in discrete.items() if s.support is None]
        count = math.prod(s.support or 1 for s in discrete.values())
        if infinite or count > MAX_ASSIGNMENTS:
            reason = f"{infinite[0]} has no finite support" if infinite else f"{count} joint values"
            raise ValueError(
                f"discrete_posterior: {reason}; expected finite sites with at most "
                f"{MAX_ASSIGNMENTS} joint values; marginalise some inside a distribution, or pass "
                "draws of them"
            )
        self.cache: dict[tuple[tuple[str, int], ...], dict[str, NDArray[Any]]] = {}

    def assignments(self, sites: Sequence[Site]) -> Iterator[dict[str, int]]:
        """Yield every joint value of these sites, by index into their supports."""
        for values in itertools.product(*(range(len(_values(s))) for s in sites)):
            yield {s.name: value for s, value in zip(sites, values, strict=True)}

    def log_probs(self, fixed: Mapping[str, int]) -> dict[str, NDArray[Any]]:
        """Return (S, plates...) log densities of every site; discrete sites not fixed take 0."""
        full = {name: fixed.get(name, 0) for name in self.discrete}
        key = tuple(sorted(full.items()))
        if key not in self.cache:
            values = {}
            for name, index in full.items():
                s = self.discrete[name]
                value = _values(s)[index].astype(s.value.dtype)
                values[name] = np.full((self.size, *s.value.shape), value)
            model, args, kwargs = self.call
            self.cache[key] = self.engine.pointwise_log_prob(
                model, args, kwargs, {**self.draws, **values}, self.scored
            )
        return self.cache[key]

    def reduce(self, value: NDArray[Any], plates: Plates, own: Plates) -> NDArray[Any]:
        """Sum (S, own plates...) over the plates that are not in `plates`."""
        axes = tuple(1 + i for i, plate in enumerate(own) if plate not in plates)
        # Broadcast first: a density that does not vary over a plate still counts once an element.
        value = np.broadcast_to(value, (self.size, *(size for _, size in own)))
        return np.asarray(value.sum(axis=axes))

    def total(self, plates: Plates, fixed: Mapping[str, int]) -> NDArray[Any]:
        """Return the log density of all that lies in `plates`, deeper discrete sites summed out.

        Shape (S, plates...).
        """
        inner = {
            s.plates
            for name, s in self.discrete.items()
            if name not in fixed and set(plates) < set(s.plates)
        }
        children = [p for p in inner if not any(set(q) < set(p) for q in inner)]
        result = np.zeros((self.size, *(size for _, size in plates)))
        for child in children:
            here = [s for s in self.discrete.values() if s.plates == child and s.name not in fixed]
            terms = [self.total(child, {**fixed, **v}) for v in self.assignments(here)]
            summed = np.logaddexp.reduce(np.stack(terms), axis=0)
            result = result + self.reduce(summed, plates, child)
        log_probs = self.log_probs(fixed)
        for name in self.scored:
            own = self.trace[name].plates
            inside = set(plates) <= set(own)
            if inside and not any(set(child) <= set(own) for child in children):
                result = result + self.reduce(log_probs[name], plates, own)
        return result

    def check_local(self, target: Site) -> None:
        """Refuse a site on which something outside of its plates depends."""
        plates = set(target.plates)
        beyond = [s.name for s in self.discrete.values() if set(s.plates) < plates]
        crossing = [s.name for s in self.discrete.values() if not set(s.plates) >= plates]
        outside = [name for name in self.scored if not plates <= set(self.trace[name].plates)]
        last = len(_values(target)) - 1
        first, second = (self.log_probs({target.name: value}) for value in (0, last))
        varying = [n for n in outside if not np.array_equal(first[n], second[n], equal_nan=True)]
        if culprits := sorted({*beyond, *crossing, *varying}):
            raise ValueError(
                f"discrete_posterior: {target.name} is not local to its plates, because of "
                f"{', '.join(culprits)} outside of them; expected conditionally independent "
                "elements; marginalise it inside a distribution, or pass draws of the others"
            )

    def log_joint(self, target: Site) -> NDArray[np.float64]:
        """Return (S, plates..., K)."""
        if target.plates:
            self.check_local(target)
        same = [
            s for s in self.discrete.values() if s.plates == target.plates and s.name != target.name
        ]
        columns = []
        for value in range(len(_values(target))):
            terms = [
                self.total(target.plates, {target.name: value, **rest})
                for rest in self.assignments(same)
            ]
            columns.append(np.logaddexp.reduce(np.stack(terms), axis=0))
        return np.stack(columns, axis=-1)
