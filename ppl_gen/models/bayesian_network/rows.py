"""Rows of a table through a network: scored, completed, classified, drawn."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from sklearn.utils import ClassifierTags
from sklearn.utils.validation import check_is_fitted

from ppl_gen.counts import check_count
from ppl_gen.data import is_frame
from ppl_gen.estimator import GenerativeModel
from ppl_gen.models.bayesian_network import reading
from ppl_gen.models.bayesian_network.naming import listed
from ppl_gen.models.bayesian_network.training import as_table
from ppl_gen.structures.bayesian_network.completion import draw_missing, fill
from ppl_gen.structures.bayesian_network.network import Network

Array = Any


class NetworkRows(GenerativeModel):
    """What a network says of tables, whose columns are matched to nodes by their names."""

    structure_: Network
    target: Any

    def _encode(self, X: Any) -> Array:
        x = reading.encode(self.structure_, self.schema_, as_table(X))
        self.structure_.check(x)
        return x

    def _log_evidence_by_draw(self, x: Array) -> Array:
        """Log density of rows under every draw: (S, n)."""
        draws = (self._draw(s) for s in range(self._n_draws))
        return np.stack([self.structure_.log_evidence(draw, x) for draw in draws])

    def log_prob(self, X: Any) -> Array:
        """Log probability (density, of numbers) of each row, in nats.

        Parameters
        ----------
        X : table of (n, D)
            Columns are matched by name. What is missing, or no column, is summed out.

        Returns
        -------
        (n,) array
            After a Bayesian fit, the log posterior predictive density.

        Examples
        --------
        >>> import pandas as pd
        >>> from ppl_gen.datasets import load_asia
        >>> rows = pd.DataFrame({"xray": ["no", "yes"], "dysp": ["no", None]})
        >>> load_asia().log_prob(rows).round(3)
        array([-0.645, -2.205])
        """
        check_is_fitted(self)
        each = self._log_evidence_by_draw(self._encode(X))
        return each[0] if len(each) == 1 else np.logaddexp.reduce(each) - np.log(len(each))

    def score_samples(self, X: Any) -> Array:
        """Return :meth:`log_prob`, by scikit-learn's name."""
        return self.log_prob(X)

    def score(self, X: Any, y: Any = None) -> float:
        """Mean log density of the rows; with `y`, the share of them that :meth:`predict` finds.

        Examples
        --------
        >>> from ppl_gen.datasets import load_asia
        >>> asia = load_asia()
        >>> rows = asia.sample(100, random_state=0)
        >>> bool(asia.score(rows) == asia.log_prob(rows).mean())
        True
        """
        if y is None:
            return float(self.log_prob(X).mean())
        return float((self.predict(X) == np.asarray(y)).mean())

    def aic(self, X: Any) -> float:
        """Akaike's information criterion on X: the lower the better.

        Examples
        --------
        Smokers have bronchitis more often: with the arrow it is lower.

        >>> import networkx as nx
        >>> from ppl_gen import BayesianNetwork
        >>> from ppl_gen.datasets import load_asia
        >>> rows = load_asia().sample(500, random_state=0)[["smoke", "bronc"]]
        >>> apart = nx.DiGraph()
        >>> apart.add_nodes_from(rows)
        >>> for graph in (apart, [("smoke", "bronc")]):
        ...     print(round(BayesianNetwork(graph).fit(rows).aic(rows), 1))
        1386.8
        1347.6
        """
        return -2.0 * float(self.log_prob(X).sum()) + 2.0 * self.structure_.n_free()

    def bic(self, X: Any) -> float:
        """Schwarz's information criterion on X: the lower the better.

        Examples
        --------
        >>> from ppl_gen import BayesianNetwork
        >>> from ppl_gen.datasets import load_asia
        >>> rows = load_asia().sample(500, random_state=0)[["smoke", "bronc"]]
        >>> round(BayesianNetwork([("smoke", "bronc")]).fit(rows).bic(rows), 1)
        1360.2
        """
        log_prob = self.log_prob(X)
        return -2.0 * float(log_prob.sum()) + math.log(len(log_prob)) * self.structure_.n_free()

    def predict_proba(self, X: Any, node: Any = None) -> Array:
        """Probability of each state of a node, for each row: (n, K), in the order of `states_`.

        Parameters
        ----------
        X : table of (n, D)
            What it shows of the node itself is left out.
        node : name, optional
            By default the `target`; or else the one node with states that X does not have.

        Examples
        --------
        >>> import pandas as pd
        >>> from ppl_gen.datasets import load_asia
        >>> rows = pd.DataFrame({"xray": ["no", "yes"], "smoke": ["no", "yes"]})
        >>> load_asia().predict_proba(rows, "lung").round(3)
        array([[0.   , 1.   ],
               [0.646, 0.354]])
        """
        check_is_fitted(self)
        X = as_table(X)
        v = self._node_asked(X, node, "predict_proba")
        return self._probabilities(X, [v])[0]

    def _probabilities(self, X: Any, nodes: list[int]) -> list[Array]:
        """Probabilities of the states of nodes, each by itself, less what X shows of any of them.

        Draws weigh by p(row | draw).
        """
        network = self.structure_
        x = self._encode(X)
        x[:, nodes] = np.nan
        network.check(x, nodes)
        total = [np.zeros((len(x), network.sizes[v])) for v in nodes]
        top = np.full(len(x), -np.inf)
        for s in range(self._n_draws):
            found, log_evidence = network.probabilities(self._draw(s), x, nodes)
            higher = np.maximum(top, log_evidence)
            with np.errstate(invalid="ignore"):
                kept, added = np.exp(top - higher), np.exp(log_evidence - higher)
            for shares, own in zip(total, found, strict=True):
                shares *= np.where(np.isneginf(top), 0.0, kept)[:, None]
                shares += own * np.where(np.isneginf(log_evidence), 0.0, added)[:, None]
            top = higher
        self._refuse_impossible(~np.isneginf(top), "predict_proba")
        return [shares / shares.sum(axis=1, keepdims=True) for shares in total]

    def predict_log_proba(self, X: Any, node: Any = None) -> Array:
        """Logarithms of :meth:`predict_proba`."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X, node))

    def predict(self, X: Any, nodes: Any = None) -> Any:
        """Likeliest state of a node for each row: (n,); of a list of nodes, a DataFrame.

        Each node by itself, of rows that lack them all: see :meth:`map_query` for what is
        likeliest together.

        Examples
        --------
        >>> import pandas as pd
        >>> from ppl_gen.datasets import load_asia
        >>> rows = pd.DataFrame({"xray": ["no", "yes"], "smoke": ["no", "yes"]})
        >>> load_asia().predict(rows, ["lung", "bronc"])
          lung bronc
        0   no    no
        1  yes   yes
        """
        check_is_fitted(self)
        X = as_table(X)
        several = isinstance(nodes, Iterable) and not isinstance(nodes, str)
        names = listed(nodes)
        asked = [self._node_asked(X, node, "predict") for node in names]
        if not asked or len(set(asked)) < len(asked):
            raise ValueError(
                f"{self._who}.predict: nodes is {names}; expected at least one, each once"
            )
        best = {
            self.structure_.names[v]: reading.array_of(self.structure_.states[v])[
                shares.argmax(axis=1)
            ]
            for v, shares in zip(asked, self._probabilities(X, asked), strict=True)
        }
        if not several:
            return next(iter(best.values()))
        import pandas as pd

        return pd.DataFrame(best, index=X.index if hasattr(X, "index") else None)

    def _refuse_impossible(self, possible: Array, asker: str) -> None:
        if not possible.all():
            raise ValueError(
                f"{self._who}.{asker}: row {int(np.argmin(possible))} has probability zero under "
                "the network; check it, or give the tables a prior (prior='bdeu')"
            )

    def _node_asked(self, X: Any, node: Any, asker: str) -> int:
        network = self.structure_
        if node is None:
            node = self.target
        if node is None:
            shown = list(X.columns) if is_frame(X) else self.schema_.names
            absent = [network.names[v] for v in network.discrete if network.names[v] not in shown]
            if len(absent) != 1:
                what = (
                    f"the nodes {absent} could be meant"
                    if absent
                    else "X has all nodes with states"
                )
                raise ValueError(
                    f"{self._who}.{asker}: {what}; say which is asked for by "
                    f"{'nodes' if asker == 'predict' else 'node'}=, or set target"
                )
            node = absent[0]
        v = reading.place_of(network, node)
        if not network.sizes[v]:
            raise ValueError(f"{self._who}.{asker}: {node!r} is a number; use impute, or query")
        return v

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        if self.target is not None:  # folds are then stratified
            tags.estimator_type = "classifier"
            tags.classifier_tags = ClassifierTags()
        return tags

    # -- drawing -------------------------------------------------------------------------------

    def sample(
        self, n_samples: int = 1, random_state: Any = None, *, return_latent: bool = False
    ) -> Any:
        """Draw new rows, in the columns and dtypes of the table that was fitted.

        Parameters
        ----------
        n_samples : int
        random_state : int or None
        return_latent : bool
            Return hidden nodes, which the table does not have, too.

        Returns
        -------
        table of (n_samples, D), or the table and the hidden node (n_samples,) or nodes (a frame)

        Examples
        --------
        >>> from ppl_gen.datasets import load_asia
        >>> load_asia().sample(2, random_state=0)[["smoke", "lung", "xray"]]
          smoke lung xray
        0   yes   no   no
        1   yes   no  yes
        """
        check_is_fitted(self)
        check_count(n_samples, "n_samples", f"{self._who}.sample")
        rng = self._rng() if random_state is None else np.random.default_rng(random_state)
        network = self.structure_
        chosen = rng.integers(self._n_draws, size=n_samples)
        values = np.empty((n_samples, network.n_columns))
        for s in np.unique(chosen):
            rows = np.flatnonzero(chosen == s)
            values[rows] = network.draw_rows(self._draw(int(s)), len(rows), rng)
        table = reading.decode(network, self.schema_, values)
        return (table, self._hidden(values)) if return_latent else table

    def _hidden(self, values: Array) -> Any:
        network = self.structure_
        shown = self.schema_.names
        columns = {}
        for v, name in enumerate(network.names):
            if name not in shown:
                states, column = network.states[v], values[:, v]
                whole = column if states is None else reading.array_of(states)[column.astype(int)]
                columns[name] = whole
        if len(columns) == 1:
            return next(iter(columns.values()))
        import pandas as pd

        return pd.DataFrame(columns, index=range(len(values)))

    def impute(self, X: Any, n_draws: int | None = None, random_state: Any = None) -> Any:
        """Fill in what is missing.

        Parameters
        ----------
        X : table of (n, D)
            NaN (None, of states) is filled; the rest stays.
        n_draws : int or None
            None fills with conditional means, and likeliest states; a number gives as many
            completed tables, each a joint draw given what is observed (multiple imputation).
        random_state : int or None

        Returns
        -------
        table of (n, D), or a list of `n_draws` tables
            Frames have a new index, from 0.

        Examples
        --------
        >>> import pandas as pd
        >>> from ppl_gen.datasets import load_asia
        >>> asia = load_asia()
        >>> holed = pd.DataFrame({"smoke": ["yes", None], "bronc": [None, "yes"]})
        >>> asia.impute(holed)
          smoke bronc
        0   yes   yes
        1   yes   yes
        >>> len(asia.impute(holed, n_draws=3, random_state=0))
        3
        """
        check_is_fitted(self)
        if n_draws is not None and (not isinstance(n_draws, int | np.integer) or n_draws < 1):
            raise ValueError(
                f"{self._who}.impute: n_draws is {n_draws!r}; expected None, or a whole number "
                "of tables, at least 1"
            )
        x, network = self._encode(X), self.structure_
        shown = list(X.columns) if is_frame(X) else self.schema_.names
        schema = self.schema_.take(shown)
        if n_draws is None:
            chosen = np.linspace(0, self._n_draws - 1, min(self._n_draws, 100)).astype(int)
            filled = fill(network, [self._draw(int(s)) for s in chosen], x)
            return reading.decode(network, schema, filled)
        rng = self._rng() if random_state is None else np.random.default_rng(random_state)
        tables = []
        for s in rng.integers(self._n_draws, size=n_draws):
            completed = draw_missing(network, self._draw(int(s)), x, rng)
            tables.append(reading.decode(network, schema, completed))
        return tables
