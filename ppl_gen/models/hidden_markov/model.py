"""The hidden Markov model as an estimator."""

import dataclasses
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ppl_gen.counts import check_count
from ppl_gen.families import Family
from ppl_gen.inference.base import InferenceMethod
from ppl_gen.inference.em import EM
from ppl_gen.models.hidden_markov.emissions import family_of, knowing_codes
from ppl_gen.models.hidden_markov.hmmlearn_bridge import (
    adopt,
    adopt_changed,
    attributes_of,
    settings_of,
    to_peer,
    total_of,
)
from ppl_gen.models.hidden_markov.names import (
    LETTERS,
    from_names,
    held_parts,
    letters_of,
    probabilities,
    to_names,
)
from ppl_gen.models.hidden_markov.settings import allowed_transitions, chain_prior, check_settings
from ppl_gen.models.hidden_markov.states import StateModel
from ppl_gen.sequences import Arrangement, Sequences
from ppl_gen.structures.hidden_markov import HiddenMarkov

Array = Any
Parameters = dict[str, Any]

#: Letters of the chain's own parameters, and the parts of the parameters they name.
PARTS = {"s": "start", "t": "transition"}


class HiddenMarkovModel(StateModel):
    """A hidden Markov model, with hmmlearn's names and emissions of any family.

    Parameters
    ----------
    n_components : int
        States.
    emission : str, dict or Family
        What a state emits: "gaussian", "gmm", "poisson", "categorical", "multinomial",
        "bernoulli"; "auto" or a dict of columns, for tables of mixed columns, as `Mixture` takes
        them; or a `Family`. The names "poisson", "categorical", "multinomial" and "bernoulli"
        are families with the flat priors of hmmlearn (``alpha=0``): `Poisson()` and the others,
        as they are, have a prior count.
    covariance_type : {"diag", "full", "tied", "spherical"}
        Of "gaussian" and "gmm".
    n_mix : int
        Components of each state's mixture, for "gmm".
    min_covar : float or None
        Added to every variance of normal emissions that are chosen by name or by "auto", in
        squared units of the data. None adds a millionth of each column's own variance, whatever
        its units; 0 is exact maximum likelihood.
    prior : None, "default" or dict
        The conjugate prior of "gaussian" and "gmm": see `Normal`.
    startprob_prior, transmat_prior : float or array
        Concentrations of the Dirichlet priors; 1 is flat, and the least that EM takes.
    stickiness : float
        Prior count of a state following itself.
    transmat_mask : (K, K) bool or None
        Transitions that may happen: left-right, banded, absorbing. By default all.
    algorithm : {"viterbi", "map"}
        How `predict` and `decode` choose states: the likeliest path, or the likeliest state at
        each step.
    init_params, params : str
        Letters of what `fit` initialises and what it learns, as in hmmlearn: s ``startprob_``, t
        ``transmat_``, m ``means_``, c ``covars_``, w ``weights_``, l ``lambdas_``, e
        ``emissionprob_``. What is not initialised starts at the attribute of that name, set
        before `fit`; what is not learned stays where it starts. Copies made by scikit-learn's
        ``clone`` keep such attributes.
    inference : str, EM, SVI, NUTS or None
        By default, EM (Baum-Welch).
    warm_start : bool
        Start EM from the previous fit's parameters.
    random_state : int, RandomState or None
    device : str
        "auto", "cpu", "cuda" or "cuda:1".
    dtype : str or None
        Float type of SVI and NUTS; by default float64.

    Attributes
    ----------
    startprob_ : (K,)
    transmat_ : (K, K)
    means_, covars_, weights_, lambdas_, emissionprob_
        Of the emissions, as hmmlearn has them; ``covars_`` are matrices (K, D, D). Means of the
        draws, after a Bayesian fit. As in hmmlearn these are the parameters: another array that
        is set is what the model has from then on, but for Bayesian fits, which refuse it.
    posterior_ : Posterior
    n_iter_, converged_, lower_bound_, history_
        Of the last EM fit.

    Notes
    -----
    Sequences are a list of (T, D) tables, an (n, T, D) array, or the rows of all with their
    ``lengths``. Missing entries and missing steps (NaN) are marginalised exactly. Baum-Welch is
    that of Rabiner, Proc. IEEE 77 (1989), section III.C and V.B; see `algorithms.hidden_markov`
    for how sequences are worked on side by side.

    Examples
    --------
    >>> import numpy as np
    >>> from ppl_gen import HiddenMarkovModel
    >>> X = np.array([[0.1], [-0.1], [0.0], [5.1], [4.9], [5.0], [0.1], [-0.2]])
    >>> model = HiddenMarkovModel(2, random_state=0).fit(X, lengths=[6, 2])
    >>> states = model.predict(X, lengths=[6, 2])
    >>> (states == states[0]).tolist()
    [True, True, True, False, False, False, True, True]
    """

    methods: ClassVar[tuple[str, ...]] = ("em", "svi", "nuts")
    structure_kind: ClassVar[Any] = HiddenMarkov

    structure_: HiddenMarkov

    def __init__(
        self,
        n_components: int = 1,
        emission: Any = "gaussian",
        covariance_type: str = "diag",
        n_mix: int = 1,
        min_covar: float | None = None,
        prior: Any = None,
        startprob_prior: Any = 1.0,
        transmat_prior: Any = 1.0,
        stickiness: float = 0.0,
        transmat_mask: Any = None,
        algorithm: str = "viterbi",
        init_params: str = "stmcwle",
        params: str = "stmcwle",
        inference: str | InferenceMethod | None = None,
        warm_start: bool = False,
        random_state: Any = None,
        device: str = "auto",
        dtype: str | None = None,
    ) -> None:
        self.n_components = n_components
        self.emission = emission
        self.covariance_type = covariance_type
        self.n_mix = n_mix
        self.min_covar = min_covar
        self.prior = prior
        self.startprob_prior = startprob_prior
        self.transmat_prior = transmat_prior
        self.stickiness = stickiness
        self.transmat_mask = transmat_mask
        self.algorithm = algorithm
        self.init_params = init_params
        self.params = params
        self.inference = inference
        self.warm_start = warm_start
        self.random_state = random_state
        self.device = device
        self.dtype = dtype

    # -- fitting -------------------------------------------------------------------------------

    def fit(self, X: Any, lengths: Any = None, y: Any = None, sample_weight: Any = None) -> Self:
        """Fit the model.

        Parameters
        ----------
        X : sequences
            NaN is missing, and marginalised exactly.
        lengths : (n,) or None
            Of the sequences, where X has the rows of all.
        y : states or None
            Known state of each step, -1 where unknown, arranged as X; for EM.
        sample_weight : (n,) or None
            Weights of whole sequences, for EM.

        Returns
        -------
        self
        """
        method = self._resolved_method()
        check_settings(self)
        if self.warm_start and hasattr(self, "parameters_"):
            check_is_fitted(self)  # which takes attributes that were set since
        sequences = self._read_training(X, lengths, y, sample_weight, int(self.n_components))
        if sequences.labels is not None and not isinstance(method, EM):
            raise ValueError(
                f"{self._who}.fit: y is for EM; the program that {method.name} runs has all states "
                "hidden: use EM, or leave y out"
            )
        if self.init_params and self.n_components > len(sequences.values):
            raise ValueError(
                f"{self._who}.fit: n_components is {self.n_components}, but X has "
                f"{len(sequences.values)} steps to start the states at; use fewer states"
            )
        structure = self._structure(sequences)
        if isinstance(method, EM) and not structure.has_mode:
            raise ValueError(
                f"{self._who}.fit: startprob_prior or transmat_prior is below 1, and the density "
                "of such a prior is infinite at zero, where EM would end; use 1 or more, or SVI "
                "or NUTS"
            )
        given = self._given(structure, sequences)
        self._fit_structure(dataclasses.replace(structure, given=given), sequences, method)
        return self

    def _structure(self, sequences: Sequences) -> HiddenMarkov:
        family = self._family().bind(sequences.values, int(self.n_components))
        self._warn_constant(sequences.values, ~np.asarray(family.whole))
        return self._chain(family)

    def _chain(self, family: Family) -> HiddenMarkov:
        """Return the structure of a bound family."""
        n_states = int(self.n_components)
        return HiddenMarkov(family, n_states, *chain_prior(self), allowed_transitions(self))

    def _family(self) -> Family:
        return family_of(self)

    def with_codes_of(self, X: Any) -> Self:
        """Return a copy that knows the codes of these sequences, if it is to count them."""
        known: Self = knowing_codes(self, X)
        return known

    # -- where EM starts, and what it leaves -----------------------------------------------------

    def _letters(self, family: Family) -> str:
        return "st" + letters_of(family)

    def _attributes(self, family: Family) -> dict[str, Array]:
        """Parameters that `fit` is not to initialise, by their names, as set before."""
        named = {}
        for letter in self._letters(family):
            if letter in self.init_params:
                continue
            if hasattr(self, LETTERS[letter]):  # as in hmmlearn, what is not set is initialised
                named[LETTERS[letter]] = getattr(self, LETTERS[letter])
        return named

    def _given(self, structure: HiddenMarkov, sequences: Sequences) -> dict[str, Any]:
        """Parts of the parameters that stay where they start."""
        family = structure.family
        held = [letter for letter in self._letters(family) if letter not in self.params]
        if not held:
            return {}
        named = self._attributes(family)
        unset = [LETTERS[letter] for letter in held if letter not in self.init_params]
        unset = [name for name in unset if name not in named]
        if unset:
            raise ValueError(
                f"{self._who}.fit: neither init_params nor params has the letters of "
                f"{', '.join(unset)}, and nothing is set to hold; set the attributes before fit, "
                "or add the letters to init_params"
            )
        start = self._initial(structure, sequences, self._rng(), named)
        given = {part: start[part] for letter, part in PARTS.items() if letter in held}
        learned = [letter for letter in letters_of(family) if letter in self.params]
        if letters_of(family) and not learned:
            given["family"] = start["family"]
        elif len(learned) < len(letters_of(family)):
            given["held"] = held_parts(start["family"], held)
        return given

    def _initial(
        self,
        structure: HiddenMarkov,
        sequences: Sequences,
        rng: np.random.Generator,
        named: dict[str, Array],
    ) -> Parameters:
        """Parameters to start from: those that were set, and others initialised."""
        who = f"{self._who}.fit"
        if set(named) == {LETTERS[letter] for letter in self._letters(structure.family)}:
            start = structure.initialize_shapes()
        else:
            how = getattr(self._resolved_method(), "init", "kmeans")
            start = structure.initialize(sequences, rng, how)
        start["family"] = from_names(structure.family, named, start["family"], who)
        return start | self._chain_parameters(named, structure, who)

    def _chain_parameters(
        self, named: dict[str, Array], structure: HiddenMarkov, who: str
    ) -> Parameters:
        """Parameters of the chain that were set, checked."""
        found = {}
        for part, name in (("start", "startprob_"), ("transition", "transmat_")):
            if name in named:
                shape = (structure.n_states,) * (1 if part == "start" else 2)
                found[part] = probabilities(named[name], shape, name, who)
        closed = np.zeros(1, dtype=bool) if structure.allowed is None else ~structure.allowed
        if closed.any() and "transition" in found and found["transition"][closed].any():
            raise ValueError(f"{who}: transmat_ has transitions that transmat_mask forbids")
        return found

    def _start(self, structure: HiddenMarkov, data: Sequences, rng: np.random.Generator) -> Any:
        if self.warm_start and hasattr(self, "parameters_"):
            before = self.structure_
            if (before.n_states, before.family.layout) != (
                structure.n_states,
                structure.family.layout,
            ):
                raise ValueError(
                    f"{self._who}.fit: warm_start goes on from a fit of {before.n_states} states, "
                    f"{before.family.layout}, but the model is now of {structure.n_states}, "
                    f"{structure.family.layout}; set warm_start=False"
                )
            return self._draw(0)
        named = self._attributes(structure.family)  # a fit forgets them before it starts
        if not named:
            return None
        if len(named) == len(self._letters(structure.family)):
            return self._initial(structure, data, rng, named)
        return lambda random: self._initial(structure, data, random, named)

    def _exchangeable(self) -> str | None:
        return "state" if self.structure_.is_exchangeable else None

    def _publish(self) -> None:
        named = {
            "startprob_": self.parameters_["start"].mean(axis=0),
            "transmat_": self.parameters_["transition"].mean(axis=0),
        }
        family = self.structure_.family
        draws = [to_names(family, self._draw(s)["family"]) for s in range(self._n_draws)]
        for name in draws[0]:
            named[name] = np.mean([draw[name] for draw in draws], axis=0)
        self._published = {name: value.copy() for name, value in named.items()}
        for name, value in named.items():
            value.flags.writeable = False  # another array is taken when it is set
            setattr(self, name, value)

    # -- drawing and filling -------------------------------------------------------------------

    def sample(
        self,
        n_samples: int = 1,
        random_state: Any = None,
        currstate: int | None = None,
        *,
        return_latent: bool = True,
    ) -> Any:
        """Draw one sequence, in the columns and dtypes of those that were fitted.

        Parameters
        ----------
        n_samples : int
            Its steps.
        random_state : int or None
        currstate : int or None
            State of its first step.
        return_latent : bool
            Return the states too, as hmmlearn does.

        Returns
        -------
        X, states : table of (n_samples, D), (n_samples,); or X alone
        """
        check_is_fitted(self)
        check_count(n_samples, "n_samples", f"{self._who}.sample")
        is_state = currstate is None or (
            isinstance(currstate, int | np.integer) and 0 <= currstate < self.structure_.n_states
        )
        if not is_state:
            raise ValueError(
                f"{self._who}.sample: currstate is {currstate!r}; expected a state from 0 to "
                f"{self.structure_.n_states - 1}"
            )
        values, states = self._draw_sequences(np.array([n_samples]), random_state, state=currstate)
        return (self._table(values), states) if return_latent else self._table(values)

    def impute(
        self, X: Any, lengths: Any = None, n_draws: int | None = None, random_state: Any = None
    ) -> Any:
        """Fill in what is missing.

        Parameters
        ----------
        X : sequences
            NaN (None, of categories) is filled; the rest stays.
        lengths : (n,) or None
        n_draws : int or None
            None fills with the conditional mean, or the mode of categories; a number gives as
            many completed copies, each a draw from the conditional (multiple imputation).
        random_state : int or None

        Returns
        -------
        sequences, arranged as X, or a list of `n_draws` of them
        """
        sequences, arrangement = self._read_checked(X, lengths, "impute")

        def settled(values: Array) -> Any:
            return self._arranged(values, arrangement)

        if n_draws is None:
            weights = self._draw_weights(sequences)
            draws = [self._draw(s) for s in range(self._n_draws)]
            return settled(self.structure_.fill(draws, weights, sequences))
        rng = self._rng() if random_state is None else np.random.default_rng(random_state)
        return [
            settled(self.structure_.draw_missing(self._draw(int(s)), sequences, rng))
            for s in self._choose_draws(sequences, n_draws, rng)
        ]

    def _arranged(self, values: Array, arrangement: Arrangement) -> Any:
        return arrangement.restore(self._table(values))

    # -- hmmlearn, and parameters alone ----------------------------------------------------------

    @classmethod
    def from_hmmlearn(cls, peer: Any) -> Self:
        """Return hmmlearn's model as ours, with its parameters.

        Parameters
        ----------
        peer : GaussianHMM, GMMHMM, CategoricalHMM, PoissonHMM or MultinomialHMM
            With parameters. Settings come along: priors of the chain, `algorithm`, `params`,
            `init_params`, `n_iter`, and whole-number `random_state`. What matters only to another
            fit stays behind: `tol`, in nats of all the data, unless it asks to go on for ever;
            priors of emissions, which are not those of a family here; and `min_covar`, which
            floors the first step alone there. Where `covars_prior` and `covars_weight` are zero,
            so is our `min_covar`, and it is ours by default elsewhere.

        Examples
        --------
        >>> import numpy as np
        >>> from hmmlearn.hmm import PoissonHMM
        >>> from ppl_gen import HiddenMarkovModel
        >>> peer = PoissonHMM(2)
        >>> peer.startprob_, peer.transmat_ = np.array([1.0, 0.0]), np.array([[0.9, 0.1], [0, 1]])
        >>> peer.lambdas_ = np.array([[1.0], [9.0]])
        >>> model = HiddenMarkovModel.from_hmmlearn(peer)
        >>> model.predict([[0], [2], [8]]).tolist()
        [0, 0, 1]
        """
        model = cls(**settings_of(peer))
        who = f"{cls.__name__}.from_hmmlearn"
        adopt(model, attributes_of(peer), who, total_of(peer))
        return model

    def to_hmmlearn(self) -> Any:
        """Return the fitted model as hmmlearn's, for the emissions that both know.

        After a Bayesian fit, at the means of the draws. Settings go along as they come by
        :meth:`from_hmmlearn`, and `tol` times the steps of the sequences that were fitted.
        `min_covar`, `prior`, `transmat_mask` and other settings of `inference` stay behind;
        `stickiness` goes into ``transmat_prior``.
        """
        check_is_fitted(self)
        return to_peer(self)

    def __sklearn_is_fitted__(self) -> bool:
        """Tell whether there are parameters; those set as attributes are taken, as in hmmlearn."""
        if hasattr(self, "parameters_"):
            adopt_changed(self)
        elif hasattr(self, "startprob_"):
            names = [name for name in LETTERS.values() if hasattr(self, name)]
            adopt(self, {name: getattr(self, name) for name in names}, self._who)
        return hasattr(self, "parameters_")

    def __sklearn_clone__(self) -> Self:
        """Return an unfitted copy, with the attributes that `fit` is to start from."""
        copy: Self = super().__sklearn_clone__()
        for letter, name in LETTERS.items():
            if letter not in (self.init_params or "") and hasattr(self, name):
                setattr(copy, name, np.array(getattr(self, name)))
        return copy

    @classmethod
    def from_tree(cls, tree: dict[str, Any]) -> Self:
        """Return the fitted model that :meth:`to_tree` gave."""
        model = super().from_tree(tree)
        model._publish()
        return model
