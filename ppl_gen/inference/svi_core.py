"""The parts of SVI that know no engine: what a fit is, when it has settled, where its mode is."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, solve_triangular

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Objective:
    """Arguments of one call of the model, and of the guide with it."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass
class Latents:
    """What one run of a model tells of its sites."""

    #: Continuous sites that are not observed: what a guide has to cover.
    continuous: list[str] = field(default_factory=list)
    #: Unobserved discrete sites with finitely many values: summed out.
    enumerable: list[str] = field(default_factory=list)
    #: Unobserved discrete sites with infinitely many values: cannot be treated.
    countable: list[str] = field(default_factory=list)
    #: Whether some plate is subsampled, and whether a continuous latent lies in such a plate.
    subsamples: bool = False
    local: bool = False
    #: Log densities that one run computes.
    elements: int = 0


@dataclass(frozen=True)
class Draws:
    """Draws from a guide."""

    #: Site -> (n, ...), in the constrained space.
    values: dict[str, NDArray[Any]]
    #: (weights,), log p(x, z) - log q(z) in nats, of these draws and of further ones.
    log_weights: Array
    #: Parameters of guide and model.
    params: dict[str, Any]


class Fit(Protocol):
    """One run of SVI on one engine."""

    def advance(self, n: int, length: int) -> tuple[Array, Any]:
        """Take n <= length steps; the ELBO of each, and the mean of the iterates."""

    def settle(self, iterates: Sequence[Any]) -> None:
        """Take the mean of some iterates for the answer."""

    def latents(self) -> Latents:
        """Sites of the model as it is trained."""

    def guide_sites(self) -> dict[str, bool]:
        """Sample sites of the guide, and whether each is discrete."""

    def mode(self) -> Array:
        """Where a Laplace guide stands, in the unconstrained space."""

    def curvature(self, loc: Array) -> tuple[float, Array, Array]:
        """Minus the log joint, its gradient and its Hessian there."""

    def become_normal(self, loc: Array, scale_tril: Array) -> None:
        """Exchange the guide for a multivariate normal."""

    def draw(self, n: int, *, weights: int) -> Draws:
        """Draw from the guide, and weigh so many draws: none, or n or more."""


@dataclass(frozen=True)
class Rise:
    """How far the ELBO rose from one window of steps to the next, in nats."""

    rise: float
    standard_error: float
    #: A rise that is no matter: 1e-6 nats, or what rounding leaves of a median of this size.
    negligible: float

    def settled(self, tol: float) -> bool:
        """Whether the ELBO neither rose nor fell by more than its noise explains."""
        return abs(self.rise) <= tol * self.standard_error + self.negligible


def rise_of(history: Array, window: int) -> Rise:
    """Compare the medians of the last two windows of an ELBO history.

    Medians, since single estimates of an ELBO have heavy tails. The standard error is that of a
    difference of two medians of normal noise, sqrt(pi / 2) sd sqrt(2 / window), with sd from the
    median absolute deviation in the last window. Where the objective has no noise (a mode is
    sought) what is left is the rise that is negligible.

    Parameters
    ----------
    history : array of float, shape (steps,)
        ELBO of each step in nats.
    window : int
        Steps in a window; the history must hold two.

    Returns
    -------
    Rise
        The rise and its standard error.

    Examples
    --------
    >>> import numpy as np
    >>> noise = np.random.default_rng(0).standard_normal(1000)
    >>> rise_of(noise - 3.0, 500).settled(tol=1.0)
    True
    >>> rise_of(noise + 0.01 * np.arange(1000), 500).settled(tol=1.0)
    False
    """
    before, last = history[-2 * window : -window], history[-window:]
    median = float(np.median(last))
    sd = 1.4826 * float(np.median(np.abs(last - median)))
    return Rise(
        rise=median - float(np.median(before)),
        standard_error=math.sqrt(math.pi / window) * sd,
        negligible=max(1e-6, 1e-9 * abs(median)),
    )


_NO_MODE = (
    "SVI.run: guide='laplace' came to rest where the log joint has no mode: {}; the posterior is "
    "flat, ridged or far away; raise steps, give improper priors a scale, or take "
    "guide='full_rank' or NUTS"
)


def newton_mode(
    curvature: Callable[[Array], tuple[float, Array, Array]], loc: Array, *, iterations: int = 20
) -> tuple[Array, Array]:
    """Walk from near a minimum to it by Newton's method, and give the curvature there.

    Parameters
    ----------
    curvature : callable
        Point (d,) -> value, gradient (d,) and Hessian (d, d).
    loc : array of float, shape (d,)
        Where to begin.
    iterations : int
        Most steps taken.

    Returns
    -------
    loc : array of float, shape (d,)
        The minimum.
    scale_tril : array of float, shape (d, d)
        Lower Cholesky factor of the inverse Hessian: the scale of the Laplace approximation.

    Raises
    ------
    ValueError
        The Hessian is not positive definite, or the steps did not suffice: the point is not near
        a minimum.

    References
    ----------
    Nocedal, J. and Wright, S. (2006). Numerical Optimization, section 3.3; step halving as in
    section 3.1.

    Examples
    --------
    >>> import numpy as np
    >>> precision = np.array([[2.0, 0.5], [0.5, 1.0]])
    >>> def bowl(z):
    ...     return 0.5 * (z - 3) @ precision @ (z - 3), precision @ (z - 3), precision
    >>> loc, scale_tril = newton_mode(bowl, np.zeros(2))
    >>> loc.round(6).tolist()
    [3.0, 3.0]
    >>> bool(np.allclose(scale_tril @ scale_tril.T @ precision, np.eye(2)))
    True
    """
    value, gradient, hessian = curvature(loc)
    for _ in range(iterations):
        step = cho_solve((_cholesky(hessian), True), gradient)
        # Half the squared decrement is what the quadratic says is left to gain, in nats.
        if 0.5 * float(gradient @ step) < 1e-14:
            break
        for _ in range(10):
            candidate = curvature(loc - step)
            if candidate[0] <= value:
                break
            step = step / 2.0
        else:
            break  # the value no longer falls: rounding
        loc = loc - step
        value, gradient, hessian = candidate
    else:
        raise ValueError(_NO_MODE.format(f"Newton's method found none in {iterations} steps"))
    # H^-1 = S S' with S = L^-T, upper; the lower factor comes of the flipped Hessian.
    flipped = _cholesky(hessian[::-1, ::-1])
    inverse = solve_triangular(flipped, np.eye(len(loc)), lower=True)
    return loc, np.tril(inverse[::-1, ::-1].T)


def _cholesky(hessian: Array) -> Array:
    try:
        return np.asarray(np.linalg.cholesky(hessian), dtype=np.float64)
    except np.linalg.LinAlgError:
        raise ValueError(_NO_MODE.format("the curvature is not positive definite")) from None
