"""Best subsets of regressors, compiled: a walk through all of them, and a bound for too many to walk through.

All of it works on the matrix of sums of squares and products of regressors and response, from which what is
always in the regression has been swept out. Columns of one group enter together.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

#: A column with less than this share of its own sum of squares left depends on those in the subset.
DEPENDENT = 1e-10
MOST_SWEEPS = 200


@njit(cache=True, nogil=True, error_model="numpy")
def best_subsets(products, first, best_rss, best_set):
    """Smallest residual sum of squares of every number of columns, over all subsets of groups.

    Parameters
    ----------
    products : ndarray, shape (p + 1, p + 1)
        Sums of squares and products; the response comes last.
    first : ndarray of int64, shape (n_groups + 1,)
        First column of every group, and p.
    best_rss : ndarray, shape (p + 1,)
        Overwritten; inf where no subset has so many columns.
    best_set : ndarray of int64, shape (p + 1,)
        Overwritten: bit g is set where group g is in; at most 62 groups.

    Notes
    -----
    Depth first, each subset from the one without its last group (Furnival & Wilson 1974): a handful of
    operations per subset, and rounding errors of as many sweeps as there are groups in it, no more.
    """
    n_groups, p = len(first) - 1, products.shape[0] - 1
    swept = np.empty((n_groups + 1, p + 1, p + 1))
    following = np.zeros(n_groups + 1, dtype=np.int64)
    members = np.zeros(n_groups + 1, dtype=np.int64)
    columns = np.zeros(n_groups + 1, dtype=np.int64)
    swept[0] = products
    for size in range(p + 1):
        best_rss[size], best_set[size] = math.inf, 0
    best_rss[0] = products[p, p]
    level = 0
    while level >= 0:
        group = following[level]
        if group == n_groups:
            level -= 1
            continue
        following[level] += 1
        begin, end = first[group], first[group + 1]
        here, new = swept[level], swept[level + 1]
        # Later groups are all that the subsets below this one can still take.
        for a in range(begin, p + 1):
            for b in range(begin, p + 1):
                new[a, b] = here[a, b]
        taken = 0
        for k in range(begin, end):
            pivot = new[k, k]
            if not pivot > DEPENDENT * products[k, k]:
                continue
            taken += 1
            for a in range(k + 1, p + 1):
                share = new[a, k] / pivot
                for b in range(k + 1, p + 1):
                    new[a, b] -= share * new[k, b]
        if taken == 0:
            continue
        size = columns[level] + end - begin
        level += 1
        columns[level] = size
        members[level] = members[level - 1] | (np.int64(1) << group)
        following[level] = group + 1
        rss = max(new[p, p], 0.0)
        if rss < best_rss[size]:
            best_rss[size], best_set[size] = rss, members[level]


@njit(cache=True, nogil=True, error_model="numpy")
def relaxed_subset(products, part, first, cost, enough, b, gain):
    """Lower bound of RSS plus the cost of the groups in, over all subsets; see Notes.

    Parameters
    ----------
    products : ndarray, shape (p + 1, p + 1)
    part : ndarray, shape (n_groups,)
        s_g such that the products of the regressors minus diag(s) are positive semi-definite.
    first : ndarray of int64, shape (n_groups + 1,)
    cost : ndarray, shape (n_groups,)
        Of taking a group in.
    enough : float
        The search for a good bound stops when it reaches this.
    b : ndarray, shape (p,)
        Start of the search; overwritten by where it ended.
    gain : ndarray, shape (n_groups,)
        Overwritten: cost minus what the group can save in the bound. The bound rises by a positive one if
        the group must be in, by minus a negative one if it must be out.

    Returns
    -------
    float

    Notes
    -----
    With G = Q + diag(s) the columns of diag(s) do not see each other, so that the indicator of group g can
    be relaxed together with its quadratic term (perspective): min over 0 < z <= 1 of s |b|^2 / z + cost z.
    The remaining problem is convex, and Q replaced by its tangent at any b gives a bound that needs no
    optimal b: y'y - b'Q b + sum_g min(0, cost_g - |q_g|^2 / s_g), q = Q b - X'y.
    """
    p, n_groups = products.shape[0] - 1, len(first) - 1
    owner = np.empty(p, dtype=np.int64)
    curvature = np.zeros(n_groups)
    for g in range(n_groups):
        for a in range(first[g], first[g + 1]):
            owner[a] = g
            # Row sums bound the largest eigenvalue of a group's block of Q; exact for single columns.
            row = abs(products[a, a] - part[g])
            for c in range(first[g], first[g + 1]):
                row += abs(products[a, c]) if c != a else 0.0
            curvature[g] = max(curvature[g], row)
        curvature[g] = max(curvature[g], 1e-9 * (part[g] + 1e-300))
    qb = np.zeros(p)
    for a in range(p):
        for c in range(p):
            qb[a] += products[a, c] * b[c]
        qb[a] -= part[owner[a]] * b[a]
    best, last = -math.inf, -math.inf
    trial = np.empty(n_groups)
    for _ in range(MOST_SWEEPS):
        bound = products[p, p]
        for a in range(p):
            bound -= b[a] * qb[a]
        for g in range(n_groups):
            square = 0.0
            for a in range(first[g], first[g + 1]):
                square += (qb[a] - products[a, p]) ** 2
            trial[g] = cost[g] - square / part[g] if square > 0.0 else cost[g]
            bound += min(0.0, trial[g])
        if bound > best:
            best = bound
            for g in range(n_groups):
                gain[g] = trial[g]
        if best >= enough or abs(bound - last) <= 1e-9 * abs(products[p, p]):
            break
        last = bound
        for g in range(n_groups):
            _move(products, part[g], cost[g], first[g], first[g + 1], curvature[g], owner, part, b, qb)
    return best


@njit(cache=True, nogil=True, error_model="numpy")
def _move(products, s, cost, begin, end, curvature, owner, part, b, qb):
    """Minimize the relaxed problem over one group, its block of Q replaced by curvature times identity."""
    p = products.shape[0] - 1
    square = 0.0
    for a in range(begin, end):
        square += (curvature * b[a] - qb[a] + products[a, p]) ** 2
    length = math.sqrt(square)
    # |b| of the new point: zero, the linear part of the relaxed cost, or the quadratic one.
    corner = math.sqrt(cost * s)
    if length <= corner:
        new = 0.0
    else:
        new = (length - corner) / curvature
        if new * new * s > cost:
            new = length / (curvature + s)
    scale = new / length if length > 0.0 else 0.0
    target = np.empty(end - begin)
    for a in range(begin, end):
        target[a - begin] = scale * (curvature * b[a] - qb[a] + products[a, p])
    for a in range(begin, end):
        step = target[a - begin] - b[a]
        if step == 0.0:
            continue
        b[a] += step
        for c in range(p):
            qb[c] += products[c, a] * step
        qb[a] -= part[owner[a]] * step
