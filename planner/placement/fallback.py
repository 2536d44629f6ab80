"""Plans without a proof: LP rounding, greedy by price, last night's. Each is checked row by row like any other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from planner.placement.columns import Columns
    from planner.placement.program import Program

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fallback:
    """A feasible point and how it was found."""

    how: Literal["rounded", "greedy", "kept_last"]
    values: Floats


def rounded(columns: Columns, program: Program, priority: Floats, point: Floats, reduced: Floats) -> Fallback | None:
    """Round an LP point: whole columns first, then each split intent's best column that still fits.

    Within an intent columns are tried by least deficit, largest value in the LP, least reduced cost.
    """
    values = point[: columns.count]
    split = np.array([values[columns.of(i)].max() < 1 - 1e-6 for i in range(columns.first.size - 1)])
    order = np.lexsort((priority, split))
    score = np.lexsort((reduced[: columns.count], -np.round(values, 6), columns.deficit))
    return _checked("rounded", program, _fill(columns, program, order, score))


def greedy(columns: Columns, program: Program, priority: Floats, prices: Floats) -> Fallback | None:
    """Serve intents by priority, large before small, each by its cheapest column that still fits.

    `prices` (class rows) are dollars per hour and GPU on top of what a column costs: shadow prices, or zeros.
    """
    money = columns.money + columns.load @ prices
    size = np.array([columns.load[columns.of(i)].sum(axis=1).max(initial=0.0) for i in range(columns.first.size - 1)])
    score = np.lexsort((money, columns.latency, columns.deficit))
    return _checked("greedy", program, _fill(columns, program, np.lexsort((-size, priority)), score))


def kept_last(columns: Columns, program: Program, priority: Floats) -> Fallback | None:
    """What runs now stays, and nothing else starts."""
    score = np.lexsort((np.arange(columns.count), ~columns.standing))
    only = columns.standing.copy()
    only[columns.first[:-1]] = True  # the empty columns
    order = np.lexsort((priority,))
    return _checked("kept_last", program, _fill(columns, program, order, score, only))


def _checked(how: Literal["rounded", "greedy", "kept_last"], program: Program, values: Floats) -> Fallback | None:
    return None if program.breaks(values) else Fallback(how=how, values=values)


def _fill(
    columns: Columns,
    program: Program,
    order: NDArray[np.int64],
    score: NDArray[np.int64],
    only: NDArray[np.bool_] | None = None,
) -> Floats:
    """Walk the intents in `order`; each takes its first column in `score` order that keeps every row."""
    limits = [row for row in program.rows if row.kind in ("capacity", "quota", "budget", "movement", "stage")]
    left = np.array([row.high for row in limits]) + 1e-9
    rank = np.empty(columns.count, dtype=np.int64)
    rank[score] = np.arange(columns.count)
    usable = program.upper[: columns.count] > 0
    if only is not None:
        usable &= only
    use = _by_column(columns.count, [(row.index, row.coefficient) for row in limits])
    values = np.zeros(program.variables)
    for i in order.tolist():
        mine = columns.of(i)
        tried = np.arange(mine.start, mine.stop)[usable[mine]]
        tried = tried[np.argsort(rank[tried])]
        needs = _dense(use, tried, len(limits))
        fits = np.flatnonzero((needs <= left).all(axis=1))
        if fits.size:
            values[tried[fits[0]]] = 1.0
            left -= needs[fits[0]]
    return values


def _by_column(
    count: int, rows: list[tuple[NDArray[np.int64], Floats]]
) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Rows turned to columns: (first entry of each column, row of each entry, coefficient of each entry)."""
    columns = np.concatenate([index for index, _ in rows]) if rows else np.zeros(0, dtype=np.int64)
    numbers = np.repeat(np.arange(len(rows)), [index.size for index, _ in rows])
    weights = np.concatenate([weight for _, weight in rows]) if rows else np.zeros(0)
    mine = columns < count  # the rest are overflow and pattern variables, which stay zero here
    order = np.argsort(columns[mine], kind="stable")
    first = np.searchsorted(columns[mine][order], np.arange(count + 1))
    return first.astype(np.int64), numbers[mine][order], weights[mine][order]


def _dense(use: tuple[NDArray[np.int64], NDArray[np.int64], Floats], columns: NDArray[np.int64], rows: int) -> Floats:
    first, numbers, weights = use
    out = np.zeros((columns.size, rows))
    for at, column in enumerate(columns.tolist()):
        span = slice(int(first[column]), int(first[column + 1]))
        out[at, numbers[span]] = weights[span]
    return out
