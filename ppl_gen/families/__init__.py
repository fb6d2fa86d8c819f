"""Exponential families with conjugate priors: density, sufficient statistics, estimate."""

from ppl_gen.families.base import Family, Parameters, Statistics
from ppl_gen.families.categorical import Categorical
from ppl_gen.families.columns import Columns
from ppl_gen.families.discrete import Bernoulli, Multinomial, Poisson
from ppl_gen.families.factor_normal import FactorNormal
from ppl_gen.families.mixed import MixtureFamily
from ppl_gen.families.normal import Normal

__all__ = [
    "FAMILIES",
    "Bernoulli",
    "Categorical",
    "Columns",
    "FactorNormal",
    "Family",
    "MixtureFamily",
    "Multinomial",
    "Normal",
    "Parameters",
    "Poisson",
    "Statistics",
]

#: Name -> family, as models take it.
FAMILIES: dict[str, type[Family]] = {
    family.name: family for family in (Normal, Bernoulli, Categorical, Multinomial, Poisson)
}
