"""Distances, and what is missing, under several normal distributions at once.

A normal of class k is given by its mean and a triangular factor U of its precision,
P = U U', so that whitening is one matrix product and the log determinant a sum over the
diagonal. Missing entries are NaN. All functions take (n, D) rows and K classes and run on any
array namespace; on NumPy they take the fastest exact route the data allow.
"""

from typing import Any, NamedTuple

import numpy as np

from ppl_gen.algorithms.arrays import array_namespace, beside
from ppl_gen.algorithms.row_chunks import map_rows

Array = Any

#: Rows that place the origin of sums.
NEAR_ROWS = 100
#: Nats of rounding allowed before a squared distance is no longer expanded into products.
ROUNDING_NATS = 1e-10


def whitened_distance(x: Array, mean: Array, factor: Array) -> Array:
    """Squared Mahalanobis distance of every row to every class.

    Parameters
    ----------
    x : (n, D), without NaN
    mean : (K, D)
    factor : (K, D, D) or (D, D)
        Triangular U with precision P = U U'.

    Returns
    -------
    (n, K)
    """
    xp = array_namespace(x, mean, factor)
    n_classes, n_columns = mean.shape
    if factor.ndim == 2:
        factor = xp.broadcast_to(factor, (n_classes, n_columns, n_columns))
    # All whitening in one product, the means in it as a last column, and classes along the rows:
    # summing over the middle axis of (K, D, n) vectorises, summing over the last of (n, K, D)
    # does not.
    turned = xp.matrix_transpose(factor)
    centre = turned @ mean[:, :, None]
    stacked = xp.reshape(xp.concat([turned, -centre], axis=2), (n_classes * n_columns, -1))
    lifted = xp.concat([x.T, xp.ones_like(x[:, :1]).T], axis=0)
    z = stacked @ lifted
    z = z * z if xp is not np else np.multiply(z, z, out=z)
    return xp.sum(xp.reshape(z, (n_classes, n_columns, -1)), axis=1).T


def diagonal_distance(x: Array, observed: Array | None, mean: Array, scale: Array) -> Array:
    """Squared distance of every row to every class, in units of each column's deviation.

    Parameters
    ----------
    x : (n, D)
        Rows, with zeros where ``observed`` is 0.
    observed : (n, D) or None
        1.0 where there is a value, 0.0 where it is missing; None for a complete table.
    mean : (K, D)
    scale : (K, D)
        Reciprocal standard deviations.

    Returns
    -------
    (n, K)
    """
    xp = array_namespace(x, mean, scale)
    precision = scale * scale
    if xp is np and _expansion_is_safe(x, mean, precision):
        centre = mean * precision
        constant = mean * centre
        if observed is not None:
            return (x * x) @ precision.T - 2.0 * (x @ centre.T) + observed @ constant.T
        # One product, which passes over the (n, K) result once.
        return lifted(x) @ np.vstack([precision.T, -2.0 * centre.T, constant.sum(axis=1)])
    z = (x[:, None, :] - mean) * scale
    if observed is not None:
        z = z * observed[:, None, :]
    return xp.sum(z * z, axis=-1)


def lifted(x: Array) -> Array:
    """Rows with what squares expand into: (n, D) -> (n, 2 D + 1) of squares, values and ones."""
    width = x.shape[1]
    found = np.empty((len(x), 2 * width + 1))
    np.multiply(x, x, out=found[:, :width])
    found[:, width:-1] = x
    found[:, -1] = 1.0
    return found


def _expansion_is_safe(x: Array, mean: Array, precision: Array) -> bool:
    """Tell whether (x - m)^2 p may be taken as x^2 p - 2 x m p + m^2 p without loss."""
    if x.shape[0] == 0:
        return True
    largest = np.abs(x.T, order="C").max(axis=1)  # long rows are quick to scan
    terms = precision * (largest + np.abs(mean)) ** 2
    return bool(terms.sum(axis=1).max() * np.finfo(np.float64).eps < ROUNDING_NATS)


