"""Open breakers in a night: a service whose prediction was optimistic keeps the engine that runs, or more of it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from catalog.units import SECONDS_PER_HOUR
from flows.search import Facts, search
from flows.steps import Perform, Step, in_process
from planner.calibrate import hold
from planner.calibrate.breaker import STALE_HOURS, restricted
from planner.plan import Plan, Search


def with_breakers(
    searches: Mapping[str, Search], facts: Facts, plan: Plan | None, *, at_s: float, perform: Perform = in_process
) -> dict[str, Search]:
    """The searches, those of held services replaced by one among the engines that run; the plan's notes say so.

    Where more of what runs would not serve the whole load either, the service is planned anew, and that is said.
    """
    found, predictors = dict(searches), facts.predictors
    production = None if predictors is None else predictors.production
    if plan is None or predictors is None or production is None:
        return found
    if at_s / SECONDS_PER_HOUR - production.calibration.at_hour > STALE_HOURS:
        return found
    reasons = production.calibration.breakers
    groups = {name: [group for group in plan.placements if group.intent == name] for name in reasons}
    wishes = {
        intent.name: wish
        for intent in facts.loaded.fleet.intents
        if intent.name in reasons and intent.name in found and groups[intent.name]
        and intent.name not in facts.missing and (wish := restricted(intent, groups[intent.name])) is not None
    }  # fmt: skip
    steps = [Step(stage="search", label=f"{name}, held", call=partial(search, wish, facts, predictors)) for name, wish
             in wishes.items()]  # fmt: skip
    again = dict(zip(wishes, perform(steps), strict=True)) if steps else {}
    notes = []
    for name in sorted(set(reasons) & set(found)):
        kept = hold(again[name], groups[name]) if name in again else None
        said = (
            "it keeps its engine and its replicas, or gets more" if kept else "more of it is no way out: planned anew"
        )
        if kept is not None:
            found[name] = kept
        notes.append(f"{name}: BREAKER OPEN ({reasons[name]}); {said}")
    facts.notes = (*facts.notes, *notes)
    return found
