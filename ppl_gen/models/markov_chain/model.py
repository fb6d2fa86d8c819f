"""Markov chains of any order over states of any kind."""

import warnings
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from ppl_gen.algorithms.ngrams import NGramIndex
from ppl_gen.algorithms.smoothing import SMOOTHING
from ppl_gen.algorithms.trees import tree_map
from ppl_gen.counts import check_count
from ppl_gen.inference.base import InferenceMethod
from ppl_gen.inference.em import EM
from ppl_gen.models.markov_chain.long_run import LongRun
from ppl_gen.models.markov_chain.reading import TokenModel
from ppl_gen.sequences import Sequences
from ppl_gen.structures.markov_chain import MAX_TABLE, ContextChain
from ppl_gen.tokens import decode, read_tokens

Array = Any
Parameters = dict[str, Any]


class MarkovChain(LongRun, TokenModel):
    """A Markov chain: each state depends on the `order` states before it.

    ``p(x_1, ..., x_T) = prod_t p(x_t | x_{t-k}, ..., x_{t-1})``, given the length T. Marks stand
    before the first state, so that the first steps have distributions of their own, and the
    density is exact from the first one on.

    Parameters
    ----------
    order : int
        k; 0 has independent states. Only contexts that occur take room.
    pseudocount : float or (K,) array
        Prior count of every state after every context: rows have a Dirichlet(1 + pseudocount)
        prior. EM takes the posterior mode, ``(n + pseudocount) / (total + its sum)``, as Laplace's
        rule does for 1; 0 is maximum likelihood. The other methods draw from the posterior.
    smoothing : {None, "jelinek-mercer", "kneser-ney"}
        None estimates every context by itself. The others interpolate with shorter contexts, down
        to the uniform distribution, and leave the prior aside: linearly, with weights found by
        deleted interpolation; or with absolute discounts and counts of different contexts, which
        is for text, and says little where every state follows every other. By EM only.
    states : sequence or None
        All states that may occur, in their order; by default those of the sequences fitted,
        sorted.
    inference : str, EM, Conjugate, SVI, NUTS or None
        By default, EM: counts, in one pass. Conjugate draws from the posterior itself, which is
        Dirichlet; SVI and NUTS find it by the program.
    random_state : int, RandomState or None
    device : str
        "auto", "cpu", "cuda" or "cuda:1", for SVI and NUTS; counting is done on the CPU.
    dtype : str or None
        Float type of SVI and NUTS; by default float64.

    Attributes
    ----------
    states_ : (K,)
        States, in the order of every axis of states.
    startprob_, transmat_ : (K,), (K, K)
        Of order 1: probabilities of the first state, and of the next one, by row. Means of the
        draws, after a Bayesian fit.
    parameters_ : dict of arrays
        See `ContextChain`; with a leading axis of draws: one, after EM.
    posterior_ : Posterior
    lengths_ : (n,)
        Of the sequences fitted.

    Notes
    -----
    Sequences are strings (of characters), lists, arrays or Series of states, or a list of these;
    or one array of the states of all with their ``lengths``. A list of strings is a list of
    sequences, and an array or a Series of strings is one sequence. States must not be missing.

    A state that is never left has no counts: with ``pseudocount=0`` its row is uniform, with a
    warning in order 1. So are contexts that did not occur, where nothing is smoothed.

    References
    ----------
    Anderson & Goodman (1957), Statistical inference about Markov chains, Annals of Mathematical
    Statistics 28, 89-110. Chen & Goodman (1999), An empirical study of smoothing techniques for
    language modeling, Computer Speech and Language 13, 359-394.

    Examples
    --------
    >>> from ppl_gen import MarkovChain
    >>> weather = ["sun", "sun", "rain", "sun", "rain", "rain", "sun", "sun"]
    >>> model = MarkovChain(pseudocount=0).fit([weather])
    >>> model.states_.tolist()
    ['rain', 'sun']
    >>> model.transmat_
    array([[0.33333333, 0.66666667],
           [0.5       , 0.5       ]])
    >>> model.stationary_distribution().round(4)
    array([0.4286, 0.5714])
    >>> text = MarkovChain(order=2, smoothing="kneser-ney", random_state=0)
    >>> text.fit("a rose is a rose is a rose").sample(length=9)
    ['a rose is']
    """

    methods: ClassVar[tuple[str, ...]] = ("em", "conjugate", "svi", "nuts")
    structure_kind: ClassVar[Any] = ContextChain

    structure_: ContextChain

    def __init__(
        self,
        order: int = 1,
        pseudocount: Any = 1.0,
        smoothing: str | None = None,
        states: Any = None,
        inference: str | InferenceMethod | None = None,
        random_state: Any = None,
        device: str = "auto",
        dtype: str | None = None,
    ) -> None:
        self.order = order
        self.pseudocount = pseudocount
        self.smoothing = smoothing
        self.states = states
        self.inference = inference
        self.random_state = random_state
        self.device = device
        self.dtype = dtype

    # -- reading and fitting -------------------------------------------------------------------

    def fit(self, X: Any, lengths: Any = None, y: Any = None, sample_weight: Any = None) -> Self:
        """Fit the chain.

        Parameters
        ----------
        X : sequences
            See the notes of the class.
        lengths : (n,) or None
            Of the sequences, where X has the states of all, one after another.
        y : ignored
        sample_weight : (n,) or None
            Weights of whole sequences, for EM without smoothing.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a sequence is empty, a state is missing or unknown, lengths do not sum to the
            number of steps, or no sequence is longer than the order.
        TypeError
            If states are of several types.

        Warns
        -----
        RuntimeWarning
            If a state of a chain of order 1 is never left, and there is no prior count.
        """
        method = self._checked_method(sample_weight)
        read, _ = self._read_sequences(X, lengths, reset=True, method="fit")
        weights = None
        if sample_weight is not None:
            weights = _check_sample_weight(sample_weight, read.lengths, ensure_non_negative=True)
        data = Sequences(read.values, read.lengths, weights=weights)
        # A sequence without weight is none.
        data = data if weights is None else data[np.flatnonzero(weights > 0.0)]
        if not len(data) or self.order >= data.lengths.max():
            longest = data.lengths.max() if len(data) else 0
            raise ValueError(
                f"{self._who}.fit: order={self.order}, but the longest sequence has {longest} "
                "steps, so that no state has so many before it; lower the order, or give longer "
                "sequences"
            )
        codes, starts = data.values[:, 0], data.ends - data.lengths
        index = NGramIndex.of(codes, starts, self.order, len(self.states_))
        structure = ContextChain(index, self._prior_counts(), self.smoothing)
        if not isinstance(method, EM):
            structure.program()  # which refuses what is too large for one
            structure = replace(structure, index=index.completed())
        located = structure.locate(codes, data.lengths, data.weights)
        self._warn_never_left(structure, located, method)
        self._fit_structure(structure, located, method)
        return self

    def _checked_method(self, sample_weight: Any) -> InferenceMethod:
        """Check the settings, before any work, and return the method."""
        method = self._resolved_method()
        order = self.order
        if not isinstance(order, int | np.integer) or isinstance(order, bool) or order < 0:
            raise ValueError(
                f"{self._who}: order is {order!r}; expected a whole number, at least 0"
            )
        if self.smoothing is not None and self.smoothing not in SMOOTHING:
            raise ValueError(
                f"{self._who}: smoothing is {self.smoothing!r}; expected None or one of "
                f"{', '.join(map(repr, SMOOTHING))}"
            )
        stepwise = getattr(method, "batch_size", None) is not None
        if self.smoothing is not None and (
            not isinstance(method, EM) or stepwise or sample_weight is not None
        ):
            raise ValueError(
                f"{self._who}: smoothing={self.smoothing!r} is estimated from whole counts of all "
                "sequences, by EM without batch_size and without sample_weight; leave these out, "
                "or set smoothing=None"
            )
        if isinstance(method, EM) and method.engine == "jax":
            raise ValueError(
                f"{self._who}: EM(engine='jax') has nothing to compile here: EM counts, by NumPy; "
                "leave engine as 'auto'"
            )
        counts = np.asarray(self.pseudocount, dtype=np.float64)
        if counts.ndim > 1 or not (counts >= 0.0).all() or not np.isfinite(counts).all():
            raise ValueError(
                f"{self._who}: pseudocount is {self.pseudocount!r}; expected a number of at least "
                "0, or one a state"
            )
        return method

    def _prior_counts(self) -> Array:
        counts = np.asarray(self.pseudocount, dtype=np.float64)
        if counts.ndim and counts.shape != self.states_.shape:
            raise ValueError(
                f"{self._who}.fit: pseudocount has {len(counts)} numbers, but there are "
                f"{len(self.states_)} states; expected one a state, in the order of states_"
            )
        return np.full(self.states_.shape, counts) if counts.ndim == 0 else counts

    def _warn_never_left(
        self, structure: ContextChain, data: Sequences, method: InferenceMethod
    ) -> None:
        if self.order != 1 or self.smoothing is not None or not isinstance(method, EM):
            return
        counts = structure.index.context_sums(1, structure.count(data)["count"])
        never = np.flatnonzero((counts[:-1] == 0.0) & (structure.pseudocount.sum() == 0.0))
        if len(never):
            shown = ", ".join(map(repr, self.states_[never[:5]].tolist()))
            warnings.warn(
                f"{self._who}.fit: {len(never)} state(s) ({shown}) are never left, so that nothing "
                "tells what follows: their rows of transmat_ are uniform; give pseudocount > 0, "
                "or leave them out",
                RuntimeWarning,
                stacklevel=3,
            )

    def _fit_em(
        self,
        structure: ContextChain,
        data: Sequences,
        method: EM,
        rng: np.random.Generator,
        device: str,
        start: Parameters | None,
    ) -> None:
        if method.batch_size is not None:
            super()._fit_em(structure, data, method, rng, "cpu", start)  # counting is NumPy's
            return
        # Nothing is hidden, so that the first step of EM is the last one.
        method.check()
        statistics = structure.count(data)
        parameters = structure.m_step(statistics)
        _, evidence = structure.e_step(parameters, data)
        penalty, total = structure.penalty(parameters, statistics), data.total_weight
        self.parameters_ = tree_map(lambda leaf: leaf[None], parameters)
        self.n_iter_, self.converged_ = 1, True
        self.lower_bound_ = float(evidence) / total
        self.history_ = np.array([(float(evidence) - penalty) / total])
        self._posterior = None

    def _keep_training(self, data: Sequences) -> None:
        self._keep_lengths(data)
        self.end_contexts_ = self.structure_.ends(data)
        size = len(data) * int(data.lengths.max())
        self._training = data if size <= MAX_TABLE else None

    def _coords(self, structure: ContextChain) -> dict[str, list[Any]]:
        return structure.coords(self.states_.tolist())

    # -- what was learned ----------------------------------------------------------------------

    @property
    def startprob_(self) -> Array:
        """Probabilities of the first state, of order 1: (K,)."""
        return self._mean_rows("startprob_")[-1]

    @property
    def transmat_(self) -> Array:
        """Probabilities of the next state, a row a state, of order 1: (K, K)."""
        return self._mean_rows("transmat_")[:-1]

    def _mean_rows(self, name: str) -> Array:
        if not hasattr(self, "parameters_") or self.structure_.order != 1:
            raise AttributeError(
                f"{self._who}: {name} is that of a fitted chain of order 1; ask forecast, or "
                "posterior_, of others"
            )
        mean = tree_map(lambda leaf: leaf.mean(axis=0), self.parameters_)
        return self.structure_.rows(mean)

    @property
    def posterior_(self) -> Any:
        """The `Posterior`: the draws with their diagnostics, or the one draw of a point fit.

        That of a smoothed chain holds its parameters, and has no program.
        """
        if not hasattr(self, "parameters_") or self.structure_.has_program:
            return super().posterior_
        if self._posterior is None:
            from ppl_gen.posterior import Posterior

            draws = {
                f"{name}_{level}": value[None]
                for name, levels in self.parameters_.items()
                for level, value in levels.items()
            }
            self._posterior = Posterior(draws, method="em")
        return self._posterior

    @classmethod
    def from_artifact(cls, artifact: Any, *, program: Any = None, modules: Any = None) -> Self:
        """Return the model that an artefact holds; called by `ppl_gen.load`."""
        model = cls.from_tree(artifact.tree["model"])
        if model.structure_.has_program:
            return super().from_artifact(artifact, program=program, modules=modules)
        return model

    # -- scoring -------------------------------------------------------------------------------

    def log_prob(self, X: Any, lengths: Any = None) -> Array:
        """Log probability of each sequence given its length, in nats.

        Parameters
        ----------
        X, lengths
            Sequences; see the notes of the class.

        Returns
        -------
        (n,) array
            After a Bayesian fit, the log posterior predictive probability.

        Raises
        ------
        ValueError
            If a state is missing, or was not there in the fit: the message names it.
        """
        return super().log_prob(X, lengths)

    def perplexity(self, X: Any, lengths: Any = None) -> float:
        """Exponential of minus the mean log probability of a state: the lower the better.

        Of how many equally likely states the next one is as uncertain.

        Parameters
        ----------
        X, lengths
            Sequences; see the notes of the class.
        """
        return float(2.0 ** self.bits_per_symbol(X, lengths))

    def bits_per_symbol(self, X: Any, lengths: Any = None) -> float:
        """Mean of minus log2 of the probability of a state, over all steps of all sequences."""
        check_is_fitted(self)
        steps = read_tokens(X, lengths, f"{self._who}.bits_per_symbol").lengths.sum()
        return float(-self.log_prob(X, lengths).sum() / (steps * np.log(2.0)))

    # -- what comes next -----------------------------------------------------------------------

    def forecast(self, steps: int = 1, X: Any = None, lengths: Any = None) -> Array:
        """Distributions of the states that come after each sequence.

        Parameters
        ----------
        steps : int
            How far ahead.
        X, lengths
            What came before; see the notes of the class. The sequences fitted, if None.

        Returns
        -------
        (n, steps, K) array
            ``[:, 0]`` is the distribution of the next state. After a Bayesian fit, the posterior
            predictive, in which a new sequence tells of the parameters, too.
        """
        check_is_fitted(self)
        check_count(steps, "steps", f"{self._who}.forecast")
        if X is None:
            ends = self.end_contexts_
            weights = np.full((self._n_draws, len(ends)), 1.0 / self._n_draws)
        else:
            sequences, _ = self._read_checked(X, lengths, "forecast")
            ends, weights = self.structure_.ends(sequences), self._draw_weights(sequences)
        # What is to come depends on the context at the end alone.
        contexts, place = np.unique(ends, axis=0, return_inverse=True)
        found = np.zeros((len(ends), steps, self.structure_.n_states))
        for s in range(self._n_draws):
            ahead = self.structure_.forecast(self._draw(s), list(contexts.T), int(steps))
            found += weights[s][:, None, None] * ahead[place]
        return found

    def sample(
        self,
        n_samples: int = 1,
        random_state: Any = None,
        *,
        length: Any = None,
        given: Any = None,
    ) -> list[Any]:
        """Draw new sequences.

        Parameters
        ----------
        n_samples : int
            How many.
        random_state : int or None
        length : int, (n_samples,) or None
            Steps of each; by default drawn from the lengths of the sequences fitted.
        given : one sequence, optional
            What came before: the sequences go on from its end, and do not repeat it.

        Returns
        -------
        list
            Of strings, if strings were fitted; else of arrays of states.
        """
        check_is_fitted(self)
        check_count(n_samples, "n_samples", f"{self._who}.sample")
        rng = self._rng() if random_state is None else np.random.default_rng(random_state)
        steps = self._steps(length, n_samples, rng)
        structure, shares = self.structure_, np.full(self._n_draws, 1.0 / self._n_draws)
        contexts = structure.index.before(1)
        if given is not None:
            prefix, _ = self._read_checked(given, None, "sample")
            if len(prefix) != 1:
                raise ValueError(
                    f"{self._who}.sample: given has {len(prefix)} sequences; expected one"
                )
            contexts = list(structure.ends(prefix).T)
            shares = self._draw_weights(prefix)[:, 0]
        draws = rng.choice(self._n_draws, size=n_samples, p=shares)
        codes: list[Array] = [np.empty(0, dtype=np.int64)] * n_samples
        for s in np.unique(draws):
            chosen = np.flatnonzero(draws == s)
            begun = [np.repeat(part, len(chosen)) for part in contexts]
            drawn = structure.sample(self._draw(int(s)), begun, int(steps[chosen].max()), rng)
            for sequence, row in zip(chosen, drawn, strict=True):
                codes[sequence] = row[: steps[sequence]]
        return decode(np.concatenate(codes), steps, self.states_, self._is_text)

    def sample_sequences(self, n_sequences: int = 1, random_state: Any = None) -> list[Any]:
        """Return :meth:`sample`, by the name that all models of sequences have."""
        return self.sample(n_sequences, random_state)

    def _steps(self, length: Any, n_samples: int, rng: np.random.Generator) -> Array:
        if length is None:
            return rng.choice(self.lengths_, size=n_samples)
        steps = np.asarray(length)
        if steps.dtype.kind not in "iu" or steps.shape not in ((), (n_samples,)) or steps.min() < 1:
            raise ValueError(
                f"{self._who}.sample: length is {length!r}; expected a whole number of at least "
                f"1, or {n_samples} of them"
            )
        return np.broadcast_to(steps, (n_samples,)).astype(np.intp)