def diagonal_sums(values: Array, observed: Array | None, r: Array) -> dict[str, Array]:
    """Sums over what is observed: with independent columns these are sufficient."""
    xp = array_namespace(values, r)
    if observed is None and xp is np:
        width = values.shape[1]
        sums = r.T @ lifted(values)
        count = np.broadcast_to(sums[:, -1:], (len(sums), width))
        return {"count": count, "sum": sums[:, width:-1], "square": sums[:, :width]}
    if observed is None:
        count = xp.broadcast_to(xp.sum(r, axis=0)[:, None], (r.shape[1], values.shape[1]))
    else:
        count = r.T @ observed
    return {"count": count, "sum": r.T @ values, "square": r.T @ (values * values)}


def crossed(a: Array, b: Array, covariance_type: str) -> Array:
    """Outer products of the rows of a and b, by class, or summed over the classes if tied."""
    return a.T @ b if covariance_type == "tied" else a[:, :, None] * b[:, None, :]


def default_prior(
    x: Array,
    n_classes: int,
    moments: tuple[Array, Array, bool],
    floor: float | Array,
    *,
    diagonal: bool,
) -> dict[str, Any]:
    """Terms of a conjugate prior scaled to the data (Fraley & Raftery, J. Classif. 24, 2007).

    Parameters
    ----------
    x : (n, D)
    n_classes : int
    moments : (D,), (D,), bool
        Means and variances of what is observed, and whether anything is missing.
    floor : float or (D,)
        Added to every variance.
    diagonal : bool
        Whether columns are independent within a class.
    """
    mean, variances, missing = moments
    width = x.shape[1]
    shrink = n_classes ** (-2.0 / width)
    if diagonal:
        scale, dof = (variances + np.maximum(floor, 1e-12)) * shrink, 3.0
    else:
        if missing or len(x) < 2:
            # Available pairs need not make a positive definite matrix: keep the variances.
            spread = np.diag(variances)
        else:
            spread = np.atleast_2d(np.cov(x.T, bias=True))
        scale, dof = (spread + np.maximum(floor, 1e-12) * np.eye(width)) * shrink, width + 2.0
    return {"mean": mean, "shrinkage": 0.01, "dof": dof, "scale": scale}


def about_given_mean(statistics: dict[str, Array], mean: Array, kind: str) -> dict[str, Array]:
    """Statistics whose mean is a given one (K, D), with the same spread about it."""
    count, total, square = statistics["count"], statistics["sum"], statistics["square"]
    expected = mean * (count if count.ndim == 2 else count[:, None])
    if kind in ("diag", "spherical"):
        square = square - 2.0 * mean * total + 2.0 * mean * expected
    else:
        # Less what the observed sum says of the mean, plus what the given one says.
        square = square - crossed(mean, total, kind) - crossed(total, mean, kind)
        square = square + 2.0 * crossed(expected, mean, kind)
    return {"count": count, "sum": expected, "square": square}


class Conditional(NamedTuple):
    """What the observed entries of each row say of the missing ones, for every class.

    Attributes
    ----------
    deviation : (K, n, D)
        E[x | observed] - mean: the deviation itself where observed, its conditional mean
        where missing.
    log_det : (n, K)
        log det of the precision of the missing entries (0 for a complete row).
    blocks : list of (rows, missing, covariance)
        Rows (r,) with the same number m of missing entries, the places (r, m) of these, and
        their conditional covariance (m, m, K, r). The dense route has one block whose
        covariance is the (D, D, K, n) embedding, zero at observed places.
    """

    deviation: Array
    log_det: Array
    blocks: list[tuple[Array, Array | None, Array]]


