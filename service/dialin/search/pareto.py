"""Several metrics at once: who dominates whom, the fronts, how crowded they are, and the volume that a front dominates.

Pure functions of arrays; every array of values is (n, m), n points in m metrics, in which larger is better, and finite.

Deb et al. 2002, A fast and elitist multiobjective genetic algorithm: NSGA-II (fronts by non-dominated sorting, crowding
distance, domination under constraints).
"""

from __future__ import annotations

import bisect
import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Indices = NDArray[np.int_]

_COMPARED_AT_ONCE = 2_000_000
"""Pairs of points whose comparison is held in memory at a time."""


def fronts_of(values: Array) -> Indices:
    """(n,) The front of each point, from 0 for the points that none dominates; front k is what would be the first one
    without the fronts before it.

    A point dominates another one if it is at least as good in every metric and better in one. So equal points share a
    front. O(n log n) for two metrics, O(n^2) for more: 5,000 points take less than a second.
    """
    if not len(values):
        return np.zeros(0, dtype=int)
    unique, places = np.unique(-values, axis=0, return_inverse=True)  # the best in the first metric first
    found = _fronts_of_two(unique) if unique.shape[1] <= 2 else _fronts_of_many(unique)
    return found[places.reshape(-1)]


def _fronts_of_two(costs: Array) -> Indices:
    """Of different points in at most two metrics, sorted by the first and then the second. A point belongs to the first
    front whose last point does not dominate it, and the last points of the fronts are sorted."""
    front = np.zeros(len(costs), dtype=int)
    last: list[float] = []  # the lowest second cost of each front so far, rising
    for index, cost in enumerate(costs[:, -1].tolist()):
        place = bisect.bisect_right(last, cost)
        front[index] = place
        if place == len(last):
            last.append(cost)
        else:
            last[place] = cost
    return front


def _fronts_of_many(costs: Array) -> Indices:
    """Of different points, sorted by the first metric: only an earlier point can dominate a later one."""
    count = len(costs)
    dominated_by = np.zeros(count, dtype=int)  # how many points that have no front yet dominate each
    dominates: list[Indices] = []
    rows = max(1, _COMPARED_AT_ONCE // count)
    for start in range(0, count, rows):
        part = costs[start : start + rows]
        # Different points, so "at least as good in all" means that one of them is better.
        as_good = np.ones((len(part), count), dtype=bool)
        for metric in range(costs.shape[1]):
            as_good &= part[:, metric, None] <= costs[None, :, metric]
        as_good[np.arange(len(part)), np.arange(start, start + len(part))] = False
        dominated_by += as_good.sum(0)
        dominates += [np.flatnonzero(row) for row in as_good]
    front = np.zeros(count, dtype=int)
    current, number = np.flatnonzero(dominated_by == 0), 0
    while len(current):
        front[current] = number
        fewer = np.bincount(np.concatenate([dominates[index] for index in current]), minlength=count)
        dominated_by -= fewer
        dominated_by[current] = -1
        current, number = np.flatnonzero((dominated_by == 0) & (fewer > 0)), number + 1
    return front


def crowding_of(values: Array) -> Array:
    """(n,) The crowding distance of each point of one front: the sum over metrics of the distance between its two
    neighbours, as a fraction of the range of that metric; infinite for the best and the worst point in a metric.

    Of equal points only the first counts; the others have distance 0, so that they come last.
    """
    distances = np.zeros(len(values))
    if not len(values):
        return distances
    unique, first = np.unique(values, axis=0, return_index=True)
    found = np.zeros(len(unique))
    for column in unique.T:
        order = np.argsort(column, kind="stable")
        width = column[order[-1]] - column[order[0]]
        found[order[[0, -1]]] = math.inf
        if width > 0:
            found[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / width
    distances[first] = found
    return distances


def order_of(values: Array, violations: Array, enough: int | None = None) -> tuple[Indices, Indices]:
    """The points from the best to the worst, and the front (from 0) of each point: both (n,).

    First the points that meet all constraints (`violations` (n,) is 0), by their front, in a front by the crowding
    distance, the greatest first; then the others by their violation, the least first: domination under constraints of
    Deb et al. 2002. On a tie the earlier point comes first.

    The points that violate a constraint get fronts after the others, one for each different violation. `enough`: only
    so many of the best points are needed; in the fronts after these the earlier point comes first.
    """
    feasible = violations <= 0
    fronts, crowding = np.zeros(len(values), dtype=int), np.zeros(len(values))
    inside = np.flatnonzero(feasible)
    fronts[inside] = fronts_of(values[inside])
    ordered = 0
    for front in range(fronts[inside].max(initial=-1) + 1):
        members = inside[fronts[inside] == front]
        crowding[members] = crowding_of(values[members])
        ordered += len(members)
        if enough is not None and ordered >= enough:
            break
    _, steps = np.unique(violations[~feasible], return_inverse=True)
    fronts[~feasible] = fronts[inside].max(initial=-1) + 1 + steps.reshape(-1)
    return np.lexsort((-crowding, fronts)), fronts


def hypervolume(values: Array, reference: Array) -> float:
    """The volume that is dominated by points (n, m) and dominates the `reference` (m,), exactly; m is 1, 2 or 3.

    Points that are not better than the reference in every metric add nothing. Raises ValueError for more metrics.
    """
    if len(reference) > 3:
        raise ValueError(f"the hypervolume of {len(reference)} metrics; at most 3 are computed")
    gains = values - reference
    gains = gains[(gains > 0).all(1)]
    if not len(gains):
        return 0.0
    if gains.shape[1] == 1:
        return float(gains.max())
    return _area(gains) if gains.shape[1] == 2 else _volume(gains)


def _area(gains: Array) -> float:
    """The area between the origin and points with positive coordinates (n, 2)."""
    order = np.lexsort((-gains[:, 1], -gains[:, 0]))
    x, heights = gains[order, 0], np.maximum.accumulate(gains[order, 1])
    return float(((x - np.append(x[1:], 0.0)) * heights).sum())


def _volume(gains: Array) -> float:
    """The volume between the origin and points with positive coordinates (n, 3), by slices along the third."""
    gains = gains[np.argsort(-gains[:, 2], kind="stable")]
    depths = gains[:, 2] - np.append(gains[1:, 2], 0.0)
    return float(sum(depth * _area(gains[: index + 1, :2]) for index, depth in enumerate(depths) if depth > 0))
