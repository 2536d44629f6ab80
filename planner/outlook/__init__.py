"""OUTLOOK: how a decided plan fares over the day, and when things turn out otherwise than predicted.

Why it is so. The night decides for the busiest hour at the slow end of every prediction; whoever applies the plan
wants to know what may be switched off at 3 a.m., and how far the plan is from its limits. Both are questions to the
strategies already chosen, so nothing is searched or placed again, and nothing here changes what was decided.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from planner.intents import Fleet, Intent
from planner.outlook.gauge import EngineOf, Gauge, law_of
from planner.outlook.robust import robustness
from planner.outlook.switch import Market, priced
from planner.outlook.windows import Group, day_of, fleet_day, through_the_day, without_reserve
from planner.placement.placed import Key, Placed, Served
from planner.plan import IntentDecision, Plan, Window
from planner.queueing import rules_for
from planner.strategies import Candidate
from planner.workload import Requests, demand

__all__ = ["Gauge", "look_ahead"]

EnginesOf = Callable[[Intent], EngineOf]


def look_ahead(  # noqa: PLR0913 - what was decided, and what it is held against
    plan: Plan,
    fleet: Fleet,
    placed: Placed,
    *,
    requests: Mapping[str, Requests],
    engines_of: EnginesOf,
    candidates: Mapping[str, Sequence[Candidate]] | None = None,
) -> Plan:
    """Add to an assembled plan the day of every intent whose profile is known, and the robustness of all that run.

    `engines_of` gives, for an intent's load, the engine of a configuration at the middle of its predictions. With the
    `candidates` of each intent its day says what another of them would save in quiet windows. The plan needs to be
    sealed again.
    """
    decisions: list[IntentDecision] = []
    groups: list[Group] = []
    windows: dict[tuple[str, Key], tuple[Window, ...]] = {}
    for intent, decision in zip(fleet.intents, plan.intents, strict=True):
        served = placed[intent.name]
        gauges = _gauges(intent, served, fleet, requests[intent.name], engines_of) if served.candidates else ()
        mine = through_the_day(intent, served, gauges, cluster=fleet.cluster, rules=fleet.day)
        groups += mine
        windows |= {(intent.name, group.seats.key): group.windows for group in mine}
        day = day_of(mine, gauges[0]) if mine else None
        decisions.append(decision.model_copy(update={"day": day, "robustness": robustness(gauges) if gauges else ()}))
    seats = [(served.intent, one.key) for served in placed.served for one in served.seats]
    placements = tuple(
        group.model_copy(update={"windows": windows.get(key, ())})
        for group, key in zip(plan.placements, seats, strict=True)
    )
    whole = fleet_day(groups, decisions, fleet.day)
    if whole is not None and candidates is not None:
        market = Market(fleet=fleet, pools=plan.pools, groups=tuple(groups), candidates=candidates)
        decisions = [
            priced(decision, intent, market, rate=demand(requests[intent.name]))
            for intent, decision in zip(fleet.intents, decisions, strict=True)
        ]
    return plan.model_copy(update={"intents": tuple(decisions), "placements": placements, "day": whole})


def _gauges(
    intent: Intent, served: Served, fleet: Fleet, requests: Requests, engines_of: EnginesOf
) -> tuple[Gauge, ...]:
    law, engine_of = law_of(requests), engines_of(intent)
    return tuple(
        Gauge(
            candidate=candidate,
            slo=intent.slo,
            requests=law,
            mean_rate=requests.rate,
            engines=tuple(engine_of(pool.configuration) for pool in candidate.strategy.pools),
            needed=tuple(
                without_reserve(pool.replicas, fleet.cluster.pool(pool.node_pool), intent)
                for pool in candidate.strategy.pools
            ),
            rules=rules_for(fleet.vllm_version),
        )
        for candidate in served.candidates
    )
