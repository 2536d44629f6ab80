"""Explain one intent's decision in plain words: why this strategy, what bound it, what came second, what would help.

Everything is said from the plan alone, so that last month's plan still explains itself.
"""

from __future__ import annotations

from catalog.cluster import TIER_WORDS
from catalog.errors import BadInput, near_names
from planner.explain.change import waves_of
from planner.explain.outlook import LIMITS, fleet_day, margins, through_the_day
from planner.explain.words import clock, counted, dollars, seconds, wish_of
from planner.plan import Choice, IntentDecision, Latency, Plan

__all__ = ["SOURCE_WORDS", "clock", "counted", "dollars", "explain", "fleet_day", "seconds", "waves_of", "wish_of"]

SOURCE_WORDS = {
    "measured": "measured on this hardware",
    "reference": "composed from published kernel measurements",
    "fitted": "a model fitted to measurements",
    "transferred": "transferred from measurements on other hardware",
    "roofline": "a data-sheet bound without any measurement: expect it to be off by a factor",
}
METHOD_WORDS = {
    "closed_form": "a queueing formula",
    "simulated": "an event simulation",
    "replayed": "a replay of the trace",
}
STATUS_WORDS = {
    "met": "met",
    "margin_consumed": "served, but its safety margin is used up",
    "unmet": "not met",
    "no_data": "not planned, for lack of data",
}


#: Dollars that are told apart.
CENT = 0.005


