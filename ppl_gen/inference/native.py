"""Which engine a function is written for, told from what its code refers to."""

import functools
import inspect
import types
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["detect_engine"]

#: How deep functions that the model calls are looked into.
DEPTH = 3


def detect_engine(model: Callable[..., Any]) -> str | None:
    """Tell whether a function refers to Pyro, to NumPyro, or to neither.

    Only the names that its code uses count: the globals, closures, defaults and imports of the
    function and of the functions of the user that it calls. A torch network means Pyro.

    Parameters
    ----------
    model : callable

    Returns
    -------
    {"pyro", "numpyro"} or None

    Raises
    ------
    ValueError
        If it refers to both.

    Examples
    --------
    >>> from ppl_gen.inference.native import detect_engine
    >>> def model():
    ...     import numpyro
    ...     numpyro.sample("x", numpyro.distributions.Normal(0, 1))
    >>> detect_engine(model)
    'numpyro'
    """
    found = {engine for value in _references(model, DEPTH) if (engine := _engine_of(value))}
    if len(found) > 1:
        raise ValueError(
            f"infer: {getattr(model, '__name__', model)!r} refers to both Pyro and NumPyro; say "
            "which runs it: engine='pyro' or engine='numpyro'"
        )
    return found.pop() if found else None


def _engine_of(value: Any) -> str | None:
    """Return the engine that a value belongs to, by the package it comes from."""
    if isinstance(value, types.ModuleType):
        package = value.__name__
    elif isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType)):
        package = getattr(value, "__module__", None) or ""
    else:
        if any(
            f"{kind.__module__}.{kind.__name__}" == "torch.nn.modules.module.Module"
            for kind in type(value).__mro__
        ):
            return "pyro"
        package = type(value).__module__
    top = package.partition(".")[0]
    return top if top in ("pyro", "numpyro") else None


def _references(model: Any, depth: int) -> Iterator[Any]:
    """Everything that the code of a callable may reach by name."""
    while isinstance(model, functools.partial):
        yield from model.args
        yield from model.keywords.values()
        model = model.func
    yield model
    if inspect.ismethod(model):
        yield model.__self__
        model = model.__func__
    model = inspect.unwrap(model) if callable(model) else model
    if not isinstance(model, types.FunctionType):
        # An object with a method for a call; a torch module's own is `forward`.
        model = getattr(type(model), "forward", None) or type(model).__call__
        if not isinstance(model, types.FunctionType):
            return
    names = set(_names(model.__code__))
    values = [model.__globals__[name] for name in names if name in model.__globals__]
    values += [cell.cell_contents for cell in model.__closure__ or () if _is_filled(cell)]
    values += list(model.__defaults__ or ()) + list((model.__kwdefaults__ or {}).values())
    yield from values
    for value in values:
        own = isinstance(value, types.FunctionType) and _engine_of(value) is None
        if depth > 0 and (own or isinstance(value, functools.partial)):
            yield from _references(value, depth - 1)
    # An import within the function leaves its name in the code only.
    for name in names & {"pyro", "numpyro"} - set(model.__globals__):
        yield types.ModuleType(name)


def _names(code: types.CodeType) -> Iterator[str]:
    """Global names and imports of a function and of those defined in it."""
    for name in code.co_names:
        yield name.partition(".")[0]
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _is_filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018  (reading it is the test)
    except ValueError:
        return False
    return True
