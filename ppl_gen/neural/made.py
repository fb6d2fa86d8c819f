"""MADE: tables column by column, each given those before it, by a masked network.

Columns may be categories, whole numbers and real ones, side by side (Germain et al. 2015,
arXiv:1502.03509).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import (
    AffineTransform,
    Categorical,
    Distribution,
    MixtureSameFamily,
    Normal,
    TransformedDistribution,
)

from ppl_gen.neural.ancestral import Particles, Steps, draw_missing, evidence
from ppl_gen.neural.density import FARTHEST, DensityModule
from ppl_gen.neural.levels import DiscretisedLogisticMixture
from ppl_gen.neural.masked import MaskedNetwork

__all__ = ["Column", "MaskedAutoencoder"]

#: Least standard deviation of a normal, in those of the column.
LEAST_SCALE = 1e-3
#: Most numbers by which a category is told to the network.
MOST_INPUTS = 32


KINDS = ("category", "whole", "number")


@dataclass(frozen=True)
class Column:
    """What a column holds.

    Attributes
    ----------
    kind : {"category", "whole", "number"}
        One of `n_levels` from `lowest` up; a whole number from `lowest` (or minus infinity) up; a
        real number.
    n_levels : int
    lowest : float
    loc, scale : float
        Centre and spread of numbers.
    """

    kind: str
    n_levels: int = 0
    lowest: float = -math.inf
    loc: float = 0.0
    scale: float = 1.0

    def n_outputs(self, n_components: int) -> int:
        """Count the parameters of its distribution."""
        return self.n_levels if self.kind == "category" else 3 * n_components


class MaskedAutoencoder(DensityModule):
    """Density of rows with columns of several kinds, column by column in some order.

    Categories have a softmax, whole numbers a mixture of discretised logistics, real ones a
    mixture of normals. With several orders it is their mixture, of equal weights, each with a
    network of its own.

    Parameters
    ----------
    columns : sequence of Column
    orders : sequence of sequences of int
        Columns in the order of the factors.
    hidden : sequence of int
        Widths of the hidden layers.
    n_components : int
        Of the mixtures.
    context_width : int

    Examples
    --------
    >>> import torch
    >>> columns = [Column("category", n_levels=3, lowest=0.0), Column("number")]
    >>> network = MaskedAutoencoder(columns, [[0, 1]], hidden=(8,))
    >>> network.log_prob(network.sample(5)).shape
    torch.Size([5])
    """

    category: Tensor
    whole: Tensor
    number: Tensor
    n_levels: Tensor
    lowest: Tensor
    loc: Tensor
    scale: Tensor

    def __init__(
        self,
        columns: Sequence[Column],
        orders: Sequence[Sequence[int]],
        hidden: Sequence[int] = (128, 128),
        n_components: int = 5,
        context_width: int = 0,
    ) -> None:
        super().__init__(len(columns), context_width)
        self.columns, self.orders = tuple(columns), [list(order) for order in orders]
        self.n_components = n_components
        n_levels = torch.tensor([column.n_levels for column in columns])
        self.register_buffer("n_levels", n_levels, persistent=False)
        for name in ("lowest", "loc", "scale"):
            value = torch.tensor([getattr(column, name) for column in columns])
            self.register_buffer(name, value, persistent=False)
        for kind in KINDS:
            places = [place for place, column in enumerate(columns) if column.kind == kind]
            self.register_buffer(kind, torch.tensor(places, dtype=torch.long), persistent=False)
        most = int(n_levels.max())
        self.n_inputs = max(1, min(most - 1, MOST_INPUTS))
        if len(self.category):
            # Levels start as cosines of their place, so that near ones are alike, and then move.
            counts = n_levels[self.category, None, None].clamp(min=1)
            place = (torch.arange(most)[:, None] + 0.5) * torch.arange(1, self.n_inputs + 1)
            self.levels = nn.Parameter(torch.cos(torch.pi * place / counts))
        n_outputs = max(column.n_outputs(n_components) for column in columns)
        self.networks: Any = nn.ModuleList(
            MaskedNetwork(
                self.width,
                n_outputs,
                hidden,
                context_width=context_width,
                n_inputs=self.n_inputs,
                order=order,
            )
            for order in self.orders
        )
        self._spread_components(n_outputs)

    def _spread_components(self, n_outputs: int) -> None:
        """Start the means of mixtures apart: alike, they would learn alike."""
        mixed, count = torch.cat([self.whole, self.number]), self.n_components
        if not len(mixed):
            return
        for network in self.networks:
            with torch.no_grad():
                bias = network.head.bias.view(self.width, n_outputs)
                bias[mixed, count : 2 * count] += torch.linspace(-1.5, 1.5, count)

    # -- factors -------------------------------------------------------------------------------

    def encode(self, x: Tensor) -> Tensor:
        """What the network reads of rows: (n, D) -> (n, D * inputs)."""
        units = ((x - self.loc) / self.scale).clamp(-FARTHEST, FARTHEST)
        inputs = F.pad(units[..., None], (0, self.n_inputs - 1))
        if len(self.category):
            codes = (x[:, self.category] - self.lowest[self.category]).long()
            place = torch.arange(len(self.category), device=x.device)
            inputs = inputs.index_copy(1, self.category, self.levels[place, codes])
        return inputs.flatten(1)

    def factor(self, kind: str, outputs: Tensor, places: Tensor) -> Distribution:
        """Distributions of columns of one kind: (n, d, outputs), (d,) -> batch (n, d)."""
        count, loc, scale = self.n_components, self.loc[places], self.scale[places]
        if kind == "category":
            levels = torch.arange(outputs.shape[-1], device=outputs.device)
            absent = levels >= self.n_levels[places, None]
            logits = outputs.masked_fill(absent, -torch.inf)
            codes = Categorical(logits=logits, validate_args=False)
            return _moved(codes, self.lowest[places], torch.ones_like(scale))
        if kind == "whole":
            return DiscretisedLogisticMixture(
                outputs[..., : 3 * count], self.lowest[places], torch.inf, loc=loc, scale=scale
            )
        logits, means, spread = outputs[..., : 3 * count].chunk(3, -1)
        normals = MixtureSameFamily(
            Categorical(logits=logits, validate_args=False),
            Normal(means, F.softplus(spread) + LEAST_SCALE, validate_args=False),
            validate_args=False,
        )
        return _moved(normals, loc, scale)

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Log density of rows, in nats: (n, D) and (n, C) -> (n,).

        NaN is left out, which is the density of the rest where nothing known comes after it in
        the order.
        """
        missing = x.isnan()
        x = torch.where(missing, self._anything(), x)
        inputs = self.encode(x)
        found = [self._ordered_log_prob(net, inputs, x, missing, context) for net in self.networks]
        return torch.stack(found).logsumexp(0) - math.log(len(found))

    def _ordered_log_prob(
        self, network: nn.Module, inputs: Tensor, x: Tensor, missing: Tensor, context: Any
    ) -> Tensor:
        outputs = network(inputs, context)
        total = torch.zeros_like(x[:, 0])
        for kind in KINDS:
            places = getattr(self, kind)
            if len(places):
                density = self.factor(kind, outputs[:, places], places).log_prob(x[:, places])
                total = total + torch.where(missing[:, places], 0.0, density).sum(1)
        return total

    def _anything(self) -> Tensor:
        """Values that each column may have: (D,)."""
        return torch.where(self.n_levels > 0, self.lowest, self.loc)

    # -- drawing -------------------------------------------------------------------------------

    def sample(self, n: int, context: Tensor | None = None) -> Tensor:
        """Draw n rows: (n, D)."""
        x = self.like().new_full((n, self.width), torch.nan)
        if len(self.orders) == 1:
            return self._complete(0, x, context, 1).draw()
        drawn = x.clone()
        chosen = torch.randint(len(self.orders), (n,), device=x.device)
        for order in range(len(self.orders)):
            rows = (chosen == order).nonzero()[:, 0]
            given = None if context is None else context[rows]
            drawn[rows] = self._complete(order, x[rows], given, 1).draw()
        return drawn

    def complete(
        self, x: Tensor, context: Tensor | None = None, n_particles: int = 100
    ) -> Particles:
        """Draw what is missing of rows.

        Parameters
        ----------
        x : (n, D) tensor
            NaN is drawn.
        context : (n, C) tensor or None
        n_particles : int
            Weighted draws of each row, by which known values weigh on missing ones before them.

        Returns
        -------
        Particles
            Of all orders together, each weighing by its evidence.
        """
        found = [self._complete(o, x, context, n_particles) for o in range(len(self.orders))]
        evidences = torch.stack([part.log_evidence for part in found])  # (orders, n)
        shares = evidences.log_softmax(0)[..., None]
        weights = [p.log_weights + s for p, s in zip(found, shares, strict=True)]
        return Particles(
            torch.cat([part.values for part in found], 1),
            torch.cat(weights, 1),
            evidences.logsumexp(0) - math.log(len(found)),
        )

    def _complete(
        self, order: int, x: Tensor, context: Tensor | None, n_particles: int
    ) -> Particles:
        known = ~x.isnan()
        # Which order a row is of depends on all that is known; within one, on what comes after.
        weighed = known if len(self.orders) > 1 else evidence(known, self.orders[order])
        values = torch.where(known, x, self._anything()).repeat_interleave(n_particles, 0)
        if context is not None:
            context = context.repeat_interleave(n_particles, 0)
        return draw_missing(ColumnSteps(self, order, values, context), known, weighed, n_particles)


def _moved(base: Distribution, loc: Tensor, scale: Tensor) -> Distribution:
    return TransformedDistribution(base, [AffineTransform(loc, scale)], validate_args=False)


class ColumnSteps(Steps):
    """The factors of a masked network: each takes the hidden layers anew, and its own outputs."""

    def __init__(
        self, density: MaskedAutoencoder, order: int, values: Tensor, context: Tensor | None
    ) -> None:
        self.density, self.values, self.context = density, values, context
        self.network = density.networks[order]
        self.order = density.orders[order]

    def factor(self, place: int) -> Distribution:
        """Distribution of the column at this place of the order, batch (n,)."""
        variable = self.network.sequence[place : place + 1]
        inputs = self.density.encode(self.values)
        outputs = self.network.of_variable(variable, inputs, self.context)
        kind = self.density.columns[self.order[place]].kind
        return self.density.factor(kind, outputs, variable[0])

    def select(self, rows: Tensor) -> None:
        """Go on with these of the rows."""
        self.values = self.values[rows]
        self.context = None if self.context is None else self.context[rows]
