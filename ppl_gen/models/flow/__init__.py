"""Normalizing flows: an invertible network from noise to data, whose density is exact."""

from ppl_gen.models.flow.model import NormalizingFlow

__all__ = ["NormalizingFlow"]
