"""`Program`: the integer program of PLACEMENT, row by row.

Notation    i intents; b bin classes; s slot sizes; p columns (whole plans) of an intent; k teams
Variables   u_p in {0, 1}   column p is chosen
            o >= 0          GPUs started beyond tonight's movement limit
            y_bq integer    bins of class b filled after pattern q, only where packing failed before
Rows  (1)  pick       sum_p u_p = 1                                           every i
      (2)  capacity   sum_p GPUs_pbs u_p <= sum over bins of floor(free/s) s  every b, and s where it binds
      (2') patterns   sum_p slots_pbs u_p <= sum_q a_qs y_bq,  sum_q y_bq <= bins, only where packing failed
      (3)  quota      sum_p GPUs_pg u_p <= quota_kg                           every k and GPU type g
      (4)  budget     sum_p cost_p u_p <= budget_k                            every k
      (5)  movement   sum_p started GPUs_p u_p - o <= limit                   intents that run and still serve enough
Objectives, one after the other: shortfall of each priority class, o, latency, money, starts (module `stages`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from planner.intents import Fleet
    from planner.placement.columns import Columns
    from planner.placement.legal import Ground

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
RowKind = Literal["pick", "capacity", "bins", "pattern", "quota", "budget", "movement", "stage", "cut"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Row:
    """low <= sum of coefficient * variable <= high."""

    kind: RowKind
    name: str
    low: float
    high: float
    index: Ints
    coefficient: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Program:
    """Variables (columns first) and rows, without an objective."""

    columns: int
    upper: Floats
    integer: NDArray[np.bool_]
    rows: tuple[Row, ...]
    overflow: int = -1
    """Index of the movement overflow, -1 = none."""

    @property
    def variables(self) -> int:
        """Number of variables."""
        return int(self.upper.size)

    def with_upper(self, upper: Floats) -> Program:
        """The same program with other upper bounds."""
        return replace(self, upper=upper)

    def with_row(self, row: Row) -> Program:
        """The same program with one more row."""
        return replace(self, rows=(*self.rows, row))

    def breaks(self, values: Floats, tolerance: float = 1e-6) -> str:
        """Name the first row or bound that a point violates, empty where it keeps all; this trusts no solver."""
        if values.shape != self.upper.shape or not np.isfinite(values).all():
            return "values are missing or not numbers"
        if (values < -tolerance).any() or (values > self.upper + tolerance).any():
            return "a variable is out of its bounds"
        if (np.abs(values - np.round(values))[self.integer] > tolerance).any():
            return "a whole number is fractional"
        for row in self.rows:
            total = float(row.coefficient @ values[row.index])
            slack = tolerance * max(1.0, abs(row.high) if np.isfinite(row.high) else abs(row.low))
            if total > row.high + slack or total < row.low - slack:
                return f"{row.kind} row {row.name!r} is {total:g}, outside [{row.low:g}, {row.high:g}]"
        return ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Patterns:
    """Ways to fill one bin of a class: `fills[q, s]` slots of `sizes[s]` by pattern q, for bins of `bins` counts."""

    pool: str
    sizes: tuple[int, ...]
    fills: tuple[Ints, ...]
    """One array per kind of bin."""
    bins: tuple[int, ...]
    """How many bins there are of each kind."""
    slots: Floats  # (columns, sizes) replicas of that slot size that a column puts into the class


def program(  # noqa: PLR0913 - the whole problem
    fleet: Fleet,
    columns: Columns,
    ground: Ground,
    *,
    movement_gpus: int | None,
    patterns: Sequence[Patterns] = (),
    cuts: Mapping[str, int] | None = None,
) -> Program:
    """Assemble the rows. `cuts` takes GPUs off a class whose pieces would not pack even by patterns."""
    count = columns.count
    upper, integer = np.ones(count), np.ones(count, dtype=bool)
    rows = [*_pick(columns), *_capacity(columns, cuts or {}), *_quota(fleet, columns, ground), *_budget(fleet, columns)]
    overflow = -1
    if movement_gpus is not None:
        overflow, upper, integer = count, np.append(upper, np.inf), np.append(integer, False)
        rows.append(_movement(columns, movement_gpus, overflow))
    for pattern in patterns:
        more = _patterns(pattern, upper.size)
        rows += more
        fresh = sum(int(fill.shape[0]) for fill in pattern.fills)
        upper = np.append(upper, np.full(fresh, float(max(pattern.bins))))
        integer = np.append(integer, np.ones(fresh, dtype=bool))
    return Program(columns=count, upper=upper, integer=integer, rows=tuple(rows), overflow=overflow)


def at_most(kind: RowKind, name: str, high: float, weights: Floats) -> Row:
    """The row sum of weights * variable <= high, zeros left out."""
    index = np.flatnonzero(weights)
    return Row(kind=kind, name=name, low=-np.inf, high=high, index=index, coefficient=weights[index])


def _pick(columns: Columns) -> list[Row]:
    return [
        Row(kind="pick", name=str(i), low=1.0, high=1.0, index=np.arange(a, b), coefficient=np.ones(b - a))
        for i, (a, b) in enumerate(zip(columns.first[:-1].tolist(), columns.first[1:].tolist(), strict=True))
    ]


def _capacity(columns: Columns, cuts: Mapping[str, int]) -> list[Row]:
    return [
        at_most("capacity", f"{row.pool}/{row.size}", max(0, row.limit - cuts.get(row.pool, 0)), columns.load[:, j])
        for j, row in enumerate(columns.rows)
    ]


def _quota(fleet: Fleet, columns: Columns, ground: Ground) -> list[Row]:
    rows = []
    for team in fleet.teams:
        mine = np.array([intent.team == team.name for intent in fleet.intents])[columns.intent]
        for gpu, most in team.quota.items():
            bins = [ground.classes[name] for name in columns.pools]
            each = np.array([(one.gpu == ground.gpu(gpu)) / one.parts for one in bins])
            held = columns.nominal @ each * mine
            rows.append(at_most("quota", f"{team.name}/{gpu}", float(most), held))
    return [row for row in rows if row.index.size]


def _budget(fleet: Fleet, columns: Columns) -> list[Row]:
    rows = []
    for team in fleet.teams:
        if team.budget is not None:
            mine = np.array([intent.team == team.name for intent in fleet.intents])[columns.intent]
            rows.append(at_most("budget", team.name, team.budget, columns.cost * mine))
    return [row for row in rows if row.index.size]


def counted_starts(columns: Columns) -> Floats:
    """GPUs that each column starts and that count against the movement limit: of intents that still serve enough."""
    settled = np.array([columns.settled(intent) for intent in range(columns.first.size - 1)], dtype=bool)
    counted: Floats = columns.start_gpus * settled[columns.intent]
    return counted


def _movement(columns: Columns, limit: int, overflow: int) -> Row:
    starts = np.append(counted_starts(columns), -1.0)
    row = at_most("movement", "tonight", float(limit), starts)
    return replace(row, index=np.where(row.index == columns.count, overflow, row.index))


def _patterns(pattern: Patterns, first: int) -> list[Row]:
    rows, at = [], first
    fills = []
    for kind, (fill, bins) in enumerate(zip(pattern.fills, pattern.bins, strict=True)):
        index = np.arange(at, at + fill.shape[0])
        rows.append(
            Row(
                kind="bins",
                name=f"{pattern.pool}/{kind}",
                low=-np.inf,
                high=float(bins),
                index=index,
                coefficient=np.ones(index.size),
            )
        )
        fills.append((index, fill))
        at += fill.shape[0]
    for s, size in enumerate(pattern.sizes):
        used = np.flatnonzero(pattern.slots[:, s])
        index = np.concatenate((used, *(where for where, _ in fills)))
        weights = np.concatenate((pattern.slots[used, s], *(-fill[:, s].astype(float) for _, fill in fills)))
        some = weights != 0
        rows.append(
            Row(
                kind="pattern",
                name=f"{pattern.pool}/{size}",
                low=-np.inf,
                high=0.0,
                index=index[some],
                coefficient=weights[some],
            )
        )
    return rows
