"""Words for numbers: durations, money, shares and hours of the day, as every page and command says them."""

from __future__ import annotations

from planner.plan import IntentDecision


def seconds(value: float | None) -> str:
    """A duration for reading: milliseconds below a second; `without bound` where there is none."""
    if value is None:
        return "without bound"
    return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.3g} s"


def dollars(value: float) -> str:
    """Money per hour."""
    return f"{value:,.2f} USD/h"


def clock(hour: float) -> str:
    """An hour of the day as `08:30`."""
    minutes = round(hour * 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


def counted(number: int, what: str) -> str:
    """`1 replica`, `2 replicas`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def wish_of(decision: IntentDecision) -> str:
    """The SLO in words: `TTFT ≤ 500 ms and TPOT ≤ 40 ms for 90 % of the requests`."""
    names = {"ttft": "TTFT", "tpot": "TPOT", "e2e": "whole request"}
    limits = [f"{names[key]} ≤ {seconds(decision.slo[key])}" for key in names if key in decision.slo]
    share = decision.slo.get("attainment", 0.9)
    return f"{' and '.join(limits)} for {share * 100:.4g} % of the requests" if limits else "no latency limit"
