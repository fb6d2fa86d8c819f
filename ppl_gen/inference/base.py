"""What inference methods have in common: settings only, and a name to ask for them by."""

import importlib
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

from sklearn.base import BaseEstimator

import ppl_gen
from ppl_gen.engines import Engine, Site
from ppl_gen.inference.training.settings import Training

__all__ = ["METHODS", "ONE_AT_A_TIME", "InferenceMethod", "outline_quietly", "resolve"]

#: Pyro and NumPyro keep the handlers of a running model in one place for the whole process, so
#: runs of any method, in several threads, take turns.
ONE_AT_A_TIME = threading.RLock()

#: Lower-case name -> public class.
METHODS = {
    "em": "EM",
    "nuts": "NUTS",
    "svi": "SVI",
    "conjugate": "Conjugate",
    "maximum_likelihood": "MaximumLikelihood",
}


class InferenceMethod(BaseEstimator):  # type: ignore[misc]
    """Settings of an inference method; a run never changes them.

    A scikit-learn estimator in what concerns parameters, so that ``inference__draws`` works in a
    grid search. Methods that run on programs have::

        run(model, args, kwargs, *, engine, seed, device, dtype, coords, exchangeable, rotatable,
            progress) -> Posterior

    where `model` is a Program or a native model and `engine` the name of the engine to run it
    on, or None for the method's own choice.

    Attributes
    ----------
    name : str
        What the method is called in ``method="..."``.
    """

    name: ClassVar[str]

    def set_params(self, **params: Any) -> Self:
        """Set settings by name; one of a `training` that is None makes it `Training()` first."""
        asked = any(name.startswith("training__") for name in params) and "training" not in params
        if asked and getattr(self, "training", False) is None:
            super().set_params(training=Training())
        super().set_params(**params)
        return self


def resolve(method: str | InferenceMethod) -> InferenceMethod:
    """Return the inference object that is meant.

    Parameters
    ----------
    method : str or InferenceMethod
        An object, returned as it is, or a name, which gives the method with its defaults.

    Raises
    ------
    ValueError
        If there is no method of this name; the names are listed.
    TypeError
        If `method` is a class or something else.

    Examples
    --------
    >>> from ppl_gen.inference.base import resolve
    >>> resolve("nuts").draws
    1000
    """
    if isinstance(method, InferenceMethod):
        return method
    names = ", ".join(repr(name) for name in METHODS)
    if isinstance(method, type) and issubclass(method, InferenceMethod):
        raise TypeError(f"method: {method.__name__} is a class; pass {method.__name__}()")
    if not isinstance(method, str):
        raise TypeError(
            f"method: got a {type(method).__name__}; expected one of {names}, or an inference "
            "object such as NUTS(draws=2000)"
        )
    if method.lower() not in METHODS:
        raise ValueError(f"method: unknown {method!r}; expected one of {names}, or an object")
    public = METHODS[method.lower()]
    kind: Any = getattr(importlib.import_module(ppl_gen.PUBLIC[public]), public)
    made: InferenceMethod = kind()
    return made


def outline_quietly(
    engine: Engine,
    native: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> dict[str, Site]:
    """Outline a model to look at its sites, without warnings on values outside the support.

    They have no finite density, which the method finds and names with more to say.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Out-of-support values", category=UserWarning)
        return engine.outline(native, args, kwargs)
