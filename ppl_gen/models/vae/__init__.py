"""Autoencoders: models with a continuous code behind each row, and networks there and back."""

from ppl_gen.models.vae.model import VAE

__all__ = ["VAE"]
