"""The density of rows of a network with numbers, in any array library, with gradients.

Which columns may be missing is static, the network's `hidden`: sums run over these nodes only.
"""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_gen.algorithms.arrays import array_namespace, beside, chosen, integers_beside
from ppl_gen.algorithms.networks.scan import IMPOSSIBLE, Factor, sum_out
from ppl_gen.structures.bayesian_network.conditionals import Tabular, set_number

if TYPE_CHECKING:
    from ppl_gen.structures.bayesian_network.network import Network

Array = Any
Parameters = dict[str, Any]
Scope = tuple[int, ...]

#: Numbers past this have no density: their squares overflow, in units of most deviations.
HUGE = 1e150


def with_set_numbers(network: "Network", x: Array) -> Array:
    """Return rows (n, V) that show the numbers which were set, where they lack them."""
    known = [set_number(conditional) for conditional in network.conditionals]
    if all(number is None for number in known):
        return x
    xp = array_namespace(x)
    return xp.where(xp.isnan(x), beside(x, np.array(known, dtype=np.float64)), x)


def refuse_huge(network: "Network", x: Array) -> None:
    """Raise ValueError for rows (n, V) with numbers whose squares are past what doubles hold."""
    numbers = [v for v, size in enumerate(network.sizes) if not size]
    huge = np.abs(x[:, numbers]) > HUGE
    if huge.any():
        row, place = np.argwhere(huge)[0]
        v = numbers[int(place)]
        raise ValueError(
            f"BayesianNetwork: {network.names[v]!r} is {x[row, v]:g}, whose square is past what "
            f"doubles hold; expected a number within {HUGE:g}; check it, or its unit"
        )


def log_density(
    network: "Network", parameters: Parameters, x: Array, node: int | None = None
) -> Array:
    """Log density of what each row (n, V) shows, in nats: (n,).

    Of a discrete `node`: jointly with each of its states, (n, size).
    """
    xp, x = array_namespace(x), with_set_numbers(network, x)
    missing = xp.isnan(x)
    filled = xp.where(missing, xp.zeros_like(x), x)
    whole = beside(x, np.asarray(network.whole, dtype=np.float64)) > 0.0
    codes = xp.astype(xp.where(whole, filled, xp.zeros_like(x)), xp.int64)
    keep = () if node is None else (node,)
    hidden = {*network.hidden, *keep}
    opened = tuple(v for v in sorted(hidden) if network.sizes[v])
    gaps = [group for group in network.groups if set(group.nodes) & set(network.hidden)]
    inside = {v for group in gaps for v in group.nodes}
    total = xp.zeros_like(x[:, 0])
    factors: list[Factor] = []
    for scope, table in _factors(network, parameters, filled, missing, inside):
        left, cut = _cut(scope, table, codes, opened)
        if left:
            factors.append((left, cut))
        else:
            total = total + cut
    for group in gaps:
        log_prob = group.family.log_prob(group.joint(parameters), _columns(x, group.nodes))
        table = xp.reshape(log_prob, (x.shape[0], *group.sizes))
        left, cut = _cut(group.boundary, table, codes, opened)
        factors.append((left, cut))
    for v in opened:
        same = codes[:, v : v + 1] == integers_beside(x, np.arange(network.sizes[v]))
        zero = xp.zeros_like(x[:, :1])
        factors.append(((v,), xp.where(missing[:, v : v + 1] | same, zero, zero + IMPOSSIBLE)))
    if factors:
        total = xp.reshape(total, (-1, *(1 for _ in keep)))
        total = total + sum_out(xp, factors, network.sizes, keep)
    return total


def _factors(
    network: "Network", parameters: Parameters, filled: Array, missing: Array, inside: set[int]
) -> Any:
    """Yield scopes and log tables: (*sizes), or (n, *sizes) where numbers matter."""
    xp = array_namespace(filled)
    for v, conditional in enumerate(network.conditionals):
        if v in inside and set_number(conditional) is None:
            continue
        table = conditional.log_table(parameters[str(v)], filled)
        if isinstance(conditional, Tabular) or set_number(conditional) is not None:
            low = xp.zeros_like(table) + IMPOSSIBLE
            yield conditional.scope, xp.where(table < IMPOSSIBLE, low, table)
            continue
        loose = [u for u in conditional.numbers if u in network.hidden]
        if loose:  # nothing is known below: any distribution sums to one
            unknown = xp.any(xp.stack([missing[:, u] for u in loose], axis=1), axis=1)
            unknown = xp.reshape(unknown, (-1, *(1 for _ in conditional.scope)))
            flat = xp.zeros_like(table) - math.log(table.shape[-1])
            table = xp.where(unknown, flat, table)
        yield conditional.scope, table


def _cut(scope: Scope, table: Array, codes: Array, opened: Scope) -> tuple[Scope, Array]:
    """Cut a log table at the codes of the nodes that are observed: (n, *sizes of the others)."""
    xp = array_namespace(codes)
    batched = table.ndim - len(scope)
    seen = [axis for axis, v in enumerate(scope) if v not in opened]
    left = [axis for axis, v in enumerate(scope) if v in opened]
    if not seen:
        return scope, table if batched else table[None]
    table = xp.permute_dims(
        table, (*range(batched), *(a + batched for a in seen), *(a + batched for a in left))
    )
    own = xp.stack([codes[:, scope[axis]] for axis in seen], axis=1)
    if batched:
        rows = integers_beside(codes, np.arange(table.shape[0]))
        own = xp.concat([rows[:, None], own], axis=1)
    return tuple(scope[axis] for axis in left), chosen(table, own)


def _columns(x: Array, nodes: Scope) -> Array:
    xp = array_namespace(x)
    return xp.stack([x[:, v] for v in nodes], axis=1)
