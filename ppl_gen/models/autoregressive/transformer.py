"""Sequences of tokens by a causal transformer: text, molecules, whatever is discrete."""

from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import clone
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from ppl_gen.contexts import ContextCode
from ppl_gen.counts import check_count
from ppl_gen.data import counted_rows
from ppl_gen.deep_estimator import DeepModel
from ppl_gen.inference.base import InferenceMethod
from ppl_gen.inference.maximum_likelihood import MaximumLikelihood
from ppl_gen.inference.training.settings import Training
from ppl_gen.neural.token_rows import rows_of
from ppl_gen.neural.transformer import Transformer
from ppl_gen.token_reader import TokenReader
from ppl_gen.tokenisers import read_texts, tokeniser_of
from ppl_gen.tokens import Tokens, decode, read_tokens

Array = Any

__all__ = ["CausalTransformer"]

#: In a minibatch, unless the settings say otherwise: at least, and at most.
TOKENS_AT_A_TIME = 512, 2048
#: Of an epoch, which smaller minibatches make up for little text.
STEPS_AN_EPOCH = 64
#: Windows from which a share can be spared, to stop by.
ENOUGH_TO_VALIDATE = 20


class CausalTransformer(TokenReader, DeepModel):
    """A causal transformer: each token given those before it, and where the sequence ends.

    ``p(x_1, ..., x_T) = prod_t p(x_t | x_1, ..., x_{t-1}) p(end | x_1, ..., x_T)``, exactly: the
    density sums to one over the sequences of all lengths (that of a `MarkovChain` is given the
    length). Sequences of any length are fitted and scored: the network reads at most
    `context_length` tokens at once, and of longer ones windows that half overlap, in which a token
    is predicted from half a window at least (see `ppl_gen.neural.transformer`).

    Parameters
    ----------
    n_layers, n_heads, width : int
        Blocks, heads of attention in each, and numbers that stand for a token: an even number a
        head.
    context_length : int
        Tokens that are read at once, the mark of the beginning among them; fewer, if all
        sequences that are fitted are shorter.
    dropout : float
        Share that is left out in training; the more, the fewer the data.
    tokeniser : {None, "character", "byte", "smiles"} or object
        None takes tokens as they are given: the characters of strings, or the items of lists and
        arrays. The others take texts, and give them back: "byte" knows every text, and "smiles"
        the atoms of molecules. A `RegexTokeniser`, or an object that does what it does, splits
        otherwise.
    states : sequence or None
        All tokens that may occur, in their order; by default those of the sequences fitted,
        sorted.
    inference : str, MaximumLikelihood or None
        By default, maximum likelihood by AdamW in batches of about 2,000 tokens (of little text,
        down to 500, so that an epoch has some 64 steps), with weights averaged over about the
        last hundred steps, which ends once a tenth of the windows, kept aside, are predicted no
        better for ten epochs (with fewer than 20 windows: after 100 epochs).
    random_state : int, RandomState or None
    device : str
        "auto", "cpu", "cuda" or "cuda:1".
    dtype : str or None
        Float type of the weights; by default float32.

    Attributes
    ----------
    states_ : (K,)
        Tokens, in the order of their codes.
    history_ : DataFrame
        A row an epoch; losses are in nats a window.
    n_epochs_, best_epoch_ : int
    stopped_ : str
    posterior_ : Posterior
        The one draw of a point fit: the weights.

    Notes
    -----
    Sequences are what `MarkovChain` takes: strings (of characters), lists, arrays or Series of
    tokens, or a list of these; or one array of the tokens of all with their ``lengths``. A list
    of strings is a list of sequences; with a tokeniser, so is an array or a Series of them. Those
    to be fitted are not empty: in data, what is empty is more often missing.

    In training a long sequence is cut into windows of `context_length` tokens, each of which is
    predicted once an epoch. What is drawn is drawn from the density that scores; keys and values
    are kept, so that a token costs as much as the one before.

    References
    ----------
    Vaswani et al. (2017), Attention is all you need, arXiv:1706.03762. Radford et al. (2019),
    Language models are unsupervised multitask learners.

    Examples
    --------
    >>> from ppl_gen import CausalTransformer, MaximumLikelihood
    >>> words = ["tick tock", "tick tick tock", "tock"] * 10
    >>> method = MaximumLikelihood(epochs=30, learning_rate=0.01, batch_size=10)
    >>> model = CausalTransformer(1, 2, 16, dropout=0.0, inference=method, random_state=0)
    >>> model.fit(words).sample(given="tick t", top_k=1)
    ['ock']
    >>> model.perplexity("tick tock") < model.perplexity("tock tick")
    True
    """

    methods: ClassVar[tuple[str, ...]] = ("maximum_likelihood",)
    #: A classifier of such models takes a list of sequences, one a label.
    takes_sequences: ClassVar[bool] = True
    rows_at_a_time: ClassVar[int] = 64

    def __init__(
        self,
        n_layers: int = 4,
        n_heads: int = 4,
        width: int = 128,
        context_length: int = 256,
        dropout: float = 0.1,
        tokeniser: Any = None,
        states: Any = None,
        inference: str | InferenceMethod | None = None,
        random_state: Any = None,
        device: str = "auto",
        dtype: str | None = None,
    ) -> None:
        self.n_layers = n_layers
        self.n_heads = n_heads
        self.width = width
        self.context_length = context_length
        self.dropout = dropout
        self.tokeniser = tokeniser
        self.states = states
        self.inference = inference
        self.random_state = random_state
        self.device = device
        self.dtype = dtype

    # -- reading and fitting -------------------------------------------------------------------

    def fit(  # type: ignore[override]  # models of sequences have lengths
        self,
        X: Any,
        lengths: Any = None,
        y: Any = None,
        *,
        context: Any = None,
        sample_weight: Any = None,
    ) -> Self:
        """Train the network.

        Parameters
        ----------
        X : sequences
            See the notes of the class.
        lengths : (n,) or None
            Of the sequences, where X has the tokens of all, one after another.
        y : ignored
        context : (n,) labels or (n, C) numbers, optional
            What the density of each sequence is to be conditional on.
        sample_weight : (n,), optional
            Weights of whole sequences. One of weight zero is left out: it teaches no token, length
            or label either.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a sequence is empty, a token is missing or unknown, lengths do not sum to the
            number of tokens, or a setting is out of range.
        TypeError
            If tokens are of several types, or a tokeniser is given what is no text.
        FloatingPointError
            The loss was no finite number; the step is named, and an earlier fit is as it was.
        """
        self._check_settings()
        tokens = self._tokens(X, lengths, f"{self._who}.fit")
        return super().fit(tokens, y, context=context, sample_weight=sample_weight)

    def _check_settings(self) -> None:
        least = {"n_layers": 1, "n_heads": 1, "width": 2, "context_length": 2}
        for name, bound in least.items():
            value = getattr(self, name)
            if not _is_whole(value) or value < bound:
                raise ValueError(
                    f"{self._who}: {name} is {value!r}; expected a whole number, at least {bound}"
                )
        if self.width % (2 * self.n_heads):
            raise ValueError(
                f"{self._who}: width is {self.width}, which is not an even number for each of the "
                f"{self.n_heads} heads; expected a multiple of {2 * self.n_heads}"
            )
        if not (_is_real(self.dropout) and 0.0 <= self.dropout < 1.0):
            raise ValueError(
                f"{self._who}: dropout is {self.dropout!r}; expected a number from 0 to below 1"
            )

    def _tokens(self, X: Any, lengths: Any, who: str, least: int = 1) -> Tokens:
        tokeniser = tokeniser_of(self.tokeniser, who)
        if tokeniser is None:
            return read_tokens(X, lengths, who, least)
        return read_texts(X, lengths, tokeniser, who, least)

    def _vocabulary(self, tokens: Tokens, who: str) -> Array:
        tokeniser = tokeniser_of(self.tokeniser, who)
        if self.states is None and tokeniser is not None and tokeniser.states is not None:
            return np.asarray(tokeniser.states)
        return super()._vocabulary(tokens, who)

    def _training_data(
        self, X: Tokens, y: Any, context: Any, sample_weight: Any
    ) -> tuple[dict[str, Array], dict[str, Any], ContextCode | None]:
        who, tokens = f"{self._who}.fit", X
        if sample_weight is not None:
            every = np.arange(len(tokens.lengths))
            sample_weight, counted, context = counted_rows(sample_weight, every, context)
            tokens = tokens.take(counted)
        codes = self._codes(tokens, who, reset=True)
        given, self._given_facts = self._given_facts, None
        facts = {"n_symbols": len(self.states_)} | (given or self._lengths(tokens))
        self.row_shape_ = (facts["context_length"] + 1,)
        # Windows have but one token in common: each token is predicted once.
        rows, owner = _rows(codes, tokens.lengths, facts, facts["context_length"])
        data, code = {"x": rows}, None
        if sample_weight is not None:
            data["weight"] = sample_weight[owner]
        if context is not None:
            check_consistent_length(tokens.lengths, context)
            code = ContextCode.of(context, who)
            data["context"] = code.encode(context, who)[owner]
        return data, facts, code

    def _lengths(self, tokens: Tokens) -> dict[str, int]:
        longest = int(tokens.lengths.max())
        return {"context_length": min(self.context_length, longest + 1), "longest": longest}

    def with_facts_of(self, X: Any) -> Self:
        """Return an unfitted copy that knows the tokens and the lengths of these sequences."""
        model: Self = clone(self.with_states_of(X))
        model._given_facts = self._lengths(self._tokens(X, None, f"{self._who}.fit"))
        return model

    def _module(self, facts: dict[str, Any], context_width: int) -> Transformer:
        return Transformer(
            facts["n_symbols"],
            facts["context_length"],
            self.n_layers,
            self.n_heads,
            self.width,
            self.dropout,
            context_width,
        )

    def _everyday(self, n_rows: int, width: int) -> InferenceMethod:
        """Settings of training that do for little text as for much: windows of so many tokens."""
        enough = n_rows >= ENOUGH_TO_VALIDATE
        least, most = (max(1, tokens // width) for tokens in TOKENS_AT_A_TIME)
        training = Training(
            batch_size=min(max(least, n_rows // STEPS_AN_EPOCH), most),
            learning_rate=2e-3,
            optimizer="adamw",
            weight_decay=0.1,
            clip_norm=1.0,
            ema=0.99,
            validation=0.1 if enough else None,
            patience=10 if enough else None,
        )
        return MaximumLikelihood(training=training)

    # -- scoring -------------------------------------------------------------------------------

    def log_prob(  # type: ignore[override]
        self, X: Any, lengths: Any = None, *, context: Any = None
    ) -> Array:
        """Log probability of each sequence, its end included, in nats.

        Parameters
        ----------
        X, lengths
            Sequences; see the notes of the class. Of an empty one it is the probability to end at
            once.
        context : one of the fit's kind for all sequences, or one each
            For densities that are conditional.

        Returns
        -------
        (n,) array

        Raises
        ------
        ValueError
            If a token is missing, or was not there in the fit: the message names it.
        """
        return self._scored(X, lengths, context, "log_prob")[0]

    def score_samples(  # type: ignore[override]
        self, X: Any, lengths: Any = None, *, context: Any = None
    ) -> Array:
        """Return :meth:`log_prob`, by scikit-learn's name."""
        return self.log_prob(X, lengths, context=context)

    def score(self, X: Any, y: Any = None, lengths: Any = None, *, context: Any = None) -> float:
        """Sum of the log probabilities of the sequences, in nats, as other models of sequences.

        ``score(X, lengths)`` is taken for ``score(X, lengths=lengths)``: `y` has no other use.
        """
        return float(self.log_prob(X, y if lengths is None else lengths, context=context).sum())

    def perplexity(self, X: Any, lengths: Any = None, *, context: Any = None) -> float:
        """Exponential of minus the mean log probability of a token: the lower the better.

        Of how many equally likely tokens the next one is as uncertain. The end of a sequence is
        counted as one more token.

        Parameters
        ----------
        X, lengths, context
            As of :meth:`log_prob`.
        """
        return float(2.0 ** self.bits_per_symbol(X, lengths, context=context))

    def bits_per_symbol(self, X: Any, lengths: Any = None, *, context: Any = None) -> float:
        """Mean of minus log2 of the probability of a token, over all tokens and ends.

        It is the length, in bits a symbol, of the shortest code by this density. Parameters are
        those of :meth:`log_prob`.
        """
        log_prob, counts = self._scored(X, lengths, context, "bits_per_symbol")
        return float(-log_prob.sum() / ((counts + 1).sum() * np.log(2.0)))

    def _scored(self, X: Any, lengths: Any, context: Any, method: str) -> tuple[Array, Array]:
        """Log probabilities, and lengths: (n,), (n,)."""
        check_is_fitted(self)
        who = f"{self._who}.{method}"
        tokens = self._tokens(X, lengths, who, least=0)
        codes = self._codes(tokens, who, reset=False)
        module: Any = self.structure_.module
        n = len(tokens.lengths)
        rows, owner = _rows(codes, tokens.lengths, self.structure_.facts, module.stride)
        coded = {name: array[owner] for name, array in self._coded(context, n).items()}
        found = self._by_chunk(
            lambda part: module.log_prob(part["x"], part.get("context")), {"x": rows, **coded}
        )
        return np.bincount(owner, weights=found.astype(np.float64), minlength=n), tokens.lengths

    # -- drawing -------------------------------------------------------------------------------

    def sample(
        self,
        n_samples: int = 1,
        random_state: Any = None,
        *,
        length: Any = None,
        given: Any = None,
        context: Any = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> list[Any]:
        """Draw new sequences, or go on with one.

        Parameters
        ----------
        n_samples : int
            How many.
        random_state : int or None
        length : int, (n_samples,) or None
            Tokens of each, as if there were no end before. By default sequences end by
            themselves, or are cut where they are as long as the longest that was fitted.
        given : one sequence, optional
            What came before: the sequences go on from its end, and do not repeat it.
        context : one of the fit's kind for all sequences, or one each
            For densities that are conditional.
        temperature : float
            Below 1 likely tokens are drawn more often than their probabilities say, above 1 less.
        top_k : int, optional
            Draw from the so many likeliest tokens alone; 1 takes the likeliest.
        top_p : float, optional
            Draw from the nucleus alone: the fewest likeliest tokens with at least this
            probability together (Holtzman et al. 2020, arXiv:1904.09751).

        Returns
        -------
        list
            Of strings, if strings were fitted; else of arrays of tokens. One that ends at once is
            empty, and has a probability like any other.

        Raises
        ------
        ValueError
            If a setting is out of range, or a token of `given` was not there in the fit.
        """
        check_is_fitted(self)
        who = f"{self._who}.sample"
        _check_drawing(who, n_samples, length, temperature, top_k, top_p)
        facts, module = self.structure_.facts, self.structure_.module
        draw: Any = module.generate
        begun = np.full(1, facts["n_symbols"])
        if given is not None:
            nothing = isinstance(given, list | tuple | np.ndarray) and len(given) == 0
            tokens = self._tokens([given] if nothing else given, None, who, least=0)
            if len(tokens.lengths) != 1:
                raise ValueError(f"{who}: given has {len(tokens.lengths)} sequences; expected one")
            begun = np.concatenate([begun, self._codes(tokens, who, reset=False)])
        steps = facts["longest"] if length is None else int(np.max(length))
        drawn = self._by_chunk(
            lambda part: draw(
                part["begun"],
                steps,
                part.get("context"),
                may_end=length is None,
                temperature=temperature,
                top_k=top_k,
                top_p=top_p,
            )[:, len(begun) :],
            {"begun": np.tile(begun, (n_samples, 1)), **self._coded(context, n_samples)},
            self._seed(random_state),
        )
        counts = (drawn != facts["n_symbols"]).sum(axis=1) if length is None else length
        counts = np.broadcast_to(counts, (n_samples,)).astype(np.intp)
        codes = drawn[np.arange(drawn.shape[1]) < counts[:, None]]
        sequences = decode(codes, counts, self.states_, self._is_text)
        tokeniser = tokeniser_of(self.tokeniser, who)
        if tokeniser is None or self._is_text:
            return sequences
        return [tokeniser.join(tokens.tolist()) for tokens in sequences]

    def sample_sequences(
        self, n_sequences: int = 1, random_state: Any = None, *, context: Any = None
    ) -> list[Any]:
        """Return :meth:`sample`, by the name that all models of sequences have."""
        return self.sample(n_sequences, random_state, context=context)


def _rows(codes: Array, lengths: Array, facts: dict[str, Any], stride: int) -> tuple[Array, Array]:
    """Lay sequences out as rows of the network, with the number of the sequence of each."""
    n_symbols, context_length = facts["n_symbols"], facts["context_length"]
    parts = torch.from_numpy(codes), torch.from_numpy(lengths)
    rows, owner = rows_of(*parts, n_symbols, context_length, stride)
    return rows.numpy(), owner.numpy()


def _check_drawing(
    who: str, n_samples: Any, length: Any, temperature: Any, top_k: Any, top_p: Any
) -> None:
    """Refuse what nothing can be drawn by, before any work."""
    check_count(n_samples, "n_samples", who)
    if length is not None:
        steps = np.asarray(length)
        if steps.dtype.kind not in "iu" or steps.shape not in ((), (n_samples,)) or steps.min() < 1:
            raise ValueError(
                f"{who}: length is {length!r}; expected a whole number of at least 1, or "
                f"{n_samples} of them"
            )
    if not (_is_real(temperature) and 0.0 < temperature < np.inf):
        raise ValueError(
            f"{who}: temperature is {temperature!r}; expected a number above 0; top_k=1 takes the "
            "likeliest token each time"
        )
    if top_k is not None:
        check_count(top_k, "top_k", who)
    if top_p is not None and not (_is_real(top_p) and 0.0 < top_p <= 1.0):
        raise ValueError(f"{who}: top_p is {top_p!r}; expected a number above 0, at most 1")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_real(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)
