"""Robustness: up to which load each intent keeps its SLO when predictions err by their intervals or the network halves.

A mix breaks where the first of its parts does, since a router shares the load in fixed parts. All in closed form: a few
dozen evaluations an intent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from planner.outlook.gauge import End, Gauge
from planner.plan import Stress

#: Loads that are tried, as multiples of the planned rate.
LOADS = (0.8, 1.0, 1.2)
HALF = 0.5
Case = Literal["as_predicted", "slow_end", "fast_end", "half_bandwidth"]
CASES: tuple[tuple[Case, End, float], ...] = (
    ("as_predicted", "middle", 1.0),
    ("slow_end", "slow", 1.0),
    ("fast_end", "fast", 1.0),
    ("half_bandwidth", "slow", HALF),
)


def robustness(gauges: Sequence[Gauge]) -> tuple[Stress, ...]:
    """Every case for the parts of one intent; a slower network concerns only what sends KV blocks over it."""
    apart = any(gauge.candidate.strategy.kind == "disaggregated" for gauge in gauges)
    return tuple(_stress(case, gauges, end, bandwidth) for case, end, bandwidth in CASES if bandwidth == 1.0 or apart)


def _stress(case: Case, gauges: Sequence[Gauge], end: End, bandwidth: float) -> Stress:
    reached = [
        (gauge.goodput(gauge.counts, end, bandwidth=bandwidth) / gauge.rate, i) for i, gauge in enumerate(gauges)
    ]
    least, weakest = min(reached)
    gauge = gauges[weakest]
    return Stress(
        case=case,
        breaks_at=least,
        first_to_break=gauge.breaks_first(end, least * gauge.rate, bandwidth=bandwidth),
        holds_at=tuple(load for load in LOADS if load <= least + 1e-9),
    )
