"""hmmlearn as an oracle: its fits from a given start, with priors that say nothing.

Every case is a model of hmmlearn whose start is random but fixed by the seed, sequences drawn from
another such model, and 20 steps of Baum-Welch from the one on the other. hmmlearn's defaults are
not maximum likelihood: the settings in `_MODELS` make them so.

hmmlearn 0.3.3 takes the covariances of a GMMHMM about the means of before the step, which is a
conditional maximum: it climbs to the same optimum by other steps. `ExactGMMHMM` takes them about
the new means, as the M-step has it, and is what the cases "gmm-..." fit.
"""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from hmmlearn import hmm

from ppl_gen.families import Categorical, Family, MixtureFamily, Multinomial, Normal, Poisson

N_STATES = 3
N_COLUMNS = 2
N_MIX = 2
N_SYMBOLS = 4
N_TRIALS = 6
#: A sequence of one step has no transition.
LENGTHS = (150, 1, 90, 200)


class ExactGMMHMM(hmm.GMMHMM):  # type: ignore[misc]
    """hmmlearn's GMMHMM with the covariances of the M-step: about the means that it finds."""

    def _do_mstep(self, stats: dict[str, Any]) -> None:
        if "m" in self.params and "c" in self.params:
            counts = stats["post_mix_sum"]
            away = stats["m_n"] / counts[:, :, None] - self.means_
            if self.covariance_type == "full":
                square = np.einsum("kmd,kme->kmde", away, away)
            elif self.covariance_type == "diag":
                square = away**2
            else:
                square = (away**2).sum(axis=2)
            stats["c_n"] -= counts.reshape(counts.shape + (1,) * (square.ndim - 2)) * square
        super()._do_mstep(stats)


def _gaussian(covariance_type: str) -> Callable[..., Any]:
    return lambda **kw: hmm.GaussianHMM(
        N_STATES, covariance_type, covars_prior=0.0, covars_weight=0.0, **kw
    )


def _mixed(kind: type[hmm.GMMHMM], covariance_type: str) -> Callable[..., Any]:
    # The default makes the divisor D N + D - M for spherical covariances; this makes it D N.
    prior = {"covars_prior": -(N_COLUMNS + 2.0) / 2.0} if covariance_type == "spherical" else {}
    return lambda **kw: kind(N_STATES, N_MIX, covariance_type=covariance_type, **prior, **kw)


_COVARIANCE_TYPES = ("full", "diag", "spherical")
_MODELS: dict[str, Callable[..., Any]] = {
    **{f"gaussian-{kind}": _gaussian(kind) for kind in (*_COVARIANCE_TYPES, "tied")},
    "categorical": lambda **kw: hmm.CategoricalHMM(N_STATES, n_features=N_SYMBOLS, **kw),
    "poisson": lambda **kw: hmm.PoissonHMM(N_STATES, **kw),
    "multinomial": lambda **kw: hmm.MultinomialHMM(N_STATES, n_trials=N_TRIALS, **kw),
    **{f"gmm-{kind}": _mixed(ExactGMMHMM, kind) for kind in _COVARIANCE_TYPES},
}
#: hmmlearn's own GMMHMM, whose steps are others.
_MODELS.update({f"own-gmm-{kind}": _mixed(hmm.GMMHMM, kind) for kind in _COVARIANCE_TYPES})

EMISSIONS = [name for name in _MODELS if not name.startswith("own")]


@dataclasses.dataclass
class HmmlearnCase:
    """A fit by hmmlearn.

    Attributes
    ----------
    start : model of hmmlearn
        Its parameters set, and not fitted; ``init_params=""``.
    X : (sum of lengths, D)
        Integers where hmmlearn wants them: of shape (n, 1) for categories.
    lengths : list of int
    fitted : model of hmmlearn
        After `len(history)` steps from `start`.
    history : (n_iter,)
        Log likelihood of all sequences at the parameters before each step, in nats.
    """

    name: str
    start: Any
    X: np.ndarray
    lengths: list[int]
    fitted: Any
    history: np.ndarray

    @property
    def sequences(self) -> list[np.ndarray]:
        """The rows, sequence by sequence."""
        return np.split(self.X, np.cumsum(self.lengths)[:-1])

    @property
    def family(self) -> Family:
        """The emission as a family, without priors and floors, bound to the rows."""
        return _family(self.name).bind(self.X.astype(np.float64), N_STATES)


