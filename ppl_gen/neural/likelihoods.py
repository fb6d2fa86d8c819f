"""Distributions of the entries of a row, given what a network puts out for each of them."""

import math
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn.functional import binary_cross_entropy_with_logits

from ppl_gen.neural.density import FARTHEST
from ppl_gen.neural.levels import log_logistic_mass

__all__ = [
    "BernoulliLikelihood",
    "CategoricalLikelihood",
    "DiscretisedLogistic",
    "DiscretisedLogisticLikelihood",
    "Likelihood",
    "NormalLikelihood",
]

#: Least variance of a normal likelihood, as a share of the data's own: the density of a column
#: that the network can tell exactly has no bound.
VARIANCE_FLOOR = 1e-6

#: Weight of all labels beside the row's own, where labels are to be moved by gradients: at the
#: corners of the simplex there are none.
BLUR = 0.1


class Likelihood(nn.Module):
    """Independent entries of a row, each with a distribution of its own.

    Attributes
    ----------
    n_outputs : int
        Numbers P that a decoder puts out for each entry.
    n_features : int
        Numbers F that an encoder is given for each entry.
    """

    n_outputs: int = 1
    n_features: int = 1

    def dist(self, outputs: Tensor) -> TorchDistribution:
        """Distributions of entries: (..., D, P) -> batch (..., D), event ()."""
        raise NotImplementedError  # pragma: no cover

    def rows(self, outputs: Tensor, observed: Tensor | None = None) -> TorchDistribution:
        """Distribution of rows: (..., D, P) -> batch (...), event (D,).

        `observed`, (..., D), leaves entries out of the density where it is false.
        """
        entries = self.dist(outputs)
        return (entries if observed is None else entries.mask(observed)).to_event(1)

    def features(self, x: Tensor) -> Tensor:
        """What an encoder sees of entries, zero being nothing: (n, D) -> (n, D, F)."""
        return x.unsqueeze(-1)

    def relaxed(self, x: Tensor) -> Tensor:
        """Rows as numbers that gradients can move: (n, D) -> (n, D), or (n, D, F) of labels."""
        return x

    def relaxed_features(self, relaxed: Tensor) -> Tensor:
        """What an encoder sees of such numbers: (n, D) or (n, D, F) -> (n, D, F)."""
        return self.features(relaxed)

    def moment(self, outputs: Tensor) -> Tensor:
        """What a mixture of such entries averages: their means, (..., D, P) -> (..., D, M)."""
        mean: Tensor = self.dist(outputs).mean
        return mean.unsqueeze(-1)

    def value(self, moment: Tensor) -> Tensor:
        """The value that stands for a moment, one that data may have: (..., D, M) -> (..., D)."""
        return moment.squeeze(-1)

    def centre(self, outputs: Tensor) -> Tensor:
        """Mean of each entry; the mode where values are labels: (..., D, P) -> (..., D)."""
        return self.moment(outputs).squeeze(-1)


class NormalLikelihood(Likelihood):
    """Normal entries around the decoder's output, in the units of the data.

    Parameters
    ----------
    location, scale : (D,) tensors
        The decoder puts out standardised means, and the encoder sees standardised entries.
    noise : "learned", "column" or float
        Variance of the noise: one learned share of the square of `scale`; one such share for each
        column; or a number, in the units of the data squared.
    """

    def __init__(self, location: Tensor, scale: Tensor, noise: str | float = "learned") -> None:
        super().__init__()
        self.noise = noise
        self.register_buffer("location", location.clone())
        self.register_buffer("scale", scale.clone())
        self.location: Tensor
        self.scale: Tensor
        if isinstance(noise, str):
            shape = scale.shape if noise == "column" else ()
            self.log_share = nn.Parameter(scale.new_zeros(shape))

    def deviation(self) -> Tensor:
        """Standard deviation of the noise of each column, in the units of the data: (D,)."""
        if isinstance(self.noise, str):
            return self.scale * (VARIANCE_FLOOR + self.log_share.exp()).sqrt()
        return torch.full_like(self.scale, math.sqrt(self.noise))

    def dist(self, outputs: Tensor) -> TorchDistribution:
        """Normals of mean ``location + scale * output``."""
        mean = torch.addcmul(self.location, self.scale, outputs.squeeze(-1))
        return dist.Normal(mean, self.deviation(), validate_args=False)

    def features(self, x: Tensor) -> Tensor:
        """Standardised entries."""
        return ((x - self.location) / self.scale).clamp(-FARTHEST, FARTHEST).unsqueeze(-1)


