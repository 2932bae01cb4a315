"""Best subset of regressors for one response: exact, by walking through all of them or by branch and bound.

Two questions. The *cheapest* subset minimizes RSS + price x columns, what an M-step with given variance asks.
The *profiled* one minimizes n log((RSS + extra) / n) + penalty x columns, the variance being (RSS + extra)
/ n: the joint optimum of coefficients and variance. As the logarithm is concave, the profiled subset is also
the cheapest one at price = penalty x its own variance / n. So every profiled optimum is a corner of the lower
convex hull of (columns, RSS), and cheapest subsets at a handful of prices find it and prove it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from amortnlme.solve.subset_kernels import DEPENDENT, best_subsets, relaxed_subset

#: Groups up to which all subsets are walked through.
WALK = 14
#: Nodes of the tree after which the best subset found is returned without a proof.
MOST_NODES = 50_000
#: Relative accuracy of the proof.
ACCURACY = 1e-7
MOST_PRICES = 40
#: A node takes over the separable part of its parent until so small a share of the groups is left.
RENEW = 0.8
#: Below this share of a column that no other explains, the bound of all columns is looked at too.
VOID = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Subset:
    """A subset of groups of regressors.

    Attributes
    ----------
    members : ndarray of bool, shape (n_groups,)
    rss : float
        Residual sum of squares.
    size : int
        Columns of the groups that are in.
    proven : bool
        No other subset is better; false where the search was cut short.
    """

    members: np.ndarray
    rss: float
    size: int
    proven: bool


def cheapest_subset(
    products: np.ndarray, first: np.ndarray, price: float, most_nodes: int = MOST_NODES
) -> Subset:
    """Minimize RSS + price x columns.

    Parameters
    ----------
    products : ndarray, shape (p + 1, p + 1)
        Sums of squares and products of the regressors and, last, the response; whatever is always in the
        regression has been projected out.
    first : ndarray of int, shape (n_groups + 1,)
        First column of every group, and p.
    price : float
        Of a column; positive, square of the unit of the response.
    most_nodes : int

    Returns
    -------
    Subset
    """
    first = np.asarray(first, dtype=np.int64)
    if len(first) - 1 <= WALK:
        rss, sets = subset_table(products, first)
        size = int(np.argmin(rss + price * np.arange(len(rss))))
        return Subset(_unpacked(sets[size], len(first) - 1), float(rss[size]), size, True)
    tree = _Tree(_scaled(products), first, price, most_nodes)
    tree.search()
    return tree.best()


def profiled_subset(
    products: np.ndarray,
    first: np.ndarray,
    n: int,
    extra: float,
    penalty: float,
    most_nodes: int = MOST_NODES,
) -> Subset:
    """Minimize n log((RSS + extra) / n) + penalty x columns.

    Parameters
    ----------
    products, first
        As for `cheapest_subset`.
    n : int
        Number of subjects.
    extra : float
        What the variance gains beside the residuals: the sum of the subjects' conditional variances.
    penalty : float
        Of a column, in units of -2 log-likelihood.
    most_nodes : int
        Of every tree.

    Returns
    -------
    Subset
    """
    first = np.asarray(first, dtype=np.int64)
    # A perfect fit without conditional variances has no finite optimum.
    least = 1e-12 * (products[-1, -1] + extra) + 1e-300

    def objective(rss: np.ndarray, size: np.ndarray) -> np.ndarray:
        return n * np.log(np.maximum(rss + extra, least) / n) + penalty * size

    if len(first) - 1 <= WALK:
        rss, sets = subset_table(products, first)
        size = int(np.argmin(objective(rss, np.arange(len(rss)))))
        return Subset(_unpacked(sets[size], len(first) - 1), float(rss[size]), size, True)
    return _profile_by_prices(_scaled(products), first, extra, penalty / n, objective, most_nodes)


def subset_table(products: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Best subset of every number of columns, by walking through all of them.

    Parameters
    ----------
    products, first
        As for `cheapest_subset`; at most 62 groups, and time doubles with each.

    Returns
    -------
    rss : ndarray, shape (p + 1,)
        Residual sum of squares; inf where the groups cannot make up that many columns.
    sets : ndarray of int64, shape (p + 1,)
        Bit g is set where group g is in.
    """
    rss, sets = np.empty(len(products)), np.empty(len(products), dtype=np.int64)
    best_subsets(np.ascontiguousarray(products, dtype=np.float64), np.asarray(first, np.int64), rss, sets)
    return rss, sets


