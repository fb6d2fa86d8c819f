"""Data sets whose rows have no order."""

from ppl_gen.datasets.core import Dataset, read_table


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
    frame = read_table("penguins")
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
    frame = read_table("faithful", index_col=0).reset_index(drop=True)
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
    frame = read_table("eight_schools").astype({"school": "category", "y": float, "sigma": float})
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
        frame=read_table("low_dim_gauss_mix"),
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


def load_adult() -> Dataset:
    """Adult: who earns more than 50,000 dollars a year, of 30,162 people, all columns in classes.

    Returns
    -------
    Dataset
        Columns Age, Education, HoursPerWeek, Income (ordered categories), MaritalStatus, Race, Sex
        and Immigrant (categories); the target is Income.

    References
    ----------
    Becker and Kohavi (1996), Adult, UCI Machine Learning Repository; Ankan, Wortel and Textor
    (2021), Testing graphical causal models using the R package "dagitty", Current Protocols 1, e45,
    whose tests of the table in classes hold for this one.

    Examples
    --------
    >>> adult = load_adult()
    >>> adult
    Dataset('adult', 30162 rows x 8 columns, target='Income')
    >>> adult.frame["Education"].cat.categories.tolist()
    ['Non-HS-Grad', 'HS-grad', 'College-Associate', 'Academic-Degree']
    """
    import pandas as pd

    ordered = {
        "Age": ["<20", "20-34", "35-49", "50-65", ">65"],
        "Education": ["Non-HS-Grad", "HS-grad", "College-Associate", "Academic-Degree"],
        "HoursPerWeek": ["<20", "20-39", "40", ">40"],
        "Income": ["<=50K", ">50K"],
    }
    frame = read_table("adult", suffix=".csv.gz").astype("category")
    frame = frame.astype({name: pd.CategoricalDtype(c, True) for name, c in ordered.items()})
    return Dataset(
        name="adult",
        frame=frame,
        target="Income",
        description=(
            "People of the United States' census of 1994, without those of whom something is "
            "unknown: age in years, education, marital status, race, sex, hours worked a week, "
            "immigrant or not, and whether the income is above 50,000 dollars a year."
        ),
        source=(
            "Becker and Kohavi (1996), UCI Machine Learning Repository; the part for training, "
            "in classes"
        ),
        licence="CC-BY-4.0",
    )
