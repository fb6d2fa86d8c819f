"""Small data sets that come with the package, with their sources and licences.

Each loader reads its file anew, so what you do to a frame stays with you. README.md in this folder
says where every file is from.
"""

from collections.abc import Callable

from ppl_gen.datasets.core import FOLDER, Dataset
from ppl_gen.datasets.images import load_digits, load_mnist_5k
from ppl_gen.datasets.networks import (
    load_alarm,
    load_asia,
    load_cancer,
    load_earthquake,
    load_sachs,
    load_survey,
)
from ppl_gen.datasets.sequences import (
    load_coal,
    load_discoveries,
    load_earthquakes,
    load_gnp,
    load_nile,
    make_casino,
)
from ppl_gen.datasets.tables import (
    load_adult,
    load_eight_schools,
    load_faithful,
    load_iris,
    load_low_dim_gauss_mix,
    load_penguins,
)
from ppl_gen.datasets.text import load_ecclesiastes
from ppl_gen.datasets.toys import Toy, make_checkerboard, make_eight_gaussians, make_two_moons

__all__ = [
    "FOLDER",
    "LOADERS",
    "Dataset",
    "Toy",
    "load_adult",
    "load_alarm",
    "load_asia",
    "load_cancer",
    "load_coal",
    "load_digits",
    "load_discoveries",
    "load_earthquake",
    "load_earthquakes",
    "load_ecclesiastes",
    "load_eight_schools",
    "load_faithful",
    "load_gnp",
    "load_iris",
    "load_low_dim_gauss_mix",
    "load_mnist_5k",
    "load_nile",
    "load_penguins",
    "load_sachs",
    "load_survey",
    "make_casino",
    "make_checkerboard",
    "make_eight_gaussians",
    "make_two_moons",
]

#: Name -> loader of a table, for the command line.
LOADERS: dict[str, Callable[[], Dataset]] = {
    "penguins": load_penguins,
    "faithful": load_faithful,
    "eight_schools": load_eight_schools,
    "low_dim_gauss_mix": load_low_dim_gauss_mix,
    "iris": load_iris,
    "digits": load_digits,
    "mnist_5k": load_mnist_5k,
    "nile": load_nile,
    "earthquakes": load_earthquakes,
    "discoveries": load_discoveries,
    "coal": load_coal,
    "gnp": load_gnp,
    "ecclesiastes": load_ecclesiastes,
    "adult": load_adult,
}
