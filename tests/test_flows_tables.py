"""`flows.tables`: what a terminal shows of a plan's day and margins."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from flows import tables
from planner.plan import DayPart, FleetDay, FreedGPUs, IntentDay, Plan, Stress, from_json

SAMPLE = from_json((Path(__file__).parent / "plans" / "sample.json").read_text(encoding="utf-8"))
BARE = SAMPLE.model_copy(
    update={"day": None, "intents": tuple(d.model_copy(update={"day": None, "robustness": ()}) for d in SAMPLE.intents)}
)


def shown(*renderables: object) -> str:
    """What stands on a wide terminal."""
    written = io.StringIO()
    console = Console(width=160, file=written)
    for one in renderables:
        console.print(one)
    return written.getvalue()


def with_a_day(plan: Plan) -> Plan:
    """The plan with a quiet half day of its first intent, and margins of it."""
    halves = ((0.0, 12.0, 1, 5.0), (12.0, 24.0, 3, 20.0))
    parts = tuple(
        DayPart(start_hour=a, end_hour=b, rate=rate, replicas=n, gpus=n, cost_per_hour=2.0 * n)
        for a, b, n, rate in halves
    )
    day = IntentDay(parts=parts, cost=97.0, peak_cost=144.0, refunded=47.0, starts=2, freed_gpu_hours=23.5)
    robustness = (
        Stress(case="as_predicted", breaks_at=1.3, first_to_break="ttft", holds_at=(0.8, 1.0, 1.2)),
        Stress(case="slow_end", breaks_at=1.04, first_to_break="tpot", holds_at=(0.8, 1.0)),
    )
    first, *rest = plan.intents
    freed = tuple(FreedGPUs(start_hour=a, end_hour=b, gpus={}, cost_per_hour=2.0 * n) for a, b, n, _ in halves)
    whole = FleetDay(parts=freed, cost=97.0, peak_cost=144.0, refunded=47.0)
    intents = (first.model_copy(update={"day": day, "robustness": robustness}), *rest)
    return plan.model_copy(update={"intents": intents, "day": whole})


def test_a_plan_without_a_day_shows_none() -> None:
    """Where no load changes over the day and nothing was stressed, there is no table to read past."""
    assert tables.day(BARE) == []
    assert tables.margins(BARE) == []


def test_the_day_is_a_row_of_replicas_and_what_they_save() -> None:
    """Each window is a column of replicas; the row ends with the dollars a day that following the load saves."""
    text = shown(*tables.day(with_a_day(BARE)))
    row = next(line for line in text.splitlines() if BARE.intents[0].name in line)
    assert [word for word in row.replace("│", " ").split() if word[0].isdigit()] == ["1", "3", "47.00"]
    assert "12:00" in text
    assert "47.00 (33%) less than at the peak" in text


def test_margins_say_what_breaks_first_and_whether_a_surge_is_carried() -> None:
    """A load that 1.04 times the plan's would break does not carry 20 % more."""
    text = shown(*tables.margins(with_a_day(BARE)))
    row = next(line for line in text.splitlines() if BARE.intents[0].name in line)
    assert all(word in row for word in ("130%", "104%", "TPOT", "not carried"))
