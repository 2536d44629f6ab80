"""`Drift`: a service that has begun to behave otherwise, found by a two-sided CUSUM of its nights.

    C⁺ = max(0, C⁺ + z - k),   C⁻ = max(0, C⁻ - z - k),   z_n = (r_n - m_n) · sqrt((n - 1) / n) / s

r is ln(observed / predicted) of night n on one basis, m_n the mean of the nights before it, s the spread of nights.
So started, the z of a steady service are independent standard normals whatever its level (Hawkins 1987). k = 0.5 looks
for a shift of one standard deviation; h = 5 is crossed by chance once in about 450 nights of one service (Page 1954;
Montgomery, Statistical Quality Control, 9.1). A drift asks for a new probe, and widens intervals by what was shifted
until predictions rest on another basis.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import NamedTuple

from catalog.cluster import Fact
from planner.calibrate.bias import Phase
from planner.calibrate.compare import Comparison

SLACK, LIMIT = 0.5, 5.0
#: Nights that say what is usual. With fewer nights after them nothing is called a drift.
USUAL = 3


class Drift(Fact):
    """One service on one engine whose latencies have shifted."""

    intent: str
    phase: Phase
    model: str
    gpu: str
    basis: str
    since_hour: int
    """First night of the shift, hours since 1970."""
    shift: float
    """ln of what latencies are now over what they were; above 0 is slower."""
    statistic: float


class _Night(NamedTuple):
    hour: int
    level: float


def drifts(comparisons: Iterable[Comparison], phase: Phase, spread: float) -> tuple[Drift, ...]:
    """Services that drift, by intent; each series ends with the newest basis of its engine."""
    series: dict[tuple[str, str, str, str], list[_Night]] = defaultdict(list)
    newest: dict[tuple[str, str, str], str] = {}
    for row in sorted(comparisons, key=lambda each: (each.at_hour, each.intent)):
        reading = row.tpot if phase == "decode" else row.ttft
        if reading is not None:
            series[row.intent, row.model, row.gpu, row.basis].append(_Night(row.at_hour, math.log(reading.raw_ratio)))
            newest[row.intent, row.model, row.gpu] = row.basis
    found = []
    for (intent, model, gpu), basis in sorted(newest.items()):
        alarm = cusum([night.level for night in series[intent, model, gpu, basis]], spread)
        if alarm is not None:
            first, shift, statistic = alarm
            since = series[intent, model, gpu, basis][first].hour
            found.append(Drift(intent=intent, phase=phase, model=model, gpu=gpu, basis=basis, since_hour=since,
                               shift=shift, statistic=statistic))  # fmt: skip
    return tuple(found)


def cusum(levels: Sequence[float], spread: float) -> tuple[int, float, float] | None:
    """(index where the shift began, its size, the statistic) once the sum has crossed its limit; None before."""
    if len(levels) <= USUAL or spread <= 0:
        return None
    sums, starts = [0.0, 0.0], [USUAL, USUAL]
    for index in range(USUAL, len(levels)):
        z = (levels[index] - fmean(levels[:index])) * math.sqrt(index / (index + 1)) / spread
        for side, sign in enumerate((1.0, -1.0)):
            sums[side] = max(0.0, sums[side] + sign * z - SLACK)
            if sums[side] == 0.0:
                starts[side] = index + 1
            elif sums[side] > LIMIT:
                start = starts[side]
                return start, fmean(levels[start:]) - fmean(levels[:start]), sums[side]
    return None
