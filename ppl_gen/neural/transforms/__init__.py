"""Invertible networks, each a Pyro transform that takes noise to data and gives its Jacobian."""

from ppl_gen.neural.transforms.autoregressive import Autoregressive
from ppl_gen.neural.transforms.base import FlowTransform, Inverted, Stack
from ppl_gen.neural.transforms.coupling import Coupling
from ppl_gen.neural.transforms.permutations import LULinear, Permutation
from ppl_gen.neural.transforms.splines import Affine, Monotone, RationalQuadratic
from ppl_gen.neural.transforms.stacks import TRANSFORMS, iaf, maf, nsf, nsf_coupling, realnvp

__all__ = [
    "TRANSFORMS",
    "Affine",
    "Autoregressive",
    "Coupling",
    "FlowTransform",
    "Inverted",
    "LULinear",
    "Monotone",
    "Permutation",
    "RationalQuadratic",
    "Stack",
    "iaf",
    "maf",
    "nsf",
    "nsf_coupling",
    "realnvp",
]