def explain(plan: Plan, intent: str) -> str:
    """Answer, for one intent: why this strategy, what bound it, the runner-up and its price, and what would help.

    Raises:
        BadInput: the plan has no intent of that name.
    """
    decision = next((decision for decision in plan.intents if decision.name == intent), None)
    if decision is None:
        mend = near_names(intent, [decision.name for decision in plan.intents])
        raise BadInput(f"the plan has no intent {intent!r}", mend=mend)
    parts = [_wish(decision), _outcome(decision), *_chosen(decision), *_runner_up(decision), *_unmet(decision)]
    parts += [
        *margins(plan, decision),
        *through_the_day(decision),
        *_order(plan, decision),
        *_rejections(plan, decision),
        *_shadow(plan, decision),
    ]
    parts += [_rests_on(plan, decision)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _wish(decision: IntentDecision) -> str:
    budget = f", at most {dollars(decision.budget)}" if decision.budget is not None else ""
    floor = f", quality at least {decision.quality_floor:.4g}" if decision.quality_floor else ""
    goal = decision.goal.replace("_", " ")
    wish = f"{wish_of(decision)}{budget}{floor}"
    return f"{decision.name}: {decision.model} at {decision.rate:.4g} requests/s.\nWish: {goal}; {wish}."


def _outcome(decision: IntentDecision) -> str:
    share = (
        f" {decision.served_share:.0%} of its load is served within the SLO." if 0 < decision.served_share < 1 else ""
    )
    return f"Outcome: {STATUS_WORDS[decision.status]}.{share} {decision.reason}"


def _chosen(decision: IntentDecision) -> list[str]:
    told = []
    for part in decision.chosen:
        lines = [f"Chosen: {part.strategy} for {dollars(part.cost_per_hour)}."]
        told_of = (("TTFT", "ttft", part.ttft), ("TPOT", "tpot", part.tpot), ("whole request", "e2e", part.e2e))
        lines += [f"  {name}: {_latency(latency, decision, key)}" for name, key, latency in told_of if latency]
        ends = f"{part.goodput:.4g} requests/s ({part.goodput_low:.4g} if predictions err to the slow side)"
        lines.append(f"  holds the SLO up to {ends}; busy {part.utilisation:.0%}; quality {part.quality:.4g}")
        told.append("\n".join(lines))
    if decision.binding:
        told.append(f"What bound it: {_bound(decision.binding)}.")
    return told


def _bound(binding: str) -> str:
    """What bound a choice, for whoever does not know the plan's short words."""
    if binding == "load":
        return "its load; nothing cheaper carries it"
    if binding.startswith("slo (") and binding.endswith(")"):
        names = [LIMITS.get(name, name) for name in binding[len("slo (") : -1].split(" and ")]
        return f"its own limits ({', '.join(names)}); nothing cheaper keeps them at this load"
    return binding


def _latency(latency: Latency, decision: IntentDecision, key: str) -> str:
    limit = f", limit {seconds(decision.slo[key])}" if key in decision.slo else ""
    high = f", {seconds(latency.high_s)} at the slow end" if latency.high_s is not None else ""
    return f"median {seconds(latency.p50_s)}, 90 % within {seconds(latency.p90_s)}{high}{limit}"


def _runner_up(decision: IntentDecision) -> list[str]:
    second = decision.runner_up
    if second is None:
        return ["Runner-up: none; no other strategy was left to compare."] if decision.chosen else []
    return [f"Runner-up: {second.strategy} for {dollars(second.cost_per_hour)}{_price_gap(decision, second)}."]


def _price_gap(decision: IntentDecision, second: Choice) -> str:
    gap = second.cost_per_hour - decision.cost_per_hour
    worth = decision.runner_up_extra_per_hour
    scarce = ""
    if worth is not None and abs(worth - gap) >= CENT:
        scarce = f" ({worth:+,.2f} USD/h with its starts charged and scarce GPUs at what they are worth tonight)"
    return f", {abs(gap):,.2f} USD/h {'more' if gap >= 0 else 'less'}{scarce}"


def _unmet(decision: IntentDecision) -> list[str]:
    if decision.status in ("met", "margin_consumed"):
        return []
    if not decision.relaxations:
        return ["What would help: nothing that was tried; see the strategies ruled out."]
    joint = any(", together with " in relaxation.text for relaxation in decision.relaxations)
    told = (
        "What would help: no change of one kind alone; these, all at once:"
        if joint
        else "What would help, the nearest change of each kind alone (a kind that is not listed does not help alone):"
    )
    return ["\n".join([told, *(f"  {relaxation.text}" for relaxation in decision.relaxations)])]


def _order(plan: Plan, decision: IntentDecision) -> list[str]:
    waves = waves_of(plan, decision.name)
    if not waves:
        return []
    lines = [f"  wave {number}: {'; '.join(told)}" for number, told in waves]
    return ["\n".join([f"Order of the change, of {counted(len(plan.waves), 'wave')} in all:", *lines])]


def _rejections(plan: Plan, decision: IntentDecision) -> list[str]:
    mine = [family for family in plan.rejections if family.intent == decision.name]
    if not mine:
        return []
    lines = [f"  {f.count} x {f.reason.replace('_', ' ')}, such as {f.strategy}: {f.detail}" for f in mine]
    return ["\n".join([f"Ruled out: {sum(family.count for family in mine)} strategies.", *lines])]


def _shadow(plan: Plan, decision: IntentDecision) -> list[str]:
    used = {group.node_pool for group in plan.placements if group.intent == decision.name}
    lines = []
    for pool in plan.pools:
        relevant = pool.name in used or not used
        if relevant and pool.shadow_price:
            lines.append(
                f"  one more {pool.gpu} node in {pool.name} saves {dollars(pool.shadow_price * pool.gpus_per_node)}"
            )
        elif pool.name in used and pool.shadow_price == 0:
            lines.append(f"  {pool.name}: another node would save nothing, {pool.gpus - pool.used} GPUs are free")
        if pool.name in used and pool.tier != "on_demand":
            lines.append(f"  {pool.name} is {pool.tier}: {TIER_WORDS[pool.tier]}")
    return ["\n".join(["Hardware:", *lines])] if lines else []


def _rests_on(plan: Plan, decision: IntentDecision) -> str:
    sources = sorted({part.source for part in decision.chosen})
    methods = sorted({part.method for part in decision.chosen})
    if not sources:
        return f"The answer rests on {plan.provenance.tables}."
    told = "; ".join(SOURCE_WORDS.get(source, source) for source in sources)
    how = " and ".join(METHOD_WORDS.get(method, method) for method in methods)
    return (
        f"These numbers rest on: step times {told} ({plan.provenance.tables}), put under load by {how}. "
        f"The placement is {plan.solved.status.replace('_', ' ')} ({plan.solved.solver}, gap {plan.solved.gap:.2%})."
    )
