"""Patterns: exact packing for slots that do not divide one another, such as 3, 5 or 6 GPUs in bins of 8.

A pattern is a maximal way to fill one bin; a bin of 8 has few (6+2, 6+1+1, 5+3, ...). With y_q bins filled after
pattern q, counts n_s pack exactly where  n_s <= sum_q a_qs y_q,  sum_q y_q <= bins  has a whole solution (Gilmore and
Gomory 1961). Slots wider than a link domain are left to `Program`'s cuts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from planner.placement.bins import BinClass
from planner.placement.program import Patterns, Program, Row
from planner.placement.solve import Question, Solver, checked

if TYPE_CHECKING:
    from planner.placement.columns import Columns
    from planner.placement.legal import Ground

#: More patterns than this and the class is cut instead.
MOST = 2_000


def fills(sizes: Sequence[int], room: int) -> NDArray[np.int64]:
    """All maximal multisets of `sizes` that fit into `room`, one row each, counts in the order of `sizes`."""
    found: list[tuple[int, ...]] = []

    def extend(at: int, left: int, taken: tuple[int, ...]) -> None:
        if len(found) > MOST:
            return
        if at == len(sizes):
            if left < min(sizes):
                found.append(taken)
            return
        for count in range(left // sizes[at], -1, -1):
            extend(at + 1, left - count * sizes[at], (*taken, count))

    extend(0, room, ())
    return np.array(found, dtype=np.int64).reshape(-1, len(sizes))


def patterns(columns: Columns, ground: Ground, pool: str) -> Patterns | None:
    """The pattern rows of one class, None where they would be too many or a slot is wider than a bin."""
    bins = ground.classes[pool]
    used = [_slots(columns, ground, pool, column) for column in range(columns.count)]
    sizes = tuple(sorted({slot for mine in used for slot in mine}, reverse=True))
    kinds = sorted(Counter(bins.free[bins.free > 0].tolist()).items())
    if not sizes or max(sizes) > bins.domain:
        return None
    ways = tuple(fills(sizes, room) for room, _ in kinds)
    if sum(way.shape[0] for way in ways) > MOST:
        return None
    slots = np.array([[mine.get(size, 0) for size in sizes] for mine in used], dtype=float)
    return Patterns(pool=pool, sizes=sizes, fills=ways, bins=tuple(count for _, count in kinds), slots=slots)


def packing(bins: BinClass, counts: Mapping[int, int], solver: Solver) -> list[tuple[int, dict[int, int]]] | None:
    """Fill bins with exactly these counts of slots: [(room of the bin, {slot: count}), ...], None = impossible."""
    sizes = sorted(counts, reverse=True)
    if not sizes or max(sizes) > bins.domain:
        return None
    kinds = sorted(Counter(bins.free[bins.free > 0].tolist()).items())
    ways = [(room, fill) for room, _ in kinds for fill in fills(sizes, room).tolist()]
    if not ways or len(ways) > MOST:
        return None
    amount = np.array([fill for _, fill in ways], dtype=float)
    rows = [_row(f"slots {size}", low=float(counts[size]), weights=amount[:, at]) for at, size in enumerate(sizes)] + [
        _row(f"bins {room}", high=float(number), weights=np.array([float(kind == room) for kind, _ in ways]))
        for room, number in kinds
    ]
    n = len(ways)
    most = float(max(number for _, number in kinds))
    program = Program(columns=n, upper=np.full(n, most), integer=np.ones(n, dtype=bool), rows=tuple(rows))
    question = Question(program=program, objective=np.ones(n), time_limit_s=10.0, gap=0.0)
    answer = checked(solver(question), question)
    if answer.values is None:
        return None
    left = dict(counts)
    found = []
    for (room, fill), times in zip(ways, np.round(answer.values).astype(int).tolist(), strict=True):
        for _ in range(times):
            take = {size: min(left[size], most_) for size, most_ in zip(sizes, fill, strict=True)}
            for size, taken in take.items():
                left[size] -= taken
            found.append((room, {size: taken for size, taken in take.items() if taken}))
    return found


def _slots(columns: Columns, ground: Ground, pool: str, column: int) -> dict[int, int]:
    """Replicas by slot that a column puts into a class."""
    mine: dict[int, int] = {}
    for candidate in columns.members(column):
        for part in candidate.strategy.pools:
            if part.node_pool == pool:
                slot = ground.slot(part) or 0
                mine[slot] = mine.get(slot, 0) + part.replicas
    return mine


def _row(name: str, *, weights: NDArray[np.float64], low: float = -np.inf, high: float = np.inf) -> Row:
    """A row in the form that every solver takes: lower bounds are turned round."""
    index = np.flatnonzero(weights)
    if np.isfinite(low):
        return Row(kind="pattern", name=name, low=-np.inf, high=-low, index=index, coefficient=-weights[index])
    return Row(kind="bins", name=name, low=-np.inf, high=high, index=index, coefficient=weights[index])