class BernoulliLikelihood(Likelihood):
    """Entries 0 and 1, of the logits that the decoder puts out."""

    def dist(self, outputs: Tensor) -> TorchDistribution:
        """Bernoulli distributions."""
        return dist.Bernoulli(logits=outputs.squeeze(-1), validate_args=False)

    def value(self, moment: Tensor) -> Tensor:
        """The likelier of 0 and 1."""
        return (moment.squeeze(-1) > 0.5).to(moment.dtype)

    def rows(self, outputs: Tensor, observed: Tensor | None = None) -> TorchDistribution:
        """Distribution of rows, its density in fewer passes over the entries."""
        entries = self.dist(outputs)
        return _BernoulliRows(entries if observed is None else entries.mask(observed), 1)


class _BernoulliRows(dist.Independent):  # type: ignore[misc]
    def log_prob(self, value: Tensor) -> Tensor:
        entries, observed = self.base_dist, None
        if isinstance(entries, dist.MaskedDistribution):
            entries, observed = entries.base_dist, entries._mask
        logits, value = torch.broadcast_tensors(entries.logits, value)  # type: ignore[no-untyped-call]
        loss = binary_cross_entropy_with_logits(logits, value, reduction="none")
        if observed is not None:
            loss = torch.where(observed, loss, 0.0)
        return -loss.sum(-1)


class CategoricalLikelihood(Likelihood):
    """Entries 0 to K - 1, labels without order, of the K logits that the decoder puts out.

    Parameters
    ----------
    n_levels : int
        Labels K.
    """

    def __init__(self, n_levels: int) -> None:
        super().__init__()
        self.n_outputs = self.n_features = n_levels
        self.register_buffer("levels", torch.arange(n_levels), persistent=False)
        self.levels: Tensor

    def dist(self, outputs: Tensor) -> TorchDistribution:
        """Categorical distributions."""
        return dist.Categorical(logits=outputs, validate_args=False)

    def features(self, x: Tensor) -> Tensor:
        """An indicator of each label."""
        return (x.unsqueeze(-1) == self.levels).to(x.dtype)

    def relaxed(self, x: Tensor) -> Tensor:
        """Log probabilities of the labels: nearly one of the row's own, alike where it is NaN."""
        return (self.features(x) + BLUR / self.n_features).log().log_softmax(dim=-1)

    def relaxed_features(self, relaxed: Tensor) -> Tensor:
        """Probabilities of the labels, in place of their indicators."""
        return relaxed.softmax(dim=-1)

    def moment(self, outputs: Tensor) -> Tensor:
        """Probabilities of the labels."""
        return outputs.softmax(dim=-1)

    def value(self, moment: Tensor) -> Tensor:
        """The likeliest label."""
        return moment.argmax(dim=-1).to(moment.dtype)

    def centre(self, outputs: Tensor) -> Tensor:
        """The likeliest label."""
        return self.value(outputs)


