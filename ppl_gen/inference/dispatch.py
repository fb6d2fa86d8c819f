"""One door to inference on programs: check first, then run the method."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from ppl_gen import engines
from ppl_gen.engines import Engine, Site
from ppl_gen.inference.base import InferenceMethod, outline_quietly, resolve
from ppl_gen.inference.native import detect_engine
from ppl_gen.language import Program
from ppl_gen.posterior import Posterior
from ppl_gen.posterior.arguments import from_frames

__all__ = ["infer"]


def infer(
    program: Program | Callable[..., Any],
    *args: Any,
    method: str | InferenceMethod = "nuts",
    seed: int = 0,
    engine: str | None = None,
    device: str = "auto",
    dtype: str | None = None,
    coords: Mapping[str, Sequence[Hashable]] | None = None,
    exchangeable: str | None = None,
    rotatable: Sequence[str] = (),
    progress: bool = True,
    **kwargs: Any,
) -> Posterior:
    """Condition a program on data and return its posterior.

    Parameters
    ----------
    program : Program or callable
        A program, or a model written for Pyro or NumPyro, as it is.
    *args, **kwargs
        What the program is called with: data, sizes. DataFrames and Series become arrays, and
        their columns label axes called ``feature``, ``column`` or by ``columns.name``.
    method : str or InferenceMethod, default "nuts"
        ``"nuts"``, ``"svi"``, or an object with settings: ``NUTS(draws=2000)``.
    seed : int, default 0
        The same seed gives the same result on the same machine.
    engine : {"numpyro", "pyro"}, optional
        By default the method's choice for a program, and the native one for a native model.
    device : str, default "auto"
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.
    dtype : {"float64", "float32"}, optional
        float64 by default.
    coords : dict of str to sequence, optional
        Labels along named axes (plates, ``dims``).
    exchangeable : str, optional
        Axis of components whose order means nothing; verdict and summary are taken after
        relabelling.
    rotatable : str or sequence of str, optional
        Axes of factors that a rotation leaves as likely, such as ``["factor"]``; verdict and
        summary are taken after the draws are rotated to one orientation.
    progress : bool, default True
        Whether a bar is shown.

    Returns
    -------
    Posterior

    Raises
    ------
    ValueError
        Before any compute: unknown method, engine or device, CUDA where there is none, nothing
        observed, a posterior that is doubly intractable.
    TypeError
        If `program` cannot be called, or not with these arguments.

    Examples
    --------
    >>> import numpy as np
    >>> from ppl_gen import NUTS, dist, infer, plate, program, sample
    >>> @program
    ... def heights(x=None):
    ...     mu = sample("mu", dist.Normal(170.0, 20.0))
    ...     with plate("person", 3):
    ...         sample("x", dist.Normal(mu, 10.0), obs=x)
    >>> method = NUTS(chains=2, warmup=200, draws=300)
    >>> posterior = infer(heights, x=np.array([160.0, 180.0, 170.0]), method=method, progress=False)
    >>> posterior.shape
    (2, 300)
    """
    chosen = resolve(method)
    name = _engine_name(program, engine)
    run = getattr(chosen, "run", None)
    if run is None:
        raise ValueError(
            f"infer: {type(chosen).__name__} does not run on programs; expected a method that "
            "does, such as 'nuts' or 'svi'; it fits models of ppl_gen.models, by "
            f"inference={type(chosen).__name__}()"
        )
    args, kwargs, labels = from_frames(args, kwargs)
    backend = engines.get(name or "numpyro")
    native = getattr(program, backend.name, program)
    with backend.precision(dtype, device):
        sites = outline_quietly(backend, native, args, kwargs)
        _check_observed(native, sites)
        _check_tractable(backend, native, args, kwargs, sites)
    posterior: Posterior = run(
        program,
        args,
        kwargs,
        engine=name,
        seed=seed,
        device=device,
        dtype=dtype,
        coords={**_fitting(labels, sites), **(coords or {})},
        exchangeable=exchangeable,
        rotatable=rotatable,
        progress=progress,
    )
    return posterior


def _engine_name(program: Any, engine: str | None) -> str | None:
    """Return the engine to run on; None leaves a program's to the method."""
    if engine is not None:
        engines.get(engine)
        return engine
    if not callable(program):
        raise TypeError(
            f"infer: got a {type(program).__name__} as the program; expected a function decorated "
            "with @program, or a Pyro or NumPyro model"
        )
    if isinstance(program, Program):
        # A network in a program is torch's, which NumPyro cannot run.
        return "pyro" if detect_engine(program.function) == "pyro" else None
    found = detect_engine(program)
    if found is None:
        raise ValueError(
            f"infer: {getattr(program, '__name__', program)!r} refers to neither Pyro nor NumPyro; "
            "decorate it with @program if it is written with ppl_gen's sample and plate, or say "
            "which runs it: engine='pyro' or engine='numpyro'"
        )
    return found


def _check_observed(native: Callable[..., Any], sites: Mapping[str, Site]) -> None:
    """Refuse a program without data, unless it is an energy to draw from."""
    import inspect

    if any(s.observed or s.kind == "factor" for s in sites.values()):
        return
    latent = [name for name, site in sites.items() if site.kind == "sample"]
    arguments = ", ".join(inspect.signature(native).parameters) or "none"
    raise ValueError(
        f"infer: nothing is observed: the sites {', '.join(latent) or '(none)'} are all latent; "
        "expected data at one of them, by sample(..., obs=...); pass the argument that holds the "
        f"observations (arguments: {arguments}). To draw from the prior use the engine's "
        "prior_predictive"
    )


def _check_tractable(
    backend: Engine,
    native: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    sites: Mapping[str, Site],
) -> None:
    """Refuse latent parameters of an energy of observed data: its constant depends on them."""
    factors = [name for name, site in sites.items() if site.kind == "factor"]
    observed = {name for name, site in sites.items() if site.observed and name not in factors}
    if not factors or not observed:
        return
    parents = backend.dependencies(native, args, kwargs)
    for name in factors:
        above: set[str] = set()
        reached = set(parents.get(name, ()))
        while reached - above:
            above |= reached
            reached = {up for site in above if site not in observed for up in parents.get(site, ())}
        latent = sorted(n for n in above - observed if sites[n].kind == "sample")
        data = sorted(above & observed)
        if latent and data:
            raise ValueError(
                f"infer: factor {name!r} joins the observed {', '.join(data)} and the latent "
                f"{', '.join(latent)}: its normalising constant depends on the latter, so that the "
                "posterior is doubly intractable; expected the likelihood at a sample site; fix "
                f"the value of {', '.join(latent)}, or learn it by contrastive divergence"
            )


def _fitting(
    labels: Mapping[str, Sequence[Hashable]], sites: Mapping[str, Site]
) -> dict[str, Sequence[Hashable]]:
    """Labels of frames for the axes that the program has, in their size."""
    from ppl_gen.posterior.dimensions import axes_of_sites

    sizes = {
        axis: size
        for name, axes in axes_of_sites(sites).items()
        for axis, size in zip(axes, sites[name].value.shape, strict=True)
    }
    return {axis: values for axis, values in labels.items() if sizes.get(axis) == len(values)}
