"""Linear Gaussian state space models: Kalman's filter and smoother, fitted by EM."""

from typing import Any, ClassVar, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ppl_gen.counts import check_count
from ppl_gen.forecasts import ForecastingModel
from ppl_gen.inference.base import InferenceMethod
from ppl_gen.sequences import Sequences
from ppl_gen.structures.linear_gaussian import LinearGaussianStates

Array = Any

COVARIANCE_TYPES = ("full", "diag")


class LinearGaussianStateSpace(ForecastingModel):
    """Hidden states that move linearly, seen through a linear map, both with normal noise.

    The model of a sequence x of T steps in D columns, with K hidden states z, is::

        z_1 ~ N(initial_mean, initial_covariance)
        z_t = transition z_(t-1) + transition_offset + N(0, transition_covariance)
        x_t = observation z_t + observation_offset + N(0, observation_covariance)

    Every parameter that is given is held at that value; what is None is learned. So the local
    level model is ``LinearGaussianStateSpace(1, transition=1, observation=1,
    observation_offset=0)``, whose two variances (and start) are learned.

    Parameters
    ----------
    n_states : int
        Dimension K of the hidden state.
    transition, observation : array (K, K), (D, K); number; or None
        A number stands for that multiple of the identity.
    transition_offset, observation_offset : array (K,), (D,); number; or None
        By default the states have no drift of their own (0), and the level is learned.
    transition_covariance, observation_covariance : array (K, K), (D, D); number; or None
    initial_mean, initial_covariance : array (K,), (K, K); number; or None
        Of the first state. A large covariance, such as 1e7, is a vague start.
    transition_covariance_type, observation_covariance_type : {"full", "diag"}
        Of a covariance that is learned.
    var_smoothing : float
        Share of a column's variance (of that of a state that makes for it) that is added to
        every variance that is learned, so that none reaches zero.
    inference : str, EM, SVI, NUTS or None
        By default, EM. NUTS and SVI integrate the states out, and want a model that is identified
        (below), such as a structural one with given maps.
    random_state : int, RandomState or None
    device : str
        "auto", "cpu", "cuda" or "cuda:1".
    dtype : str or None
        Float type of SVI and NUTS; by default float64.

    Attributes
    ----------
    transition_, transition_offset_, transition_covariance_ : (K, K), (K,), (K, K)
    observation_, observation_offset_, observation_covariance_ : (D, K), (D,), (D, D)
    initial_mean_, initial_covariance_ : (K,), (K, K)
        Means of the draws, after a Bayesian fit.
    posterior_ : Posterior
    n_iter_, converged_, lower_bound_, history_
        Of the last EM fit.

    Notes
    -----
    If all is learned, states are known up to an invertible linear map z -> A z: the transition's
    eigenvalues, the density, and forecasts are identified, single states and loadings are not.
    With one sequence, the covariance of its one first state goes to its floor.

    EM is that of Shumway & Stoffer (Journal of Time Series Analysis 3, 1982); Ghahramani &
    Hinton (CRG-TR-96-2, 1996). It is slow where noises are small against the states: lower
    `tol` and raise `max_iter` for the last digits. NaN is marginalised exactly. The steps of
    filter and smoother are `ppl_gen.algorithms.kalman`'s.

    Examples
    --------
    >>> from ppl_gen import LinearGaussianStateSpace
    >>> from ppl_gen.datasets import load_nile
    >>> flow = load_nile().frame[["flow"]]
    >>> model = LinearGaussianStateSpace(
    ...     1, transition=1, observation=1, observation_offset=0, initial_mean=0,
    ...     initial_covariance=1e7, transition_covariance=1469.1, observation_covariance=15099,
    ... ).fit(flow)
    >>> round(model.score(flow), 1)
    -641.6
    >>> model.forecast(2).mean.round(1).tolist()
    [[798.4], [798.4]]
    """

    methods: ClassVar[tuple[str, ...]] = ("em", "svi", "nuts")
    structure_kind: ClassVar[Any] = LinearGaussianStates

    def __init__(
        self,
        n_states: int = 1,
        transition: Any = None,
        transition_offset: Any = 0.0,
        transition_covariance: Any = None,
        observation: Any = None,
        observation_offset: Any = None,
        observation_covariance: Any = None,
        initial_mean: Any = None,
        initial_covariance: Any = None,
        transition_covariance_type: str = "full",
        observation_covariance_type: str = "full",
        var_smoothing: float = 1e-9,
        inference: str | InferenceMethod | None = None,
        random_state: Any = None,
        device: str = "auto",
        dtype: str | None = None,
    ) -> None:
        self.n_states = n_states
        self.transition = transition
        self.transition_offset = transition_offset
        self.transition_covariance = transition_covariance
        self.observation = observation
        self.observation_offset = observation_offset
        self.observation_covariance = observation_covariance
        self.initial_mean = initial_mean
        self.initial_covariance = initial_covariance
        self.transition_covariance_type = transition_covariance_type
        self.observation_covariance_type = observation_covariance_type
        self.var_smoothing = var_smoothing
        self.inference = inference
        self.random_state = random_state
        self.device = device
        self.dtype = dtype

    # -- fitting -------------------------------------------------------------------------------

    def fit(self, X: Any, lengths: Any = None, y: Any = None, sample_weight: Any = None) -> Self:
        """Fit the model to one or more sequences.

        Parameters
        ----------
        X : list of (T, D) tables or (T,) series, (n, T, D) array, or rows (N, D) or (N,)
            NaN is missing, single entries and whole steps.
        lengths : (n,) or None
            Of the sequences, where X has the rows of all.
        y : ignored
        sample_weight : (n,) or None
            Weights of the sequences, for EM.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a parameter has the wrong shape or is no covariance, or every sequence has one
            step while the dynamics are to be learned.
        """
        method = self._resolved_method()
        sequences = self._read_training(X, lengths, sample_weight=sample_weight)
        structure = self._bound(sequences)
        self._warn_constant(sequences.values, np.ones(structure.n_columns, dtype=bool))
        self._fit_structure(structure, sequences, method)
        return self

    def _bound(self, sequences: Sequences) -> LinearGaussianStates:
        """Return the structure that the settings ask for."""
        if not (isinstance(self.n_states, int | np.integer) and self.n_states >= 1):
            raise ValueError(
                f"{self._who}: n_states is {self.n_states!r}; expected a whole number, at least 1"
            )
        if not self.var_smoothing >= 0.0:
            raise ValueError(
                f"{self._who}: var_smoothing is {self.var_smoothing!r}; expected 0 or more"
            )
        states, columns = int(self.n_states), int(sequences.values.shape[1])
        shapes = {
            "initial_mean": (states,),
            "initial_covariance": (states, states),
            "transition": (states, states),
            "transition_offset": (states,),
            "transition_covariance": (states, states),
            "observation": (columns, states),
            "observation_offset": (columns,),
            "observation_covariance": (columns, columns),
        }
        fixed = {
            name: self._given(name, shape)
            for name, shape in shapes.items()
            if getattr(self, name) is not None
        }
        diagonal = []
        for part in ("transition", "observation"):
            kind = getattr(self, f"{part}_covariance_type")
            if kind not in COVARIANCE_TYPES:
                raise ValueError(
                    f"{self._who}: {part}_covariance_type is {kind!r}; expected one of "
                    f"{', '.join(map(repr, COVARIANCE_TYPES))}"
                )
            if kind == "diag":
                diagonal.append(f"{part}_covariance")
        moves = {"transition", "transition_offset", "transition_covariance"}
        if sequences.lengths.max() < 2 and not moves <= fixed.keys():
            raise ValueError(
                f"{self._who}.fit: every sequence has one step, which says nothing of "
                f"{', '.join(sorted(moves - fixed.keys()))}; give sequences of two steps or "
                "more, or give these parameters"
            )
        structure = LinearGaussianStates(
            states, columns, fixed, tuple(diagonal), float(self.var_smoothing)
        )
        return structure.bind(sequences)

    def _given(self, name: str, shape: tuple[int, ...]) -> Array:
        """Return a parameter that the user gave, checked."""
        value = np.asarray(getattr(self, name), dtype=np.float64)
        if value.ndim == 0:
            value = value * (np.eye(*shape) if len(shape) == 2 else np.ones(shape))
        if value.shape != shape:
            raise ValueError(
                f"{self._who}: {name} has shape {value.shape}; expected {shape}, or a number"
            )
        if not np.isfinite(value).all():
            raise ValueError(f"{self._who}: {name} has values that are not finite")
        if name.endswith("_covariance"):
            least = np.linalg.eigvalsh(0.5 * (value + value.T))[0]
            if not np.allclose(value, value.T) or least < -1e-10 * np.abs(value).max():
                raise ValueError(
                    f"{self._who}: {name} is no covariance; expected a symmetric matrix without "
                    "negative eigenvalues"
                )
        return value

    def _publish(self) -> None:
        for name, value in self.parameters_.items():
            setattr(self, f"{name}_", np.mean(value, axis=0))

    # -- states --------------------------------------------------------------------------------

    def filter(self, X: Any, lengths: Any = None, *, return_covariance: bool = False) -> Any:
        """Mean of each state given the steps up to it.

        Parameters
        ----------
        X : sequences
        lengths : (n,) or None
        return_covariance : bool
            Return the covariances too.

        Returns
        -------
        (N, K) array, in the arrangement of X
            And (N, K, K) in the same. After a Bayesian fit they average over the draws.
        """
        return self._states(X, lengths, "filter", return_covariance, smooth=False)

    def smooth(self, X: Any, lengths: Any = None, *, return_covariance: bool = False) -> Any:
        """Mean of each state given all steps of its sequence.

        Parameters and results are those of :meth:`filter`.
        """
        return self._states(X, lengths, "smooth", return_covariance, smooth=True)

    def transform(self, X: Any, lengths: Any = None) -> Any:
        """Return :meth:`smooth`, by scikit-learn's name."""
        return self.smooth(X, lengths)

    def _states(
        self, X: Any, lengths: Any, method: str, return_covariance: bool, *, smooth: bool
    ) -> Any:
        sequences, arrangement = self._read_checked(X, lengths, method)
        weights = np.repeat(self._draw_weights(sequences), sequences.lengths, axis=1)  # (S, N)
        mean: Array = 0.0
        square: Array = 0.0
        for s in range(self._n_draws):
            means, covariances = self.structure_.states(self._draw(s), sequences, smooth=smooth)
            mean = mean + weights[s, :, None] * means
            own = covariances + means[:, :, None] * means[:, None, :]
            square = square + weights[s, :, None, None] * own
        if not return_covariance:
            return arrangement.restore(mean)
        if self._n_draws > 1:
            covariances = square - mean[:, :, None] * mean[:, None, :]
        return arrangement.restore(mean), arrangement.restore(covariances)

    # -- drawing -------------------------------------------------------------------------------

    def sample(
        self, n_samples: int = 1, random_state: Any = None, *, return_latent: bool = False
    ) -> Any:
        """Draw a sequence, in the columns and dtypes of those that were fitted.

        Parameters
        ----------
        n_samples : int
            Its steps.
        random_state : int or None
        return_latent : bool
            Return the states too.

        Returns
        -------
        table of (n_samples, D), or the table and (n_samples, K) states
        """
        check_is_fitted(self)
        check_count(n_samples, "n_samples", f"{self._who}.sample")
        values, states = self._draw_sequences(np.array([n_samples]), random_state)
        table = self._table(values)
        return (table, states) if return_latent else table

    def impute(
        self, X: Any, lengths: Any = None, n_draws: int | None = None, random_state: Any = None
    ) -> Any:
        """Fill in what is missing.

        Parameters
        ----------
        X : sequences
            NaN is filled; the rest stays.
        lengths : (n,) or None
        n_draws : int or None
            None fills with conditional means; a number gives as many completions, each a draw
            from the joint conditional of all that is missing (multiple imputation).
        random_state : int or None

        Returns
        -------
        sequences in the arrangement of X, or a list of `n_draws` of them
        """
        sequences, arrangement = self._read_checked(X, lengths, "impute")
        if n_draws is None:
            weights = np.repeat(self._draw_weights(sequences), sequences.lengths, axis=1)
            filled = sum(
                weights[s, :, None] * self.structure_.fill(self._draw(s), sequences)
                for s in range(self._n_draws)
            )
            filled = np.where(np.isnan(sequences.values), filled, sequences.values)
            return arrangement.restore(self._table(filled))
        rng = self._rng() if random_state is None else np.random.default_rng(random_state)
        return [
            arrangement.restore(
                self._table(self.structure_.draw_missing(self._draw(int(s)), sequences, rng))
            )
            for s in self._choose_draws(sequences, n_draws, rng)
        ]
