"""The report's view of the day and of the margins: replicas per window, and the load at which each SLO breaks."""

from __future__ import annotations

from planner.explain import clock, fleet_day
from planner.explain.outlook import LIMITS
from planner.plan import Plan, Stress
from planner.report.sections import table, text

CASE_HEADS = {
    "as_predicted": "as predicted",
    "slow_end": "slow end",
    "fast_end": "fast end",
    "half_bandwidth": "slow, half network",
}


def day(plan: Plan) -> str:
    """What runs when, what it saves, and what it leaves free."""
    if plan.day is None:
        return ""
    lead, *_ = fleet_day(plan)
    head = [
        ("intent", ""),
        *((f"{clock(part.start_hour)}", "r num") for part in plan.day.parts),
        ("USD a day", "r num"),
    ]
    rows = [
        [text(d.name), *(str(part.replicas) for part in d.day.parts), f"{d.day.cost:,.2f}"]
        for d in plan.intents
        if d.day is not None
    ]
    free = ["GPUs free", *(str(sum(part.gpus.values())) for part in plan.day.parts), ""]
    note = "Replicas per window (UTC); autoscalers stay between these and what is placed."
    return (
        f"<section><h2>Through the day</h2><p>{text(lead)}</p>{table(head, [*rows, free])}"
        f'<p class="legend"><span>{note}</span></p></section>'
    )


def robust(plan: Plan) -> str:
    """Up to which load each intent keeps its SLO, by what could go wrong."""
    tried = [d for d in plan.intents if d.robustness]
    if not tried:
        return ""
    cases = [case for case in CASE_HEADS if any(s.case == case for d in tried for s in d.robustness)]
    head = [("intent", ""), *((CASE_HEADS[case], "r num") for case in cases)]
    rows = []
    for decision in tried:
        found: dict[str, Stress] = {stress.case: stress for stress in decision.robustness}
        rows.append([text(decision.name), *(_reach(found.get(case)) for case in cases)])
    note = "The load, as a share of what was planned for, up to which the SLO holds, and what breaks first beyond it."
    return f'<section><h2>Robustness</h2>{table(head, rows)}<p class="legend"><span>{note}</span></p></section>'


def _reach(stress: Stress | None) -> str:
    """A load as a percentage, with what breaks first."""
    if stress is None:
        return "–"
    return f'<span>{stress.breaks_at:.0%}<span class="why">{text(LIMITS.get(stress.first_to_break, ""))}</span></span>'