def _profile_by_prices(
    products: np.ndarray,
    first: np.ndarray,
    extra: float,
    share: float,
    objective: Callable[[np.ndarray, np.ndarray], np.ndarray],
    most_nodes: int,
) -> Subset:
    """Walk along the hull of (columns, RSS) until no number of columns can hold anything better."""
    sizes = np.arange(first[-1] + 1)
    everything = _rss(products, np.arange(first[-1]))
    floor = np.full(len(sizes), everything)
    tree = _Tree(products, first, share * (products[-1, -1] + extra), most_nodes)
    # Relaxed bounds at falling prices rule out most of the hull for the price of one node each.
    for price in tree.price * 0.8 ** np.arange(20):
        if price < 0.5 * share * (everything + extra):
            break
        floor = np.maximum(floor, _Tree(products, first, price, 0).root_bound() - price * sizes)
    best, proven, tried = None, True, set[float]()
    price = tree.price
    for _ in range(MOST_PRICES):
        tried.add(price)
        tree = _Tree(products, first, price, most_nodes, None if best is None else best.members)
        tree.search()
        found = tree.best()
        proven &= found.proven
        value = float(objective(np.array(found.rss), np.array(found.size)))
        better = best is None or value < float(objective(np.array(best.rss), np.array(best.size)))
        if better:
            best = found
        floor = np.maximum(floor, tree.bound - price * sizes)
        assert best is not None
        missing = objective(floor, sizes) - float(objective(np.array(best.rss), np.array(best.size)))
        if better:
            price = share * (best.rss + extra)
            if price not in tried:
                continue
        worst = int(np.argmin(missing))
        price = share * (floor[worst] + extra)
        if missing[worst] >= -1e-6 or price in tried:
            proven &= bool(missing[worst] >= -1e-6)
            return Subset(best.members, best.rss, best.size, proven)
    assert best is not None
    return Subset(best.members, best.rss, best.size, False)


@dataclass(frozen=True, slots=True, eq=False)
class _Node:
    """What is in, what is undecided; start of the bound's search, a bound, and `separable_part` of then."""

    inside: np.ndarray
    undecided: np.ndarray
    b: np.ndarray
    bound: float
    part: np.ndarray
    n_then: int


