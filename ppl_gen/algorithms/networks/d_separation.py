"""Which nodes of a directed acyclic graph tell anything about which, given others.

A graph is ``parents``: for each node, numbered from zero, the numbers of its parents.
"""

from collections.abc import Collection, Iterable, Sequence

Parents = Sequence[Sequence[int]]


def children_of(parents: Parents) -> list[list[int]]:
    """Return the children of every node, in ascending order.

    Examples
    --------
    >>> children_of([(), (0,), (0, 1)])
    [[1, 2], [2], []]
    """
    children: list[list[int]] = [[] for _ in parents]
    for v, above in enumerate(parents):
        for parent in above:
            children[parent].append(v)
    return children


def ancestors(parents: Parents, nodes: Iterable[int]) -> set[int]:
    """Return the nodes from which a directed path leads to one of ``nodes``, and these themselves.

    Examples
    --------
    >>> ancestors([(), (0,), (), (1, 2), (3,)], [1])
    {0, 1}
    """
    found: set[int] = set()
    waiting = list(nodes)
    while waiting:
        v = waiting.pop()
        if v not in found:
            found.add(v)
            waiting.extend(parents[v])
    return found


def reachable(parents: Parents, sources: Iterable[int], given: Collection[int]) -> set[int]:
    """Return the nodes that an active trail joins to a source, where ``given`` are observed.

    Parameters
    ----------
    parents : sequence of sequences of int
        The parents of every node.
    sources : iterable of int
    given : collection of int
        The observed nodes; a source among them reaches nothing.

    Returns
    -------
    set of int
        Unobserved nodes, the unobserved sources among them.

    References
    ----------
    Koller and Friedman (2009), Probabilistic Graphical Models, algorithm 3.1.

    Examples
    --------
    A common effect joins its causes once it, or an effect of it, is observed.

    >>> collider = [(), (), (0, 1), (2,)]
    >>> reachable(collider, [0], given=[]), reachable(collider, [0], given=[3])
    ({0, 2, 3}, {0, 1, 2})
    """
    given = set(given)
    opened = ancestors(parents, given)  # a collider among these lets the trail through
    children = children_of(parents)
    visits = [(v, True) for v in sources]  # the trail comes from a child, or from a parent
    seen: set[tuple[int, bool]] = set()
    found: set[int] = set()
    while visits:
        visit = visits.pop()
        if visit in seen:
            continue
        seen.add(visit)
        v, from_child = visit
        if v not in given:
            found.add(v)
            visits.extend((child, False) for child in children[v])
            if from_child:
                visits.extend((parent, True) for parent in parents[v])
        if not from_child and v in opened:
            visits.extend((parent, True) for parent in parents[v])
    return found


def d_separated(
    parents: Parents, xs: Collection[int], ys: Collection[int], given: Collection[int] = ()
) -> bool:
    """Whether the graph makes ``xs`` independent of ``ys``, given the nodes ``given``.

    Parameters
    ----------
    parents : sequence of sequences of int
    xs, ys, given : collections of int
        Three sets with no node in common.

    Raises
    ------
    ValueError
        Where two of the sets share a node.

    References
    ----------
    Koller and Friedman (2009), Probabilistic Graphical Models, section 3.3.

    Examples
    --------
    >>> chain = [(), (0,), (1,)]
    >>> d_separated(chain, [0], [2]), d_separated(chain, [0], [2], given=[1])
    (False, True)
    """
    shared = (set(xs) & set(ys)) | (set(xs) & set(given)) | (set(ys) & set(given))
    if shared:
        raise ValueError(
            f"d_separated: nodes {sorted(shared)} are in more than one of xs, ys and given; "
            "the three must have no node in common"
        )
    return reachable(parents, xs, given).isdisjoint(ys)


def requisite(
    parents: Parents, targets: Iterable[int], evidence: Collection[int]
) -> tuple[list[int], list[int]]:
    """Return what a query needs: the nodes whose conditional tables, and the evidence, matter.

    ``p(targets | evidence)`` is proportional to the product of the tables of the first nodes at
    the evidence of the second, with all else summed out; no table of them mentions other evidence.
    Left out are barren nodes and whatever the evidence separates from the targets. The
    probability of the evidence itself needs more: the ancestors of all of it.

    Parameters
    ----------
    parents : sequence of sequences of int
    targets : iterable of int
        None of them observed.
    evidence : collection of int
        The observed nodes.

    Returns
    -------
    needed : list of int
        Ascending.
    observed : list of int
        Those of ``evidence`` that matter, ascending.

    References
    ----------
    Shachter (1998), Bayes-ball: the rational pastime, UAI: the nodes marked on the top, and the
    observed ones visited.

    Examples
    --------
    In a chain the nearest observations are enough.

    >>> requisite([(), (0,), (1,), (2,), (3,)], targets=[2], evidence=[0, 1, 3])
    ([2, 3], [1, 3])
    """
    evidence = set(evidence)
    children = children_of(parents)
    top: set[int] = set()
    bottom: set[int] = set()
    observed: set[int] = set()
    visits = [(v, True) for v in targets]  # the ball comes from a child, or from a parent
    while visits:
        v, from_child = visits.pop()
        if v in evidence:
            observed.add(v)
            passes_up, passes_down = not from_child, False
        else:
            passes_up, passes_down = from_child, True
        if passes_up and v not in top:
            top.add(v)
            visits.extend((parent, True) for parent in parents[v])
        if passes_down and v not in bottom:
            bottom.add(v)
            visits.extend((child, False) for child in children[v])
    return sorted(top), sorted(observed)
