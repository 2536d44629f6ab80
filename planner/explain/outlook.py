"""The day and the margins of a decision in words: what runs when, what that saves, and what would break it."""

from __future__ import annotations

from planner.explain.words import clock, counted, dollars
from planner.plan import IntentDay, IntentDecision, Plan, Stress

CASES = {
    "as_predicted": "as predicted",
    "slow_end": "if predictions err to the slow end of their interval",
    "fast_end": "if they err to the fast end",
    "half_bandwidth": "at the slow end with half the network's bandwidth",
}
LIMITS = {"ttft": "TTFT", "tpot": "TPOT", "e2e": "the whole request's time", "capacity": "capacity"}
SURGE = 1.2


def day_lines(day: IntentDay) -> list[str]:
    """The windows of a day, equal neighbours joined, and what they save."""
    joined: list[tuple[float, float, float, int, int]] = []
    for part in day.parts:
        if joined and joined[-1][3] == part.replicas:
            start, _, rate, replicas, gpus = joined[-1]
            joined[-1] = (start, part.end_hour, max(rate, part.rate), replicas, gpus)
        else:
            joined.append((part.start_hour, part.end_hour, part.rate, part.replicas, part.gpus))
    lines = [
        f"{clock(start)}-{clock(end)} UTC: {counted(replicas, 'replica')} ({counted(gpus, 'GPU')})"
        f" for up to {rate:.4g} requests/s"
        for start, end, rate, replicas, gpus in joined
    ]
    if day.starts:
        lines.append(saved(day.cost, day.peak_cost, day.refunded))
        lines.append(f"frees {day.freed_gpu_hours:,.4g} GPU-hours a day for {counted(day.starts, 'start')} a day")
    if day.switch:
        lines.append(
            f"the plan keeps one strategy all day; {day.switch} would save {day.switch_saves:,.2f} USD a day more,"
            " its starts paid, on GPUs that are free then"
        )
    if day.kept:
        lines.append(f"stays as it is: {day.kept}")
    elif not day.starts:
        lines.append("every window needs as many, or going down would not pay for coming up again")
    return lines


def saved(cost: float, peak: float, refunded: float) -> str:
    """What a day costs and saves: `costs 129.39 USD a day, 35.50 less (22 %) than at its peak's size all day`."""
    less = peak - cost
    rest = less - refunded
    told = f"costs {cost:,.2f} USD a day, {less:,.2f} ({less / peak:.0%}) less than at the peak's size all day"
    rounding = 0.005 + 1e-5 * peak  # a plan keeps six digits of each sum
    return told + (f"; {rest:,.2f} of that on GPUs that are paid for anyway" if rest > rounding else "")


def stress_line(stress: Stress) -> str:
    """Up to which load, and what breaks first."""
    limit = LIMITS.get(stress.first_to_break, stress.first_to_break)
    if stress.breaks_at < 1.0:
        return f"{CASES[stress.case]}: keeps the SLO only up to {stress.breaks_at:.0%} of the load, then {limit} breaks"
    return f"{CASES[stress.case]}: keeps the SLO up to {stress.breaks_at:.0%} of the load, then {limit} breaks"


def margins(plan: Plan, decision: IntentDecision) -> list[str]:
    """The paragraph on robustness, and what 20 % more load at the slow end means."""
    if not decision.robustness:
        return []
    lines = [f"  {stress_line(stress)}" for stress in decision.robustness]
    slow = next((stress for stress in decision.robustness if stress.case == "slow_end"), None)
    if slow is not None:
        kept = slow.breaks_at >= SURGE
        lines.append(f"  20 % more load with slow predictions {'is carried' if kept else 'is not carried'}")
    mine = [group for group in plan.placements if group.intent == decision.name]
    if any(group.nodes_per_replica > 1 for group in mine):
        lines.append("  its replicas span nodes: what a slower network between these costs was not measured")
    return ["\n".join(["Robustness, all replicas running:", *lines])]


def through_the_day(decision: IntentDecision) -> list[str]:
    """The paragraph on the day."""
    if decision.day is None:
        return []
    return ["\n".join(["Through the day:", *(f"  {line}" for line in day_lines(decision.day))])]


def fleet_day(plan: Plan) -> list[str]:
    """What the whole fleet's day costs, saves and frees, window by window; empty where nothing changes."""
    if plan.day is None:
        return []
    lines = [f"The fleet {saved(plan.day.cost, plan.day.peak_cost, plan.day.refunded)}."]
    for part in plan.day.parts:
        free = ", ".join(f"{gpus} of {name}" for name, gpus in part.gpus.items()) or "nothing"
        lines.append(
            f"{clock(part.start_hour)}-{clock(part.end_hour)} UTC: {dollars(part.cost_per_hour)}, frees {free}"
        )
    return lines
