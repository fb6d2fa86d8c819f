"""Data sets whose rows follow one another."""

from ppl_gen.datasets.core import Dataset, read_table


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
    frame = read_table("nile", index_col=0).reset_index(drop=True)
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
        frame=read_table("earthquakes"),
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
    frame = read_table("discoveries", index_col=0).reset_index(drop=True)
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
        frame=read_table("coal", index_col=0).reset_index(drop=True),
        target=None,
        description=(
            "Dates, in years, of explosions in British coal mines that killed ten or more, "
            "15 March 1851 to 22 March 1962."
        ),
        source="R's package boot (coal); Jarrett (1979), Biometrika 66, 191-193",
        licence="part of R's package boot (Unlimited); published dates",
    )


def load_gnp() -> Dataset:
    """Growth of the United States' real GNP, 1951-1984, which changes its regime in recessions.

    Returns
    -------
    Dataset
        Columns quarter (its first day), growth (100 times the difference of logarithms, percent a
        quarter) and recession (bool, as dated by the National Bureau of Economic Research); the
        target is recession.

    References
    ----------
    Hamilton (1989), A new approach to the economic analysis of nonstationary time series and the
    business cycle, Econometrica 57, 357-384.

    Examples
    --------
    >>> gnp = load_gnp()
    >>> gnp
    Dataset('gnp', 135 rows x 3 columns, target='recession')
    >>> int(gnp.y.sum())
    27
    """
    import pandas as pd

    frame = read_table("gnp").astype({"recession": bool})
    frame["quarter"] = pd.PeriodIndex(frame["quarter"], freq="Q").to_timestamp()
    return Dataset(
        name="gnp",
        frame=frame,
        target="recession",
        description=(
            "Growth of the real gross national product of the United States, percent a quarter, "
            "1951Q2-1984Q4, and whether the quarter was in a recession by the NBER's dates."
        ),
        source="Hamilton (1989), Econometrica 57, 357-384; tests of statsmodels 0.15.0",
        licence="BSD-3-Clause (as part of statsmodels)",
    )


def make_casino(n_rolls: int = 300, random_state: int | None = 0) -> Dataset:
    """Simulate the occasionally dishonest casino, whose die is now and then a loaded one.

    The fair die is swapped for the loaded one with probability 0.05 before each roll, and back
    with probability 0.1; the loaded one shows a six half of the time, and the other faces a tenth
    each. The first die is drawn from the chain's long-run shares, 2/3 and 1/3.

    Parameters
    ----------
    n_rolls : int
        At least 1.
    random_state : int or None

    Returns
    -------
    Dataset
        Columns roll (1 to 6) and die (category: fair or loaded); the target is die.

    Raises
    ------
    ValueError
        If there is no roll.

    References
    ----------
    Durbin, Eddy, Krogh and Mitchison (1998), Biological Sequence Analysis, section 3.2.

    Examples
    --------
    >>> casino = make_casino(1000)
    >>> int(casino.frame["roll"].value_counts().idxmax())
    6
    """
    import numpy as np
    import pandas as pd

    if n_rolls < 1:
        raise ValueError(f"make_casino: n_rolls is {n_rolls!r}; expected at least 1")
    rng = np.random.default_rng(random_state)
    swaps = rng.uniform(size=n_rolls)
    loaded = np.empty(n_rolls, dtype=bool)
    loaded[0] = swaps[0] < 1.0 / 3.0
    for t in range(1, n_rolls):
        loaded[t] = swaps[t] < (0.9 if loaded[t - 1] else 0.05)
    fair_rolls = rng.integers(1, 7, size=n_rolls)
    loaded_rolls = rng.choice(np.arange(1, 7), size=n_rolls, p=[0.1] * 5 + [0.5])
    frame = pd.DataFrame(
        {
            "roll": np.where(loaded, loaded_rolls, fair_rolls),
            "die": pd.Categorical(np.where(loaded, "loaded", "fair"), ["fair", "loaded"]),
        }
    )
    return Dataset(
        name="casino",
        frame=frame,
        target="die",
        description="Rolls of a die that is now and then swapped for a loaded one, and back.",
        source="simulated; parameters of Durbin et al. (1998), Biological Sequence Analysis, 3.2",
        licence="Apache-2.0, as the package",
    )