def conditional(x: Array, mean: Array, factor: Array) -> Conditional:
    """Condition every class's normal on the observed entries of each row.

    With P the precision and d the deviations (zero where missing), the missing ones have
    conditional covariance (P_mm)^-1 and conditional mean -(P_mm)^-1 (P d)_m; and the
    observed ones have log det(cov_oo) = log det(cov) + log det(P_mm): only blocks of the
    size of what is missing are ever inverted.

    Parameters
    ----------
    x : (n, D), NaN where missing
    mean : (K, D)
    factor : (K, D, D) or (D, D)
        Triangular U with precision P = U U'.
    """
    xp = array_namespace(x, mean, factor)
    n_classes, n_columns = mean.shape
    if factor.ndim == 2:
        factor = xp.broadcast_to(factor, (n_classes, n_columns, n_columns))
    missing = xp.isnan(x)
    # NaN is replaced before any arithmetic: the gradient through where(isnan, 0, f(x)) is NaN.
    filled = xp.where(missing, xp.zeros_like(x), x)
    deviation = xp.where(missing[None], xp.zeros_like(x), filled[None] - mean[:, None, :])
    precision = factor @ xp.matrix_transpose(factor)
    pull = (deviation @ factor) @ xp.matrix_transpose(factor)  # (K, n, D): P d
    if xp is np:
        return _by_count(missing, deviation, precision, pull)
    return _dense(xp, missing, deviation, precision, pull)


def _by_count(missing: Array, deviation: Array, precision: Array, pull: Array) -> Conditional:
    """Condition the rows that miss m entries together: small blocks, no padding."""
    n_classes, n_rows, _ = deviation.shape
    log_det = np.zeros((n_rows, n_classes))
    blocks: list[tuple[Array, Array | None, Array]] = []
    counts = missing.sum(axis=1)
    classes = np.arange(n_classes)[:, None]
    for count in np.unique(counts[counts > 0]):
        rows = np.flatnonzero(counts == count)
        places = np.nonzero(missing[rows])[1].reshape(len(rows), count)
        # Batch axes last, so that each step of the sweep is one long vector operation.
        block = precision[:, places.T[:, None, :], places.T[None, :, :]]
        covariance, log_pivots = sweep(np.ascontiguousarray(np.moveaxis(block, 0, 2)))
        log_det[rows] = log_pivots.T
        block_pull = pull[classes, rows[None, :], places.T[:, None, :]]  # (m, K, r)
        deviation[classes, rows[None, :], places.T[:, None, :]] = -np.einsum(
            "ijkr,jkr->ikr", covariance, block_pull
        )
        blocks.append((rows, places, covariance))
    return Conditional(deviation, log_det, blocks)


def _dense(xp: Any, missing: Array, deviation: Array, precision: Array, pull: Array) -> Conditional:
    """Condition with shapes that do not depend on the pattern, for traced arrays.

    The block P_mm is embedded in (D, D) with ones on the diagonal of what is observed.
    """
    n_columns = precision.shape[-1]
    absent = xp.astype(missing, precision.dtype)[None]  # (1, n, D)
    outer = absent[..., :, None] * absent[..., None, :]
    unit = beside(precision, np.eye(n_columns))
    embedded = precision[:, None] * outer + unit * (1.0 - absent)[..., None, :]
    log_det = 2.0 * xp.sum(
        xp.log(xp.linalg.diagonal(xp.linalg.cholesky(embedded))), axis=-1
    )  # (K, n)
    inverse = xp.linalg.solve(embedded, xp.broadcast_to(unit, embedded.shape))
    covariance = inverse * outer
    fill = -xp.sum(covariance * (pull * absent)[..., None, :], axis=-1)
    everything = xp.permute_dims(covariance, (2, 3, 0, 1))
    return Conditional(deviation + fill, log_det.T, [(slice(None), None, everything)])


