"""Training of a vector-quantised autoencoder: its first stage, before the density of codes."""

from typing import Any

from torch import nn

from ppl_gen.inference.training.objective import Batch, Objective, Parts

__all__ = ["VectorQuantisation"]


class VectorQuantisation(Objective):
    """Minus the log density of rows given their codes, and what keeps vectors near their codes.

    ``-log p(x | c) + commitment * sum_t |v_t - sg[e_t]|^2`` a row, for the vectors ``v`` that the
    encoder puts out and their entries ``e`` of the codebook: van den Oord et al. (2017),
    arXiv:1711.00937, equation 3, whose middle term is the moving average of appendix A.1.

    Parameters
    ----------
    module : VectorQuantisedAutoencoder
    commitment : float
    """

    module: Any

    def __init__(self, module: Any, commitment: float) -> None:
        super().__init__(module)
        self.commitment = commitment

    @property
    def players(self) -> dict[str, list[nn.Parameter]]:
        """All but the density of codes, which is trained once they are settled."""
        later = set(self.module.code_density.parameters())
        return {"loss": [p for p in self.module.parameters() if p not in later]}

    def losses(self, batch: Batch) -> Parts:
        """Return the "loss" of a batch, its "reconstruction" and its "commitment", a row."""
        coded = self.module.coded(batch["x"])
        weight = batch.get("weight", 1.0)
        reconstruction = -(weight * coded.reconstruction).mean()
        commitment = self.commitment * (weight * coded.quantised.distance.sum(-1)).mean()
        return {
            "loss": reconstruction + commitment,
            "reconstruction": reconstruction,
            "commitment": commitment,
        }
