"""Engines: what differs between Pyro and NumPyro, and nothing else.

>>> from ppl_gen import engines
>>> engines.get("numpyro").name
'numpyro'

Nothing heavy is imported until an engine is asked for.
"""

import functools
import importlib

from ppl_gen.engines.base import Engine, RandomSource, Site, active_engine

__all__ = ["NAMES", "Engine", "RandomSource", "Site", "current", "get"]

#: The names that `get` knows.
NAMES = ("pyro", "numpyro")


@functools.cache
def get(name: str) -> Engine:
    """Return the engine of this name, importing its library on first use.

    Parameters
    ----------
    name : {"pyro", "numpyro"}

    Raises
    ------
    ValueError
        If there is no such engine.
    """
    if name not in NAMES:
        raise ValueError(
            f"engines.get: unknown engine {name!r}; expected one of {', '.join(NAMES)}"
        )
    engine: Engine = importlib.import_module(f"ppl_gen.engines.{name}").ENGINE
    return engine


def current() -> Engine:
    """Return the engine that runs the program we are in.

    Raises
    ------
    RuntimeError
        Outside a running program.
    """
    engine = active_engine.get()
    if engine is None:
        raise RuntimeError(
            "ppl_gen: sample, plate, dist and ops work inside a running program only; expected to "
            "be called by an engine; decorate the function with @program and run it through "
            "program.pyro, program.numpyro or ppl_gen.infer"
        )
    return engine
