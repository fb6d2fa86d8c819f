"""Small data sets that come with the package, with their sources and licences.

Each loader reads its file anew, so what you do to a frame stays with you. README.md in this folder
says where every file is from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "LOADERS",
    "Dataset",
    "load_coal",
    "load_digits",
    "load_discoveries",
    "load_earthquakes",
    "load_eight_schools",
    "load_faithful",
    "load_iris",
    "load_low_dim_gauss_mix",
    "load_nile",
    "load_penguins",
]

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Dataset:
    """A table, and where it comes from.

    Attributes
    ----------
    name : str
        Its short name.
    frame : pandas.DataFrame
        All rows and columns; what is missing is NaN.
    target : str or None
        The column that is usually predicted.
    description : str
        What the rows and columns are, with units.
    source : str
        Who collected it, and where it was published.
    licence : str
        On what terms it may be used.
    """

    name: str
    frame: pd.DataFrame
    target: str | None
    description: str
    source: str
    licence: str

    @property
    def X(self) -> pd.DataFrame:
        """The columns but the target; shape (n, D)."""
        return self.frame if self.target is None else self.frame.drop(columns=self.target)

    @property
    def y(self) -> pd.Series[Any]:
        """The target; shape (n,).

        Raises
        ------
        ValueError
            If the data set has no target.
        """
        if self.target is None:
            raise ValueError(
                f"Dataset.y: {self.name} has no target; choose one of the columns "
                f"{list(self.frame.columns)}"
            )
        return self.frame[self.target]

    def __repr__(self) -> str:
        rows, columns = self.frame.shape
        return f"Dataset({self.name!r}, {rows} rows x {columns} columns, target={self.target!r})"


def load_penguins() -> Dataset:
    """Palmer penguins: 344 birds of three species, with 19 values missing.

    Returns
    -------
    Dataset
        Columns species, island, sex (categories), bill_length_mm, bill_depth_mm,
        flipper_length_mm (mm), body_mass_g (g) and year; the target is species.

    References
    ----------
    Gorman, Williams and Fraser (2014), Ecological sexual dimorphism and environmental variability
    within a community of Antarctic penguins, PLoS ONE 9(3): e90081.

    Examples
    --------
    >>> penguins = load_penguins()
    >>> penguins
    Dataset('penguins', 344 rows x 8 columns, target='species')
    >>> int(penguins.X.isna().sum().sum())
    19
    """
    frame = _read("penguins")
    labels = ["species", "island", "sex"]
    frame[labels] = frame[labels].astype("category")
    return Dataset(
        name="penguins",
        frame=frame,
        target="species",
        description=(
            "Foraging adult penguins near Palmer Station, Antarctica, 2007-2009: species, island, "
            "bill length and depth (mm), flipper length (mm), body mass (g), sex, year. Eleven "
            "rows lack a value, two of them all but species, island and year."
        ),
        source="Gorman, Williams and Fraser (2014), PLoS ONE 9(3): e90081; palmerpenguins 0.1.6",
        licence="CC0-1.0",
    )


def load_faithful() -> Dataset:
    """Old Faithful: 272 eruptions and the waiting times that followed, in two clusters.

    Returns
    -------
    Dataset
        Columns eruptions and waiting (minutes); no target.

    References
    ----------
    Azzalini and Bowman (1990), A look at some data on the Old Faithful geyser, Applied Statistics
    39, 357-365; Härdle (1991), Smoothing Techniques with Implementation in S.

    Examples
    --------
    >>> load_faithful().frame.shape
    (272, 2)
    """
    frame = _read("faithful", index_col=0).reset_index(drop=True)
    return Dataset(
        name="faithful",
        frame=frame,
        target=None,
        description=(
            "Eruptions of the Old Faithful geyser, Yellowstone: duration of the eruption and "
            "waiting time to the next, both in minutes."
        ),
        source="R's package datasets (faithful); Härdle (1991); Azzalini and Bowman (1990)",
        licence="part of R (GPL-2 or GPL-3); published measurements",
    )


def load_eight_schools() -> Dataset:
    """Eight schools: the effect of coaching in each, with its standard error.

    Returns
    -------
    Dataset
        Columns school (category), y (estimated effect, points) and sigma (standard error,
        points); the target is y.

    References
    ----------
    Rubin (1981), Estimation in parallel randomized experiments, Journal of Educational Statistics
    6(4), 377-401; Gelman et al., Bayesian Data Analysis, section 5.5.

    Examples
    --------
    >>> load_eight_schools().frame["y"].tolist()
    [28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0]
    """
    frame = _read("eight_schools").astype({"school": "category", "y": float, "sigma": float})
    return Dataset(
        name="eight_schools",
        frame=frame,
        target="y",
        description=(
            "Estimated effects of coaching on SAT-V scores in eight schools, and the standard "
            "errors of the estimates, both in points."
        ),
        source="Rubin (1981), Journal of Educational Statistics 6(4), 377-401; posteriordb",
        licence="BSD-3-Clause",
    )


def load_low_dim_gauss_mix() -> Dataset:
    """Draw of 1,000 numbers from two normals, whose posterior is known from posteriordb.

    Returns
    -------
    Dataset
        Column y; no target.

    References
    ----------
    Magnusson et al. (2025), posteriordb: testing, benchmarking and developing Bayesian inference
    algorithms, AISTATS; the posterior low_dim_gauss_mix-low_dim_gauss_mix.

    Examples
    --------
    >>> load_low_dim_gauss_mix().frame.shape
    (1000, 1)
    """
    return Dataset(
        name="low_dim_gauss_mix",
        frame=_read("low_dim_gauss_mix"),
        target=None,
        description="Simulated from a mixture of two normals on the line.",
        source="posteriordb (stan-dev/posteriordb), low_dim_gauss_mix",
        licence="BSD-3-Clause",
    )


def load_iris() -> Dataset:
    """Fisher's iris: 150 flowers of three species, four measurements each.

    Returns
    -------
    Dataset
        Four columns of lengths (cm) and the target species (category).

    References
    ----------
    Fisher (1936), The use of multiple measurements in taxonomic problems, Annals of Eugenics 7,
    179-188.

    Examples
    --------
    >>> load_iris().y.cat.categories.tolist()
    ['setosa', 'versicolor', 'virginica']
    """
    from sklearn.datasets import load_iris as load

    bunch = load(as_frame=True)
    species = bunch.target.map(dict(enumerate(bunch.target_names.tolist())))
    frame = bunch.data.assign(species=species.astype("category"))
    return Dataset(
        name="iris",
        frame=frame,
        target="species",
        description="Lengths and widths of sepals and petals (cm) of three species of iris.",
        source="Fisher (1936), Annals of Eugenics 7, 179-188; scikit-learn",
        licence="BSD-3-Clause (as part of scikit-learn)",
    )


def load_digits() -> Dataset:
    """Handwritten digits: 1,797 images of 8 x 8 pixels.

    Returns
    -------
    Dataset
        64 columns ``pixel_row_column`` with values 0 to 16, and the target digit (0 to 9).

    References
    ----------
    Alpaydin and Kaynak (1998), Optical recognition of handwritten digits, UCI Machine Learning
    Repository.

    Examples
    --------
    >>> load_digits().X.shape
    (1797, 64)
    """
    from sklearn.datasets import load_digits as load

    bunch = load(as_frame=True)
    frame = bunch.data.assign(digit=bunch.target)
    return Dataset(
        name="digits",
        frame=frame,
        target="digit",
        description="Handwritten digits as 8 x 8 pixels, each 0 (white) to 16 (black).",
        source="Alpaydin and Kaynak (1998), UCI Machine Learning Repository; scikit-learn",
        licence="CC-BY-4.0",
    )


def load_nile() -> Dataset:
    """The Nile: its flow at Aswan in each year from 1871 to 1970, which fell about 1898.

    Returns
    -------
    Dataset
        Columns year and flow (10^8 cubic metres); no target.

    References
    ----------
    Cobb (1978), The problem of the Nile: conditional solution to a change-point problem,
    Biometrika 65, 243-251; Durbin and Koopman (2012), Time Series Analysis by State Space
    Methods, chapter 2.

    Examples
    --------
    >>> load_nile().frame["flow"].tolist()[:3]
    [1120.0, 1160.0, 963.0]
    """
    frame = _read("nile", index_col=0).reset_index(drop=True)
    frame = frame.rename(columns={"time": "year", "Nile": "flow"}).astype({"flow": float})
    return Dataset(
        name="nile",
        frame=frame,
        target=None,
        description="Yearly flow of the Nile at Aswan, 1871-1970, in 10^8 cubic metres.",
        source="R's package datasets (Nile); Cobb (1978), Biometrika 65, 243-251",
        licence="part of R (GPL-2 or GPL-3); published measurements",
    )


def load_earthquakes() -> Dataset:
    """Earthquakes of magnitude 7 and over in the world, in each year from 1900 to 2006.

    Returns
    -------
    Dataset
        Columns year and count; no target.

    References
    ----------
    Zucchini, MacDonald and Langrock (2016), Hidden Markov Models for Time Series, table 1.1.

    Examples
    --------
    >>> load_earthquakes().frame["count"].tolist()[:3]
    [13, 14, 8]
    """
    return Dataset(
        name="earthquakes",
        frame=_read("earthquakes"),
        target=None,
        description="Number of earthquakes of magnitude 7 and over in the world, 1900-2006.",
        source="U.S. Geological Survey; Zucchini, MacDonald and Langrock (2016), table 1.1",
        licence="public domain (U.S. Geological Survey)",
    )


def load_discoveries() -> Dataset:
    """Great inventions and scientific discoveries in each year from 1860 to 1959.

    Returns
    -------
    Dataset
        Columns year and discoveries (a count); no target.

    References
    ----------
    The World Almanac and Book of Facts (1975), 315-318; McNeil (1977), Interactive Data Analysis.

    Examples
    --------
    >>> int(load_discoveries().frame["discoveries"].max())
    12
    """
    frame = _read("discoveries", index_col=0).reset_index(drop=True)
    return Dataset(
        name="discoveries",
        frame=frame.rename(columns={"time": "year"}),
        target=None,
        description="Number of great inventions and scientific discoveries a year, 1860-1959.",
        source="R's package datasets (discoveries); The World Almanac and Book of Facts (1975)",
        licence="part of R (GPL-2 or GPL-3); published counts",
    )


def load_coal() -> Dataset:
    """Coal mining disasters in Britain: the dates of 191 explosions from 1851 to 1962.

    Returns
    -------
    Dataset
        Column date (years, as a decimal number); no target.

    References
    ----------
    Jarrett (1979), A note on the intervals between coal-mining disasters, Biometrika 66, 191-193.

    Examples
    --------
    >>> load_coal().frame["date"].round(2).tolist()[:2]
    [1851.2, 1851.63]
    """
    return Dataset(
        name="coal",
        frame=_read("coal", index_col=0).reset_index(drop=True),
        target=None,
        description=(
            "Dates, in years, of explosions in British coal mines that killed ten or more, "
            "15 March 1851 to 22 March 1962."
        ),
        source="R's package boot (coal); Jarrett (1979), Biometrika 66, 191-193",
        licence="part of R's package boot (Unlimited); published dates",
    )


#: Name -> loader, for the command line.
LOADERS: dict[str, Callable[[], Dataset]] = {
    "penguins": load_penguins,
    "faithful": load_faithful,
    "eight_schools": load_eight_schools,
    "low_dim_gauss_mix": load_low_dim_gauss_mix,
    "iris": load_iris,
    "digits": load_digits,
    "nile": load_nile,
    "earthquakes": load_earthquakes,
    "discoveries": load_discoveries,
    "coal": load_coal,
}


def _read(name: str, index_col: int | None = None) -> pd.DataFrame:
    import pandas as pd

    return pd.read_csv(
        FOLDER / f"{name}.csv", index_col=index_col, na_values=["NA"], keep_default_na=False
    )
