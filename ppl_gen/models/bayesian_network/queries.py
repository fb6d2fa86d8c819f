"""Questions to a network, by names: conditional probabilities, likeliest states, information."""

import contextlib
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ppl_gen.algorithms.networks.elimination import maximise
from ppl_gen.algorithms.networks.elimination_orders import Cost, elimination_cost, maximising_order
from ppl_gen.estimator import GenerativeModel
from ppl_gen.models.bayesian_network.drawn import query_by_draws
from ppl_gen.models.bayesian_network.intervals import interval_frame
from ppl_gen.models.bayesian_network.naming import Evidence, Naming, SoftEvidence, listed
from ppl_gen.models.bayesian_network.reading import WHO, place_of
from ppl_gen.structures.bayesian_network.inference import mixed_moments
from ppl_gen.structures.bayesian_network.query import QueryPlan, WholePlan

if TYPE_CHECKING:
    import pandas as pd

Array = Any

#: A question that was asked once, without a plan of its own.
ASKED = object()
#: Below this, the probability of evidence may have lost digits to underflow.
SMALLEST = 1e-280


class Queries(Naming, GenerativeModel):
    """What can be asked of a network, whose CPDs are given or fitted.

    After a Bayesian fit every answer is averaged over the draws of the posterior, each weighed by
    the probability that it gives the evidence.
    """

    # -- probabilities -------------------------------------------------------------------------

    def query(
        self,
        nodes: Any,
        evidence: Evidence | None = None,
        soft_evidence: SoftEvidence | None = None,
        *,
        interval: float | None = None,
        method: str = "exact",
        n_samples: int = 10_000,
        random_state: Any = None,
    ) -> Any:
        """Return the distribution of some nodes, given evidence on others.

        Parameters
        ----------
        nodes : name or sequence of names
        evidence : dict of node to state (or number)
        soft_evidence : dict of node to likelihoods, optional
            Virtual evidence (Pearl 1988, section 2.2.2): p(what was seen | state) for each state,
            as a dict by state or a sequence in their order; only ratios matter.
        interval : float, optional
            After a Bayesian fit: also give the bounds of this central posterior interval of each
            probability, as a DataFrame.
        method : {"exact", "likelihood_weighting", "gibbs"}
            The last two draw, for networks past the bound of exact inference.
        n_samples : int
            Draws of these.
        random_state : int or None

        Returns
        -------
        pandas.Series
            Probabilities by state, in the order of the states; of several nodes, by a MultiIndex.
            Draws add ``attrs["standard_error"]`` and ``attrs["ess"]``.
        pandas.DataFrame
            Of nodes that are numbers: their mean and sd, with ``attrs["covariance"]``; or with an
            `interval`: probability, lower, upper.

        Raises
        ------
        ValueError
            If a node or state is unknown, the evidence has probability zero, or exact inference
            would take tables past the bound; the error says what to do.

        Examples
        --------
        >>> from ppl_gen.datasets import load_asia
        >>> asia = load_asia()
        >>> asia.query("lung", {"xray": "yes", "dysp": "yes"})
        lung
        yes    0.621253
        no     0.378747
        Name: probability, dtype: float64
        """
        check_is_fitted(self)
        network = self.structure_
        if interval is not None:
            self._check_interval(interval, method)
        targets = self._targets(nodes)
        codes, numbers = self._codes(evidence)
        likelihoods = self._likelihoods(soft_evidence)
        for v in targets:
            if v in codes or v in numbers:
                raise ValueError(
                    f"{WHO}.query: {network.names[v]!r} is asked for, and has evidence; leave one "
                    "out"
                )
        if method != "exact":
            return query_by_draws(
                self, targets, codes, numbers, likelihoods, method, n_samples, random_state
            )
        discrete = [v for v in targets if network.sizes[v]]
        if len(discrete) < len(targets):
            if interval is not None:
                raise ValueError(
                    f"{WHO}.query: interval={interval} is for probabilities of states, and "
                    f"{[network.names[v] for v in targets if v not in discrete]} are numbers"
                )
            if discrete:
                raise ValueError(
                    f"{WHO}.query: {[network.names[v] for v in discrete]} have states, and the "
                    "other nodes are numbers; ask for them apart"
                )
            return self._query_numbers(targets, codes, numbers, likelihoods)
        joint = self._joint(targets, codes, numbers, likelihoods)  # (S, *sizes)
        index = self._index(targets)
        import pandas as pd

        if interval is not None:
            return interval_frame(joint, index, interval)
        table = joint.sum(axis=0) if len(joint) > 1 else joint[0]
        return pd.Series((table / table.sum()).ravel(), index=index, name="probability", copy=False)

    def _check_interval(self, interval: float, method: str) -> None:
        if self._n_draws == 1:
            raise ValueError(
                f"{WHO}.query: interval={interval}, but the parameters are a point estimate; fit "
                "by 'conjugate', NUTS or SVI for a posterior"
            )
        if not 0.0 < interval < 1.0:
            raise ValueError(f"{WHO}.query: interval is {interval}; expected a share within (0, 1)")
        if method != "exact":
            raise ValueError(
                f"{WHO}.query: interval={interval}, which method={method!r} does not give, since "
                "it takes the posterior means of the parameters; use method='exact'"
            )

    def probability(
        self, evidence: Evidence, soft_evidence: SoftEvidence | None = None, *, log: bool = False
    ) -> float:
        """Return the probability (density, where numbers are observed) of evidence.

        Examples
        --------
        >>> from ppl_gen.datasets import load_asia
        >>> round(load_asia().probability({"smoke": "yes", "bronc": "yes"}), 12)
        0.3
        """
        check_is_fitted(self)
        codes, numbers = self._codes(evidence)
        each = self._log_evidence(codes, numbers, self._likelihoods(soft_evidence))
        found = float(np.logaddexp.reduce(each) - np.log(len(each)))
        if log:
            return found
        with np.errstate(over="ignore"):  # likelihoods may be of any size
            return float(np.exp(found))

    def map_query(
        self,
        nodes: Any = None,
        evidence: Evidence | None = None,
        soft_evidence: SoftEvidence | None = None,
    ) -> dict[Any, Any]:
        """Return the jointly likeliest states of some nodes, all else summed out.

        Parameters
        ----------
        nodes : name, sequence of names or None
            None takes every node without evidence: the most probable explanation.
        evidence, soft_evidence
            As in :meth:`query`.

        Returns
        -------
        dict of node to state

        Raises
        ------
        ValueError
            As by :meth:`query`. All else is summed out first, which may join the nodes that are
            asked for in one table, where that of all nodes would be small.

        Notes
        -----
        After a Bayesian fit, under the posterior means of the parameters.

        Examples
        --------
        >>> from ppl_gen.datasets import load_asia
        >>> load_asia().map_query(["lung", "bronc"], {"dysp": "yes"})
        {'lung': 'no', 'bronc': 'yes'}
        """
        check_is_fitted(self)
        network = self.structure_
        codes, numbers = self._codes(evidence)
        likelihoods = self._likelihoods(soft_evidence)
        everything = nodes is None
        targets = (
            tuple(v for v in network.discrete if v not in codes)
            if everything
            else self._targets(nodes)
        )
        for v in targets:
            if v in codes or not network.sizes[v]:
                what = "has evidence" if v in codes else "is a number"
                raise ValueError(f"{WHO}.map_query: {network.names[v]!r} {what}; leave it out")
        row = self._row(codes, numbers)
        network.check(row, (*targets, *likelihoods))
        part = network.evidence(self._means(), row, likelihoods)[0][1]
        if not np.isfinite(part.log_evidence[0]):
            raise self._impossible(codes, numbers)
        if everything:
            found = part.mode()[0][0][list(targets)]
        else:
            scopes, tables = part.factors
            if not tables:
                return {}
            orders = maximising_order(scopes, network.sizes, targets)
            cost = elimination_cost(scopes, network.sizes, orders[0] + orders[1])
            network.refuse_past_bound(cost, "ask for fewer nodes or for all (nodes=None)")
            found = maximise(scopes, [t[0] for t in tables], network.sizes, targets)[0]
        return {
            network.names[v]: (network.states[v] or ())[int(code)]
            for v, code in zip(targets, found, strict=True)
        }

    def entropy(self, nodes: Any, evidence: Evidence | None = None) -> float:
        """Return the entropy of the states of some nodes in nats, given evidence.

        Examples
        --------
        >>> from ppl_gen.datasets import load_asia
        >>> round(load_asia().entropy("smoke"), 6)  # as likely as not
        0.693147
        """
        shares = self.query(nodes, evidence).to_numpy()
        shares = shares[shares > 0.0]
        return -float((shares * np.log(shares)).sum())

    def mutual_information(
        self, x: Any, y: Any, evidence: Evidence | None = None, given: Any = ()
    ) -> float:
        """Return the mutual information of nodes in nats, given evidence or other nodes.

        Parameters
        ----------
        x, y : name or sequence of names
        evidence : dict, optional
            States that are known.
        given : name or sequence of names
            Nodes to average over: the conditional mutual information.

        Examples
        --------
        >>> from ppl_gen.datasets import load_asia
        >>> asia = load_asia()
        >>> round(asia.mutual_information("smoke", "lung"), 6)
        0.02244
        >>> asia.mutual_information("asia", "smoke") < 1e-12
        True
        """
        xs, ys, zs = (listed(names) for names in (x, y, given))
        if set(xs) & set(ys):
            raise ValueError(
                f"{WHO}.mutual_information: {xs} and {ys} have nodes in common; what a node tells "
                "of itself is its entropy"
            )
        joint = self.query([*xs, *ys, *zs], evidence)
        sizes = [
            len(self.structure_.states[place_of(self.structure_, n)] or ()) for n in xs + ys + zs
        ]
        table = joint.to_numpy().reshape(
            int(np.prod(sizes[: len(xs)])),
            int(np.prod(sizes[len(xs) : len(xs) + len(ys)])),
            int(np.prod(sizes[len(xs) + len(ys) :], dtype=int)),
        )
        z = table.sum(axis=(0, 1), keepdims=True)
        product = table.sum(axis=1, keepdims=True) * table.sum(axis=0, keepdims=True)
        seen = (table > 0.0) & (product > 0.0)  # what underflows adds nothing
        ratio = np.broadcast_to(z, table.shape)[seen] * table[seen] / product[seen]
        return max(float((table[seen] * np.log(ratio)).sum()), 0.0)

    # -- exact answers -------------------------------------------------------------------------

    def _tables(self) -> tuple[dict[str, Array], bool]:
        """Tables of all draws, or of the one without an axis for it; and whether there is one."""
        kept = self._plans.get("tables")
        if kept is None:
            single = self._n_draws == 1
            tables = {
                v: own["table"][0] if single else own["table"]
                for v, own in self.parameters_.items()
                if "table" in own
            }
            kept = self._plans["tables"] = (tables, single)
        found: tuple[dict[str, Array], bool] = kept
        return found

    def _means(self) -> dict[str, Any]:
        means = self._plans.get("means")
        if means is None:
            means = {
                v: {name: value.mean(axis=0) for name, value in own.items()}
                for v, own in self.parameters_.items()
            }
            self._plans["means"] = means
        found: dict[str, Any] = means
        return found

    def _joint(
        self,
        targets: tuple[int, ...],
        codes: dict[int, int],
        numbers: dict[int, float],
        likelihoods: dict[int, Array],
    ) -> Array:
        """Joint probability of states and evidence up to one constant, by draw: (S, *sizes)."""
        excluding = False
        if likelihoods:
            if any(v in codes and likelihoods[v][codes[v]] == 0.0 for v in likelihoods):
                raise self._impossible(codes, numbers)
            # Only ratios matter; scaled, any number of them neither overflows nor underflows.
            likelihoods = {v: own / own.max() for v, own in likelihoods.items() if v not in codes}
            excluding = not all(own.all() for own in likelihoods.values())
        key = (targets, tuple(codes), tuple(likelihoods), excluding)
        plan = self._plans.get(key)
        if plan is None and not (likelihoods or numbers):
            # What is asked for the first time may never be again.
            joint = self._joint_unplanned(key, codes)
            if joint is not None:
                return joint
        if plan is None or plan is ASKED:
            plan = self._plan(*key)
            self._remember(key, plan)
        if plan.guard is not None and not self._is_possible(plan.guard, codes, likelihoods):
            raise self._impossible(codes, numbers)
        if plan.tabular and not numbers:
            tables, single = self._tables()
            joint = plan.run(tables, list(codes.values()), likelihoods)
            joint = joint[None] if single else joint
            if joint.sum() > SMALLEST:
                return joint
        return self._joint_by_tree(targets, codes, numbers, likelihoods)

    def _joint_unplanned(self, key: tuple[Any, ...], codes: dict[int, int]) -> Array | None:
        """Return the same by the plan of the whole network, where that is small."""
        whole = self._plans.get(("whole", key[0]))
        if whole is None:
            whole = WholePlan(self.structure_, key[0])
            self._remember(("whole", key[0]), whole)
        if not whole.small:
            return None
        self._remember(key, ASKED)
        tables, single = self._tables()
        rounded = self._plans.get("rounded")
        if rounded is None:
            rounded = {v: t / t.sum(axis=-1, keepdims=True) for v, t in tables.items()}
            self._plans["rounded"] = rounded
        joint = whole.run(tables, rounded, codes)
        return (joint[None] if single else joint) if joint.sum() > SMALLEST else None

    def _plan(
        self,
        targets: tuple[int, ...],
        seen: tuple[int, ...],
        soft: tuple[int, ...],
        excluding: bool,
    ) -> QueryPlan:
        """Return the plan of a question, whose soft evidence may exclude states."""
        # Draws are weighed by all of the evidence, which their parameters share in.
        draws = self._n_draws > 1
        plan = QueryPlan(self.structure_, targets, seen, soft, whole=draws)
        tables, _ = self._tables()
        if plan.left_out and (
            excluding or any(not tables[str(v)].all() for v in plan.left_out if str(v) in tables)
        ):
            # Evidence that says nothing of the targets may exclude itself. Where to look is past
            # the bound, the targets' distribution still is not.
            with contextlib.suppress(ValueError):
                guard = QueryPlan(self.structure_, (), seen, soft, whole=True)
                plan.guard = guard if guard.tabular else None
        return plan

    def _is_possible(
        self, guard: QueryPlan, codes: dict[int, int], likelihoods: dict[int, Array]
    ) -> bool:
        key = ("possible", *codes.items())
        found = None if likelihoods else self._plans.get(key)
        if found is None:
            probability = guard.run(self._tables()[0], list(codes.values()), likelihoods)
            found = bool(
                probability > SMALLEST
                or np.isfinite(self._log_evidence(codes, {}, likelihoods)).any()
            )
            self._remember(key, found)
        return bool(found)

    def _joint_by_tree(
        self,
        targets: tuple[int, ...],
        codes: dict[int, int],
        numbers: dict[int, float],
        likelihoods: dict[int, Array],
    ) -> Array:
        """Return the same with numbers among the evidence, or with evidence that underflows.

        By the chain rule: each target in turn, in every state of those before it.
        """
        network = self.structure_
        sizes = tuple(network.sizes[v] for v in targets)
        cells = math.prod(sizes[:-1])
        # A row of all columns for every state of all targets but the last.
        width = max(len(network.names), sizes[-1])
        network.refuse_past_bound(Cost(len(sizes) - 1, cells * width, cells), "ask for fewer nodes")
        rows = np.repeat(self._row(codes, numbers), cells, axis=0)
        for v, column in zip(targets[:-1], np.indices(sizes[:-1]).reshape(-1, cells), strict=True):
            rows[:, v] = column
        network.check(rows, (targets[-1], *likelihoods))
        logs = np.full((self._n_draws, cells, sizes[-1]), -np.inf)
        for s in range(self._n_draws):
            for places, part in network.evidence(self._draw(s), rows, likelihoods):
                with np.errstate(divide="ignore"):
                    logs[s, places] = np.log(part.marginal((targets[-1],)))
                logs[s, places] += part.log_evidence[:, None]
        top = logs.max()
        if not np.isfinite(top):
            raise self._impossible(codes, numbers)
        joint: Array = np.exp(logs - top)
        return joint.reshape(self._n_draws, *sizes)

    def _query_numbers(
        self,
        targets: tuple[int, ...],
        codes: dict[int, int],
        numbers: dict[int, float],
        likelihoods: dict[int, Array],
    ) -> "pd.DataFrame":
        """Mean, deviation and covariance of numbers, mixed over states and draws."""
        import pandas as pd

        network = self.structure_
        row = self._row(codes, numbers)
        network.check(row, (*targets, *likelihoods))
        parts = [
            network.evidence(self._draw(s), row, likelihoods)[0][1] for s in range(self._n_draws)
        ]
        log_weights = np.array([part.log_evidence[0] for part in parts])
        if not np.isfinite(log_weights.max()):
            raise self._impossible(codes, numbers)
        weights = np.exp(log_weights - log_weights.max())
        weights /= weights.sum()
        means, spreads = zip(*(part.moments(targets) for part in parts), strict=True)
        mean, covariance = mixed_moments(weights, np.stack(means), np.stack(spreads))
        names = [network.names[v] for v in targets]
        frame = pd.DataFrame(
            {"mean": mean, "sd": np.sqrt(np.diag(covariance))},
            index=pd.Index(names, name="node", tupleize_cols=False),
        )
        frame.attrs["covariance"] = pd.DataFrame(covariance, names, names)
        return frame

    def _log_evidence(
        self, codes: dict[int, int], numbers: dict[int, float], likelihoods: dict[int, Array]
    ) -> Array:
        """Log probability of the evidence under every draw: (S,)."""
        row = self._row(codes, numbers)
        self.structure_.check(row, tuple(likelihoods))
        draws = (self._draw(s) for s in range(self._n_draws))
        parts = [self.structure_.evidence(draw, row, likelihoods)[0][1] for draw in draws]
        return np.array([part.log_evidence[0] for part in parts])

    def _row(self, codes: dict[int, int], numbers: dict[int, float]) -> Array:
        """Evidence as a row (1, V)."""
        row = np.full((1, len(self.structure_.names)), np.nan)
        for v, value in (*codes.items(), *numbers.items()):
            row[0, v] = value
        return row

    def _impossible(self, codes: dict[int, int], numbers: dict[int, float]) -> ValueError:
        """Return the error that evidence has probability zero."""
        network = self.structure_
        shown = {network.names[v]: (network.states[v] or ())[code] for v, code in codes.items()}
        far = {network.names[v]: value for v, value in numbers.items()}
        advice = "check it, or give the tables a prior (prior='bdeu')"
        if far:
            advice = f"{far} may be further off than a density reaches, or the wrong unit; {advice}"
        return ValueError(
            f"{WHO}: the evidence {shown | far} has probability zero under the network; {advice}"
        )