def sweep(matrices: Array) -> tuple[Array, Array]:
    """Invert symmetric positive definite matrices in place by Gauss-Jordan sweeps.

    Parameters
    ----------
    matrices : (m, m, ...)
        The batch lies in the last axes. Overwritten.

    Returns
    -------
    inverse : (m, m, ...)
    log_det : (...)

    Notes
    -----
    Beaton's sweep operator (Goodnight, The American Statistician 33, 1979). Without pivoting
    it is stable for positive definite matrices, whose pivots are conditional precisions.

    Examples
    --------
    >>> inverse, log_det = sweep(np.array([[2.0, 1.0], [1.0, 2.0]])[..., None])
    >>> np.allclose(inverse[..., 0], [[2 / 3, -1 / 3], [-1 / 3, 2 / 3]])
    True
    >>> bool(np.isclose(log_det[0], np.log(3)))
    True
    """
    log_det = np.zeros(matrices.shape[2:])
    for pivot in range(matrices.shape[0]):
        size = matrices[pivot, pivot].copy()
        log_det += np.log(size)
        column = matrices[:, pivot] / size
        row = matrices[pivot].copy()
        matrices -= column[:, None] * row[None, :]
        matrices[:, pivot] = column
        matrices[pivot] = column
        matrices[pivot, pivot] = -1.0 / size
    return np.negative(matrices, out=matrices), log_det


def _amid(x: Array) -> Array:
    """A point amid the data: medians of the first rows, or of what first is there: (D,)."""
    head = np.sort(x[:NEAR_ROWS], axis=0)  # NaN comes last
    count = (~np.isnan(head)).sum(axis=0)
    columns = np.arange(x.shape[1])
    near = head[np.maximum(count - 1, 0) // 2, columns]
    for place in np.flatnonzero(count == 0):
        near[place] = x[np.flatnonzero(~np.isnan(x[:, place]))[0], place]
    return near


def column_moments(x: Array) -> tuple[Array, Array, bool]:
    """Means and variances of the columns over what is observed, and whether any is missing."""
    # Sums about a point amid the data lose no digits, and one pass is enough.
    near = _amid(x)

    def sums(rows: slice) -> tuple[Array, Array, Array, bool]:
        away = x[rows] - near
        missing = bool(np.isnan(away.sum()))
        if missing:
            absent = np.isnan(away)
            away[absent] = 0.0
            count = (~absent).sum(axis=0)
        else:
            count = np.full(x.shape[1], len(away))
        return count, away.sum(axis=0), np.einsum("nd,nd->d", away, away), missing

    parts = map_rows(sums, len(x))
    count, total, square = (np.sum([part[i] for part in parts], axis=0) for i in range(3))
    mean = total / count
    variance = np.maximum(square / count - mean**2, 0.0)
    return near + mean, variance, any(part[3] for part in parts)


def precision_factor(covariance: Array) -> Array:
    """Upper triangular U with P = U U', from covariances (..., D, D).

    Raises
    ------
    ValueError
        If a covariance is not positive definite.
    """
    from scipy.linalg.lapack import dtrtri

    try:
        lower = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError as error:
        raise ValueError(
            "Normal: a covariance is not positive definite, as when a class has fewer rows than "
            "columns or two columns are collinear; increase the floor of variances (reg_covar or "
            "min_covar, as the model has it), set prior='default', or use fewer classes or "
            "covariance_type='diag'"
        ) from error
    flat = lower.reshape(-1, *covariance.shape[-2:])
    # Not solve_triangular: OpenBLAS wakes its threads for it however small the matrix, and waits
    # milliseconds for them where another process has the core.
    factors = np.stack([dtrtri(block, lower=1)[0].T for block in flat])
    return factors.reshape(covariance.shape)


def reciprocal_deviations(variance: Array) -> Array:
    """Reciprocal standard deviations.

    Raises
    ------
    ValueError
        If a variance is zero.
    """
    if not (variance > 0.0).all():
        raise ValueError(
            "Normal: a variance is zero, as when a class has one row or a column is constant; "
            "increase the floor of variances (reg_covar, var_smoothing or min_covar, as the model "
            "has it), or use fewer classes"
        )
    return variance**-0.5