class DiscretisedLogisticLikelihood(Likelihood):
    """Entries 0 to K - 1, ordered levels: logistic variables rounded to the nearest level.

    The decoder puts out a location, -1 for the lowest level and 1 for the highest, and a log
    scale in the same units, over its start of -2.

    Parameters
    ----------
    n_levels : int
        Levels K.
    """

    n_outputs = 2

    def __init__(self, n_levels: int) -> None:
        super().__init__()
        self.n_levels = n_levels
        self.half_range = (n_levels - 1) / 2

    def dist(self, outputs: Tensor) -> TorchDistribution:
        """Discretised logistic distributions."""
        location = self.half_range * (1.0 + outputs[..., 0])
        # A scale of e^-7 of the half range is a hundredth of a level of 256 and less.
        scale = self.half_range * (outputs[..., 1] - 2.0).clamp(-7.0, 7.0).exp()
        return DiscretisedLogistic(location, scale, self.n_levels)

    def features(self, x: Tensor) -> Tensor:
        """Levels scaled to [-1, 1]."""
        return (x / self.half_range - 1.0).unsqueeze(-1)

    def value(self, moment: Tensor) -> Tensor:
        """The level nearest to the mean."""
        return moment.squeeze(-1).round()


class DiscretisedLogistic(TorchDistribution):  # type: ignore[misc]
    """A logistic variable rounded to the nearest of the levels 0 to K - 1.

    What lies beyond the lowest and the highest level belongs to them [1]_, so that the masses sum
    to one; their logarithms are exact however far in the tails (`log_logistic_mass`).

    Parameters
    ----------
    loc, scale : (...) tensors
        In levels; the scale may be one of all.
    n_levels : int
        Levels K.

    References
    ----------
    .. [1] Salimans, T. et al. (2017). PixelCNN++. ICLR, section 2.1.

    Examples
    --------
    >>> import torch
    >>> from ppl_gen.neural.likelihoods import DiscretisedLogistic
    >>> masses = DiscretisedLogistic(torch.tensor(1.2), torch.tensor(0.5), 4)
    >>> masses.log_prob(torch.arange(4.0)).exp().sum().round(decimals=5)
    tensor(1.)
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}  # noqa: RUF012
    has_rsample = False

    def __init__(self, loc: Tensor, scale: Tensor, n_levels: int) -> None:
        self.loc, self.scale = loc, scale.expand_as(loc)
        self.n_levels = n_levels
        super().__init__(self.loc.shape, validate_args=False)

    @property
    def support(self) -> Any:
        """Whole numbers from 0 to K - 1."""
        return constraints.integer_interval(0, self.n_levels - 1)  # type: ignore[no-untyped-call]

    def expand(self, batch_shape: Any, _instance: Any = None) -> "DiscretisedLogistic":
        """Return the distribution with a larger batch."""
        loc, scale = self.loc.expand(batch_shape), self.scale.expand(batch_shape)
        return DiscretisedLogistic(loc, scale, self.n_levels)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log mass of levels, in nats."""
        step = 1.0 / self.scale
        upper = (value + 0.5 - self.loc) * step
        return log_logistic_mass(upper, step, value == 0, value == self.n_levels - 1)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw levels."""
        shape = self._extended_shape(torch.Size(sample_shape))
        with torch.no_grad():
            tiny = torch.finfo(self.loc.dtype).tiny
            uniform = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device)
            drawn: Tensor = self.loc + self.scale * torch.logit(uniform.clamp(min=tiny))
            return drawn.round().clamp(0, self.n_levels - 1)

    @property
    def mean(self) -> Tensor:
        """Expected level: the sum over levels of the mass above each."""
        total = torch.zeros_like(self.loc)
        for level in range(1, self.n_levels):
            total = total + torch.sigmoid((self.loc - level + 0.5) / self.scale)
        return total

    @property
    def mode(self) -> Tensor:
        """Likeliest level: the nearest to the location, or an end with what lies beyond it."""
        nearest = self.loc.round().clamp(0, self.n_levels - 1)
        found = torch.stack(
            [nearest, torch.zeros_like(nearest), torch.full_like(nearest, self.n_levels - 1)]
        )
        best = self.log_prob(found).argmax(dim=0, keepdim=True)
        return found.gather(0, best).squeeze(0)
