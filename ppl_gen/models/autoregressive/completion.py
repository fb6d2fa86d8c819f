"""What densities of tables and images by factors share: gaps, and how they are trained."""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from ppl_gen.counts import check_count
from ppl_gen.data import refuse_gaps
from ppl_gen.deep_estimator import DeepModel
from ppl_gen.inference.base import InferenceMethod
from ppl_gen.inference.maximum_likelihood import MaximumLikelihood
from ppl_gen.inference.training.settings import Training
from ppl_gen.neural.ancestral import Particles

Array = Any

__all__ = ["FactorisedModel"]

#: Rows from which a share can be spared, to stop by.
ENOUGH_TO_VALIDATE = 50


class FactorisedModel(DeepModel):
    """A density of rows by its factors, whose entries may be missing, once it is fitted.

    Networks have ``orders``, those of their factors, and ``complete(x, context, n_particles)``.
    """

    takes_nan: ClassVar[bool] = True

    #: Settings of the training, where none are given.
    everyday: ClassVar[dict[str, Any]]

    def _everyday(self, n_rows: int, width: int) -> InferenceMethod:
        enough = n_rows >= ENOUGH_TO_VALIDATE
        stopping: dict[str, Any] = {"validation": 0.1, "patience": 15} if enough else {}
        return MaximumLikelihood(training=Training(**self.everyday, **stopping))

    def _refuse_gaps(self, values: Array) -> None:
        """Refuse to train on rows with gaps."""
        refuse_gaps(
            values, self.schema_.names, f"{self._who}.fit", "it is trained on complete rows"
        )

    def _scoring_data(self, X: Any, context: Any) -> dict[str, Array]:
        data = super()._scoring_data(X, context)
        late = self._late(data["x"])
        if late.any():
            row, entry = np.argwhere(late)[0]
            raise ValueError(
                f"{self._who}: Input X contains NaN that the density cannot leave out: in row "
                f"{row}, entry {entry} is known, but comes in the order of the factors after one "
                "that is missing; only where the missing ones are the last is the density of the "
                f"rest exact; {self._filling}"
            )
        return data

    def _late(self, values: Array) -> Array:
        """Tell which entries are known, but come after a missing one in some order: (n, D)."""
        known = ~np.isnan(values)
        late = np.zeros_like(known)
        if known.all():
            return late
        orders: Any = self.structure_.module.orders
        for order in map(list, orders):
            before = np.logical_and.accumulate(known[:, order], axis=1)
            late[:, order] |= known[:, order] & ~before
        return late

    #: What fills gaps in, for errors.
    _filling: ClassVar[str]

    def _completed(
        self,
        X: Any,
        context: Any,
        n_particles: int,
        seed: int,
        pick: Callable[[Particles], torch.Tensor],
    ) -> Array:
        """Fill in rows as `pick` says of the particles: (n, D).

        A draw takes particles only where known entries weigh on missing ones before them.
        """
        check_is_fitted(self)
        check_count(n_particles, "n_particles", self._who)
        values = self._read_rows_flat(X, reset=False)
        coded = self._coded(context, len(values))
        network: Any = self.structure_.module
        gaps, weighs = np.isnan(values), self._late(values).any(axis=1)
        if pick is not Particles.draw or len(network.orders) > 1:
            weighs[:] = True
        filled = values.copy()
        for rows, count in ((~weighs, 1), (weighs, int(n_particles))):
            places = np.flatnonzero(rows & gaps.any(axis=1))
            if not len(places):
                continue
            work = partial(self._complete_chunk, network, count, pick)
            data = {"x": values[places], **{name: c[places] for name, c in coded.items()}}
            drawn = self._by_chunk(work, data, seed)
            filled[places] = np.where(gaps[places], drawn, values[places])
        return filled

    def _complete_chunk(
        self,
        network: Any,
        n_particles: int,
        pick: Callable[[Particles], torch.Tensor],
        rows: dict[str, torch.Tensor],
    ) -> torch.Tensor:
        at_once = max(1, self.rows_at_a_time // n_particles)
        parts = zip(*(torch.split(value, at_once) for value in rows.values()), strict=True)
        return torch.cat([pick(network.complete(*part, n_particles=n_particles)) for part in parts])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = False  # only rows to score may have gaps: a fit refuses them
        return tags
