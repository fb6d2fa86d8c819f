"""What models of sequences have in common: reading sequences, scoring and drawing them."""

import dataclasses
import hashlib
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from ppl_gen.counts import check_count
from ppl_gen.estimator import GenerativeModel
from ppl_gen.sequences import (
    MAX_PADDED_BYTES,
    Arrangement,
    Sequences,
    arrange,
    arrange_labels,
    padded_bytes,
)

Array = Any
Parameters = dict[str, Any]


class SequenceModel(GenerativeModel):
    """A model of sequences: a structure with ``log_evidence`` of each of them.

    Sequences come as a list of (T, D) tables or (T,) series, as an (n, T, D) array, or as the
    rows (N, D) of all with their ``lengths``, as hmmlearn has them; what is said of every step
    goes back in the same arrangement.
    """

    #: A classifier of such models takes a list of sequences, one a label.
    takes_sequences: ClassVar[bool] = True

    def _read_sequences(
        self, X: Any, lengths: Any, *, reset: bool, method: str
    ) -> tuple[Sequences, Arrangement]:
        """Read sequences as rows and lengths; `reset` when they are those to fit."""
        table, arrangement = arrange(X, lengths, f"{self._who}.{method}")
        return Sequences(self._read(table, reset=reset), arrangement.lengths), arrangement

    def _read_training(
        self, X: Any, lengths: Any, y: Any = None, sample_weight: Any = None, n_states: int = 0
    ) -> Sequences:
        """Read the sequences to fit, with known states and weights of whole sequences."""
        read, arrangement = self._read_sequences(X, lengths, reset=True, method="fit")
        labels = arrange_labels(y, arrangement, n_states, f"{self._who}.fit")
        weights = None
        if sample_weight is not None:
            weights = _check_sample_weight(sample_weight, read.lengths, ensure_non_negative=True)
        sequences = Sequences(read.values, read.lengths, labels, weights)
        # A sequence without weight is none: what families read off the data must not see it.
        return sequences if weights is None else sequences[np.flatnonzero(weights > 0.0)]

    def _read_checked(
        self, X: Any, lengths: Any, method: str = "log_prob"
    ) -> tuple[Sequences, Arrangement]:
        """Read sequences to ask the fitted model about."""
        check_is_fitted(self)
        sequences, arrangement = self._read_sequences(X, lengths, reset=False, method=method)
        self.structure_.check(sequences)
        return sequences, arrangement

    def _over_draws(self, function: Callable[[Parameters], Array]) -> Array:
        """Stack what a function says of each draw of the parameters: (S, ...)."""
        return np.stack([function(self._draw(s)) for s in range(self._n_draws)])

    # -- scoring -------------------------------------------------------------------------------

    def _evidence_by_draw(self, sequences: Sequences) -> Array:
        """Log density of each sequence under each draw of the parameters: (S, n)."""
        return self._over_draws(lambda draw: self.structure_.log_evidence(draw, sequences))

    def log_prob(self, X: Any, lengths: Any = None) -> Array:
        """Log density of each sequence, in nats.

        Parameters
        ----------
        X : sequences
            NaN is marginalised.
        lengths : (n,) or None
            Of the sequences, where X has the rows of all.

        Returns
        -------
        (n,) array
            After a Bayesian fit, the log posterior predictive density.
        """
        by_draw = self.log_prob_by_draw(X, lengths)
        return np.asarray(np.logaddexp.reduce(by_draw, axis=0) - np.log(len(by_draw)))

    def log_prob_by_draw(self, X: Any, lengths: Any = None) -> Array:
        """Log density of each sequence under each draw of the parameters, in nats: (S, n).

        After a point fit there is one draw. Parameters are those of :meth:`log_prob`.
        """
        return self._evidence_by_draw(self._read_checked(X, lengths)[0])

    def score(self, X: Any, y: Any = None, lengths: Any = None) -> float:
        """Sum of the log densities of the sequences, in nats: hmmlearn's, after a point fit.

        ``score(X, lengths)`` is taken for ``score(X, lengths=lengths)``: `y` has no other use.

        Notes
        -----
        After a Bayesian fit, :meth:`log_prob` averages each sequence's density over the draws of
        the parameters by itself, and these are summed: by this models are compared on new
        sequences. That of all sequences together, from which each learns of the others, is
        ``logsumexp(log_prob_by_draw(X).sum(axis=1)) - log(n_draws)``.
        """
        lengths = y if lengths is None else lengths
        return float(self.log_prob(X, lengths).sum())

    # -- drawing -------------------------------------------------------------------------------

    def _draw_sequences(
        self, lengths: Array, random_state: Any, **given: Any
    ) -> tuple[Array, Array]:
        """Draw sequences of these lengths, one after another, and their latents."""
        rng = self._rng() if random_state is None else np.random.default_rng(random_state)
        drawn = [
            self.structure_.sample(self._draw(int(s)), int(length), rng, **given)
            for s, length in zip(
                rng.integers(self._n_draws, size=len(lengths)), lengths, strict=True
            )
        ]
        return np.concatenate([d[0] for d in drawn]), np.concatenate([d[1] for d in drawn])

    def sample_sequences(self, n_sequences: int = 1, random_state: Any = None) -> list[Any]:
        """Draw new sequences, of lengths drawn from those of the sequences fitted.

        Parameters
        ----------
        n_sequences : int
        random_state : int or None

        Returns
        -------
        list of tables (T, D)
        """
        check_is_fitted(self)
        check_count(n_sequences, "n_sequences", f"{self._who}.sample_sequences")
        rng = self._rng() if random_state is None else np.random.default_rng(random_state)
        lengths = rng.choice(self.lengths_, size=n_sequences)
        values, _ = self._draw_sequences(lengths, rng)
        found: list[Any] = Arrangement("list", lengths).restore(self._table(values))
        return found

    def _table(self, values: Array) -> Any:
        """Give rows the container, columns and dtypes of the sequences that were fitted."""
        return self.schema_.decode(values, self.structure_.whole)

    def _keep_training(self, data: Sequences) -> None:
        super()._keep_training(dataclasses.replace(data))  # without what fitting kept with it
        if padded_bytes(data) > MAX_PADDED_BYTES:  # no program can be asked about these
            self._training = None
        self._keep_lengths(data)

    def _keep_lengths(self, data: Sequences) -> None:
        """Keep what the sequences that were fitted are known again by, and drawn as long as."""
        self.lengths_ = data.lengths
        # One draw of the parameters has all the weight, whatever it is asked about.
        self.fitted_digests_ = digests(data) if self._n_draws > 1 else np.zeros(0, dtype=np.int64)

    def _draw_weights(self, sequences: Sequences) -> Array:
        """Weight of each draw of the parameters for each sequence: (S, n).

        One rule for all that is said of a sequence. Draws are already given each of the
        sequences that were fitted, and weigh the same; a new sequence tells which of them are
        likelier. Each sequence is taken alone.
        """
        weights = np.full((self._n_draws, len(sequences)), 1.0 / self._n_draws)
        if self._n_draws == 1:
            return weights
        new = np.flatnonzero(~np.isin(digests(sequences), self.fitted_digests_))
        if len(new):
            by_draw = self._evidence_by_draw(sequences[new])
            shares = np.exp(by_draw - by_draw.max(axis=0))
            weights[:, new] = shares / shares.sum(axis=0)
        return weights

    def _choose_draws(self, sequences: Sequences, n: int, rng: np.random.Generator) -> Array:
        """Numbers of `n` draws of the parameters, given all the sequences together: (n,)."""
        if not (isinstance(n, int | np.integer) and n >= 1):
            raise ValueError(f"{self._who}: n_draws is {n!r}; expected a whole number, at least 1")
        if self._n_draws == 1:
            return np.zeros(n, dtype=np.intp)
        with np.errstate(divide="ignore"):
            logs = np.log(self._draw_weights(sequences)).sum(axis=1)
        shares = np.exp(logs - logs.max())
        return rng.choice(self._n_draws, size=n, p=shares / shares.sum())


def digests(sequences: Sequences) -> Array:
    """Fingerprints of sequences, by which those that were fitted are known again: (n,).

    Of 64 bits: among a million sequences two are the same with probability below 1e-7.
    """
    values = np.ascontiguousarray(sequences.values, dtype=np.float64)
    values = np.where(np.isnan(values), np.nan, values + 0.0)  # one NaN, and one zero
    found = [
        hashlib.blake2b(values[end - length : end].data, digest_size=8).digest()
        for end, length in zip(sequences.ends, sequences.lengths, strict=True)
    ]
    return np.frombuffer(b"".join(found), dtype=np.int64)