def hmmlearn_case(name: str, seed: int = 0, n_iter: int = 20, **settings: Any) -> HmmlearnCase:
    """Fit one of `EMISSIONS` by hmmlearn.

    Parameters
    ----------
    name : str
    seed : int
    n_iter : int
        Steps; all are made, since hmmlearn is told of no tolerance.
    **settings
        Of the hmmlearn model: ``params``, ``implementation``.
    """
    rng = np.random.default_rng([seed, list(_MODELS).index(name)])

    def made() -> Any:
        model = _MODELS[name](
            n_iter=n_iter, tol=-np.inf, init_params="", random_state=seed, **settings
        )
        return _set(model, name, rng)

    truth, start = made(), made()
    if hasattr(truth, "means_"):
        # Wide normals not far from the true ones, so that none falls upon a single row.
        start.means_ = truth.means_ + rng.normal(size=truth.means_.shape)
        start.covars_ = 4.0 * _covariances(start.covariance_type, truth.means_.shape[:-1], rng)
    drawn = [truth.sample(length, random_state=seed + i)[0] for i, length in enumerate(LENGTHS)]
    X, lengths = np.concatenate(drawn), list(LENGTHS)
    fitted = copy.deepcopy(start).fit(X, lengths)
    return HmmlearnCase(name, start, X, lengths, fitted, np.array(fitted.monitor_.history))


def parameters_of(model: Any) -> dict[str, Any]:
    """Return the parameters of a model of hmmlearn as ours: start, transition, family."""
    return {
        "start": np.asarray(model.startprob_),
        "transition": np.asarray(model.transmat_),
        "family": _emission_of(model),
    }


def _emission_of(model: Any) -> dict[str, Any]:
    if isinstance(model, hmm.CategoricalHMM):
        return {"probs": model.emissionprob_[:, None, :]}
    if isinstance(model, hmm.MultinomialHMM):
        return {"probs": model.emissionprob_}
    if isinstance(model, hmm.PoissonHMM):
        return {"rate": model.lambdas_}
    normal = Normal(model.covariance_type)
    if isinstance(model, hmm.GMMHMM):
        means = model.means_.reshape(N_STATES * N_MIX, -1)
        covars = model.covars_.reshape(N_STATES * N_MIX, *model.covars_.shape[2:])
        components = {"mean": means, "precision_cholesky": normal.factor(covars)}
        return {"weights": model.weights_, "components": components}
    covars = model._covars_  # the property spreads variances over matrices
    if model.covariance_type == "spherical" and covars.ndim == 2:
        covars = covars[:, 0]  # after a step, one a column, all equal
    return {"mean": model.means_, "precision_cholesky": normal.factor(covars)}


def _family(name: str) -> Family:
    kind, _, covariance_type = name.removeprefix("own-").partition("-")
    if kind == "categorical":
        return Categorical(alpha=0.0, n_categories=(N_SYMBOLS,))
    if kind == "multinomial":
        return Multinomial(alpha=0.0)
    if kind == "poisson":
        return Poisson(alpha=0.0)
    normal = Normal(covariance_type, reg_covar=0.0)
    return MixtureFamily(normal, N_MIX) if kind == "gmm" else normal


def _set(model: Any, name: str, rng: np.random.Generator) -> Any:
    """Set random parameters."""
    model.startprob_ = rng.dirichlet(np.ones(N_STATES))
    model.transmat_ = rng.dirichlet(np.full(N_STATES, 3.0), N_STATES) * 0.4 + 0.6 * np.eye(N_STATES)
    kind = name.removeprefix("own-").partition("-")[0]
    if kind in ("categorical", "multinomial"):
        model.n_features = N_SYMBOLS
        model.emissionprob_ = rng.dirichlet(np.ones(N_SYMBOLS), N_STATES)
    elif kind == "poisson":
        model.n_features = N_COLUMNS
        model.lambdas_ = rng.gamma(2.0, 3.0, size=(N_STATES, N_COLUMNS))
    else:
        model.n_features = N_COLUMNS
        lead = (N_STATES, N_MIX) if kind == "gmm" else (N_STATES,)
        model.means_ = rng.normal(0.0, 4.0, size=(*lead, N_COLUMNS))
        model.covars_ = _covariances(model.covariance_type, lead, rng)
        if kind == "gmm":
            model.weights_ = rng.dirichlet(np.full(N_MIX, 8.0), N_STATES)
    return model


def _covariances(kind: str, lead: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if kind == "spherical":
        return rng.uniform(0.5, 2.0, size=lead)
    if kind == "diag":
        return rng.uniform(0.5, 2.0, size=(*lead, N_COLUMNS))
    shape = (() if kind == "tied" else lead) + (N_COLUMNS, N_COLUMNS)
    root = rng.normal(size=shape) * 0.5 + np.eye(N_COLUMNS)
    return root @ np.swapaxes(root, -1, -2) + 0.2 * np.eye(N_COLUMNS)
