"""What would help an intent that strategies could serve and the rest of the fleet left no room for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from catalog.cluster import Cluster
from flows.fit import Predictors
from flows.search import Facts, nearest_changes
from planner.placement import Placed
from planner.placement.nearest import nearest
from planner.plan import Search

#: Intents, most important first, that are searched once more on what the others leave: some seconds each.
SEARCHED = 4


def relaxed(
    facts: Facts, searches: Mapping[str, Search], placed: Placed, predictors: Predictors | None
) -> dict[str, Search]:
    """The searches, each unmet intent without relaxations given those that the fleet's limits leave.

    Nodes, quota, budget and rate are counted for all of them; how far latency or quality would have to give way is
    searched for the most important ones.
    """
    fleet = facts.loaded.fleet
    candidates = {name: search.candidates for name, search in searches.items()}
    counted = nearest(fleet, placed, candidates, prices=facts.prices, gpus=facts.gpus)
    found = dict(searches)
    order = sorted(counted, key=lambda name: next(i.priority for i in fleet.intents if i.name == name))
    for rank, name in enumerate(order):
        if searches[name].relaxations:
            continue
        answers = list(counted[name])
        if predictors is not None and rank < SEARCHED:
            intent = next(intent for intent in fleet.intents if intent.name == name)
            told = {answer.dimension for answer in answers}
            more = nearest_changes(intent, facts, predictors, cluster=beside(fleet.cluster, placed, name))
            answers += [answer for answer in more if answer.dimension not in told]
        found[name] = replace(searches[name], relaxations=tuple(answers))
    return found


def beside(cluster: Cluster, placed: Placed, intent: str) -> Cluster:
    """The cluster as the other intents leave it: what they hold counts as held by others."""
    used: Counter[str] = Counter()
    for served in placed.served:
        if served.intent != intent:
            for candidate in served.candidates:
                used.update(dict(candidate.gpus))
    held = {pool.name: -(-used[pool.name] // pool.engines_per_gpu) for pool in cluster.pools}
    pools = tuple(
        pool.model_copy(update={"reserved_gpus": pool.reserved_gpus + held[pool.name]}) for pool in cluster.pools
    )
    return cluster.model_copy(update={"pools": pools})
