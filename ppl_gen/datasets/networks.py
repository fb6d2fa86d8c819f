"""Networks of bnlearn's repository, with their tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ppl_gen.datasets.core import FOLDER

if TYPE_CHECKING:
    from ppl_gen.models.bayesian_network import BayesianNetwork


def load_asia() -> BayesianNetwork:
    """Asia, the chest clinic: what tells tuberculosis, lung cancer and bronchitis from each other.

    Returns
    -------
    BayesianNetwork
        8 nodes of 2 states, 8 edges. The node either is certain given its parents, lung and tub.

    References
    ----------
    Lauritzen and Spiegelhalter (1988), Local computations with probabilities on graphical
    structures and their application to expert systems, Journal of the Royal Statistical Society B
    50, 157-224.

    Examples
    --------
    >>> asia = load_asia()
    >>> asia.query(["lung"], evidence={"xray": "yes", "dysp": "yes"}).round(4)
    lung
    yes    0.6213
    no     0.3787
    Name: probability, dtype: float64
    """
    return _read("asia")


def load_cancer() -> BayesianNetwork:
    """Lung cancer, what it comes from (pollution, smoking) and what it shows by (X-ray, dyspnoea).

    Returns
    -------
    BayesianNetwork
        5 nodes of 2 states, 4 edges.

    References
    ----------
    Korb and Nicholson (2010), Bayesian Artificial Intelligence, 2nd edition, chapter 2.

    Examples
    --------
    >>> load_cancer().query("Cancer").loc["True"].round(4)
    np.float64(0.0116)
    """
    return _read("cancer")


def load_earthquake() -> BayesianNetwork:
    """The burglar alarm that an earthquake sets off, too, and two neighbours who call.

    Returns
    -------
    BayesianNetwork
        5 nodes of 2 states, 4 edges.

    References
    ----------
    Korb and Nicholson (2010), Bayesian Artificial Intelligence, 2nd edition, chapter 2.

    Examples
    --------
    >>> calls = {"JohnCalls": "True", "MaryCalls": "True"}
    >>> load_earthquake().query("Burglary", evidence=calls).loc["True"] > 0.5
    np.True_
    """
    return _read("earthquake")


def load_survey() -> BayesianNetwork:
    """Survey of how people travel, with what decides it.

    Returns
    -------
    BayesianNetwork
        6 nodes of 2 or 3 states, 6 edges: age (A), sex (S), education (E), occupation (O),
        residence (R) and travel (T).

    References
    ----------
    Scutari and Denis (2014), Bayesian Networks: with Examples in R, chapter 1.

    Examples
    --------
    >>> load_survey().states_["T"]
    ('car', 'train', 'other')
    """
    return _read("survey")


def load_sachs() -> BayesianNetwork:
    """Sachs's proteins: who signals to whom in human T cells, from single-cell measurements.

    Returns
    -------
    BayesianNetwork
        11 nodes of 3 states (LOW, AVG, HIGH), 17 edges.

    References
    ----------
    Sachs, Perez, Pe'er, Lauffenburger and Nolan (2005), Causal protein-signaling networks derived
    from multiparameter single-cell data, Science 308, 523-529.

    Examples
    --------
    >>> sorted(load_sachs().graph_.predecessors("Akt"))
    ['Erk', 'PKA']
    """
    return _read("sachs")


def load_alarm() -> BayesianNetwork:
    """Alarm: what a monitor of patients under anaesthesia shows, and what it means.

    Returns
    -------
    BayesianNetwork
        37 nodes of 2 to 4 states, 46 edges: 8 diagnoses, 16 findings, 13 between them.

    References
    ----------
    Beinlich, Suermondt, Chavez and Cooper (1989), The ALARM monitoring system: a case study with
    two probabilistic inference techniques for belief networks, Proceedings of the 2nd European
    Conference on Artificial Intelligence in Medicine, 247-256.

    Examples
    --------
    >>> alarm = load_alarm()
    >>> shown = {"BP": "LOW", "CVP": "HIGH", "PCWP": "HIGH"}
    >>> alarm.query("HYPOVOLEMIA", evidence=shown).idxmax()
    'TRUE'
    """
    return _read("alarm")


def _read(name: str) -> BayesianNetwork:
    from ppl_gen.models.bayesian_network import BayesianNetwork

    return BayesianNetwork.from_bif(FOLDER / f"{name}.bif")