class _Tree:
    """Branch and bound for the cheapest subset; columns are scaled to unit length.

    Every node holds groups that are in and groups that are undecided. `relaxed_subset` bounds it; groups
    whose change of side would lift the bound above the best known value are decided at once.
    """

    def __init__(
        self,
        products: np.ndarray,
        first: np.ndarray,
        price: float,
        most_nodes: int,
        start: np.ndarray | None = None,
    ) -> None:
        self.products, self.first, self.price = products, first, price
        self.width = np.diff(first)
        self.most_nodes, self.n_nodes = most_nodes, 0
        self.value, self.inside = np.inf, np.array([], dtype=np.int64)
        self.bound = -np.inf
        if most_nodes:
            for members in ([] if start is None else [np.flatnonzero(start)]) + [self.inside]:
                self._offer(self._improved(members))

    def best(self) -> Subset:
        """Return the cheapest subset found; proven unless the nodes ran out."""
        members = np.zeros(len(self.width), dtype=bool)
        members[self.inside] = True
        rss = _rss(self.products, self._columns(self.inside))
        return Subset(members, rss, int(self.width[members].sum()), self.n_nodes <= self.most_nodes)

    def root_bound(self) -> float:
        """Relaxed bound before any decision."""
        groups = np.arange(len(self.width))
        products, first = self._reduced(np.array([], dtype=np.int64), groups)
        part = separable_part(products[:-1, :-1], first)
        return self._relax(products, first, part, np.zeros(len(products) - 1), np.inf)[0]

    def search(self) -> None:
        """Visit nodes until nothing is left; `bound` is then a lower bound of everything."""
        nothing, groups = np.array([], dtype=np.int64), np.arange(len(self.width))
        stack = [_Node(nothing, groups, np.zeros(int(self.first[-1])), -np.inf, np.zeros(len(groups)), 0)]
        slack = ACCURACY * self.price
        while stack:
            node = stack.pop()
            if node.bound >= self.value - slack:
                continue
            self.n_nodes += 1
            if self.n_nodes > self.most_nodes:
                stack.append(node)
                break
            stack += self._split(node)
        self.bound = min([self.value - slack, *(node.bound for node in stack)])

    def _split(self, node: _Node) -> list[_Node]:
        """Children of a node that may hold something better, the more promising one last."""
        inside, undecided, b, part, n_then = node.inside, node.undecided, node.b, node.part, node.n_then
        while True:
            products, first = self._reduced(inside, undecided)
            paid = self.price * self.width[inside].sum()
            if len(undecided) <= WALK:
                rss, sets = subset_table(products, first)
                size = int(np.argmin(rss + self.price * np.arange(len(rss))))
                chosen = undecided[_unpacked(sets[size], len(undecided))]
                self._offer(np.concatenate([inside, chosen]))
                return []
            enough = self.value - paid - ACCURACY * self.price
            if len(undecided) <= RENEW * n_then or not n_then:
                part, n_then = separable_part(products[:-1, :-1], first), len(undecided)
            bound, gain, weight = self._relax(products, first, part, b, enough)
            if bound >= enough:
                return []
            out, into = bound + gain >= enough, bound - gain >= enough
            if not (out | into).any():
                break
            keep = ~(out | into)
            b = np.concatenate([b[first[g] : first[g + 1]] for g in np.flatnonzero(keep)] or [b[:0]])
            inside, undecided = np.concatenate([inside, undecided[into]]), undecided[keep]
            part = part[keep]
        if self.n_nodes % 10 == 1:
            self._offer(self._improved(np.concatenate([inside, undecided[weight > 0.5]])))
        g = int(np.argmax(np.minimum(weight, 1.0 - weight) + 1e-3 * weight))
        rest, kept = np.delete(undecided, g), np.delete(b, np.arange(first[g], first[g + 1]))
        known, part = bound + paid, np.delete(part, g)
        without = _Node(inside, rest, kept.copy(), known + max(0.0, -gain[g]), part, n_then)
        more = np.append(inside, undecided[g])
        within = _Node(more, rest, kept, known + max(0.0, gain[g]), part, n_then)
        return [without, within] if weight[g] >= 0.5 else [within, without]

    def _relax(
        self, products: np.ndarray, first: np.ndarray, part: np.ndarray, b: np.ndarray, enough: float
    ) -> tuple[float, np.ndarray, np.ndarray]:
        """Bound of a node, what deciding a group would add, and the relaxed indicator of every group."""
        cost = self.price * np.diff(first)
        gain = np.empty(len(cost))
        bound = relaxed_subset(products, part, first, cost, enough, b, gain)
        length = np.sqrt(np.add.reduceat(b**2, first[:-1]))
        weight = np.minimum(1.0, length * np.sqrt(part / cost))
        if part.min() < VOID:
            everything = _rss(products, np.arange(len(b)))
            if bound < everything:
                # The relaxation says little where regressors depend on each other.
                return everything, np.zeros_like(gain), weight
        return bound, gain, weight

    def _columns(self, groups: np.ndarray) -> np.ndarray:
        return columns_of(groups, self.first)

    def _reduced(self, inside: np.ndarray, undecided: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Products of the undecided groups with those inside projected out."""
        columns = np.append(self._columns(undecided), len(self.products) - 1)
        first = np.concatenate([[0], np.cumsum(self.width[undecided])])
        return _projected(self.products, self._columns(inside), columns), first.astype(np.int64)

    def _offer(self, groups: np.ndarray) -> None:
        value = _rss(self.products, self._columns(groups)) + self.price * self.width[groups].sum()
        if value < self.value:
            self.value, self.inside = float(value), np.sort(groups)

    def _improved(self, groups: np.ndarray) -> np.ndarray:
        """Add, drop and exchange single groups as long as that pays."""
        value = _rss(self.products, self._columns(groups)) + self.price * self.width[groups].sum()
        while True:
            trials = [groups, *(np.delete(groups, k) for k in range(len(groups)))]
            ends = [self._best_addition(trial) for trial in trials]
            best = int(np.argmin([end[0] for end in ends]))
            if ends[best][0] >= value - 1e-9 * abs(value):
                return groups
            value, groups = ends[best]

    def _best_addition(self, groups: np.ndarray) -> tuple[float, np.ndarray]:
        """Value and groups after taking in the best group, or none."""
        rest = np.setdiff1d(np.arange(len(self.width)), groups)
        products, first = self._reduced(groups, rest)
        saved = np.zeros(len(rest) + 1)
        for width in np.unique(self.width[rest]):
            same = np.flatnonzero(self.width[rest] == width)
            at = first[same][:, None] + np.arange(width)
            gram = products[at[:, :, None], at[:, None, :]]
            usable = np.linalg.eigvalsh(gram)[:, 0] > DEPENDENT
            cross = products[at[usable], -1]
            reduction = (cross * np.linalg.solve(gram[usable], cross[..., None])[..., 0]).sum(axis=1)
            saved[same[usable]] = reduction - self.price * width
        best = int(np.argmax(saved))
        value = products[-1, -1] + self.price * self.width[groups].sum() - saved[best]
        return float(value), np.append(groups, rest[best]) if best < len(rest) else groups


def separable_part(gram: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Diagonal that can be taken off a Gram matrix so that it stays positive semi-definite, one per group.

    Parameters
    ----------
    gram : ndarray, shape (p, p)
    first : ndarray of int, shape (n_groups + 1,)

    Returns
    -------
    ndarray, shape (n_groups,)
        Close to zero for regressors that nearly depend on others, and large for the others: s <= 1 / (largest
        eigenvalue of the group's block of the inverse), scaled by what all groups together allow.
    """
    p, ridge = len(gram), 1e-9 * np.trace(gram) / max(len(gram), 1)
    inverse = np.linalg.inv(gram + ridge * np.eye(p))
    width = np.diff(first)
    if (width == 1).all():
        alone = 1.0 / np.diagonal(inverse)
    else:
        edges = itertools.pairwise(first)
        alone = np.array([1.0 / np.linalg.eigvalsh(inverse[a:b, a:b])[-1] for a, b in edges])
    root = np.sqrt(np.repeat(np.maximum(alone, 0.0), width))
    part = alone / np.linalg.eigvalsh(root[:, None] * inverse * root)[-1]
    if part.min() > 2.0 * ridge:
        return part - 2.0 * ridge
    part = np.maximum(part - 2.0 * ridge, 0.0)
    for _ in range(20):
        if np.linalg.eigvalsh(gram - np.diag(np.repeat(part, width)))[0] >= -ridge:
            return np.maximum(part - ridge, 1e-300)
        part = 0.9 * part
    return np.full(len(width), 1e-300)


def columns_of(groups: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Columns of some groups, in their order.

    Parameters
    ----------
    groups : ndarray of int, shape (k,)
    first : ndarray of int, shape (n_groups + 1,)

    Returns
    -------
    ndarray of int
    """
    begin = first[groups]
    width = first[np.asarray(groups) + 1] - begin
    within = np.arange(width.sum()) - np.repeat(np.cumsum(width) - width, width)
    return np.repeat(begin, width) + within


def _projected(products: np.ndarray, inside: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Products of some columns after those inside have been projected out."""
    block = products[np.ix_(columns, columns)]
    if not len(inside):
        return np.ascontiguousarray(block)
    cross = products[np.ix_(inside, columns)]
    factor = cho_factor(products[np.ix_(inside, inside)] + 1e-13 * np.eye(len(inside)))
    return np.ascontiguousarray(block - cross.T @ cho_solve(factor, cross))


def _rss(products: np.ndarray, columns: np.ndarray) -> float:
    """Residual sum of squares of the regression on some columns; dependent ones add nothing."""
    if not len(columns):
        return float(products[-1, -1])
    gram, cross = products[np.ix_(columns, columns)], products[columns, -1]
    beta = np.linalg.lstsq(gram, cross, rcond=DEPENDENT)[0]
    return max(float(products[-1, -1] - cross @ beta), 0.0)


def _scaled(products: np.ndarray) -> np.ndarray:
    """Scale the regressors, not the response, to unit length."""
    length = np.sqrt(np.append(np.diagonal(products)[:-1], 1.0))
    scale = 1.0 / np.where(length > 0.0, length, 1.0)
    return np.ascontiguousarray(scale[:, None] * products * scale)


def _unpacked(members: np.int64, n_groups: int) -> np.ndarray:
    return (int(members) >> np.arange(n_groups)) & 1 == 1
