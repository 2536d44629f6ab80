"""`size_fleet`: how many nodes of each pool to prepare, by the night's search and placement with counts left open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from catalog.cluster import TIER_WORDS, Cluster
from catalog.errors import BadInput, near_names
from flows.fleet import LoadedFleet
from flows.night import search_fleet
from flows.site import Site
from flows.steps import Perform, Step, in_process
from planner.placement.size import Sized, opened, size


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizing:
    """What was asked for and what came of it."""

    cluster: Cluster
    """As fleet.yaml has it."""
    asked: Cluster
    """With every pool at the most that it may get."""
    prices: Mapping[str, float]
    """Node pool -> dollars per GPU and hour."""
    sized: Sized
    unmet: Mapping[str, str]
    """Intents that are not served whole -> why, and what would help."""

    @property
    def rows(self) -> tuple[dict[str, Any], ...]:
        """One row per pool: nodes there, to prepare, spare, at most, and what they cost."""
        found = []
        for pool, most in zip(self.cluster.pools, self.asked.pools, strict=True):
            nodes, spare = self.sized.nodes[pool.name], self.sized.spares.get(pool.name, 0)
            node_price = self.prices[pool.name] * pool.gpus_per_node
            parts = sum(
                dict(one.gpus).get(pool.name, 0) for served in self.sized.placed.served for one in served.candidates
            )
            used = -(-parts // pool.engines_per_gpu)
            found.append(
                {
                    "pool": pool.name, "gpu": pool.gpu, "gpus_per_node": pool.gpus_per_node, "tier": pool.tier,
                    "have": pool.nodes, "nodes": nodes, "spare": spare, "at_most": most.nodes, "gpus_used": used,
                    "node_price_per_hour": node_price, "cost_per_hour": node_price * (nodes + spare),
                }
            )  # fmt: skip
        return tuple(found)

    def json(self) -> dict[str, Any]:
        """Everything that is said, in JSON."""
        sized = self.sized
        strategies = {served.intent: [str(one.strategy) for one in served.candidates] for served in sized.placed.served}
        return {
            "pools": list(self.rows),
            "cost_per_hour": sized.cost_per_hour,
            "energy_per_hour": sized.energy_per_hour,
            "bound": sized.bound,
            "gap": sized.gap,
            "strategies": strategies,
            "unmet": dict(self.unmet),
            "notes": list(sized.notes),
            "tiers": {tier: TIER_WORDS[tier] for tier in dict.fromkeys(pool.tier for pool in self.cluster.pools)},
        }


def size_fleet(  # noqa: PLR0913 - what a user may ask for
    loaded: LoadedFleet,
    site: Site,
    *,
    perform: Perform = in_process,
    limits: Mapping[str, int] | None = None,
    everywhere: int | None = None,
    spare: int = 0,
) -> Sizing:
    """Search every intent on the fleet with its counts opened, then choose the cheapest counts.

    Raises BadInput for a limit on a pool that does not exist, or where no pool may have a node.
    """
    fleet = loaded.fleet
    names = [pool.name for pool in fleet.cluster.pools]
    for name in limits or {}:
        if name not in names:
            raise BadInput(f"--at-most names the pool {name!r}, which the fleet does not have",
                           mend=near_names(name, names))  # fmt: skip
    wide = opened(fleet, limits=limits, everywhere=everywhere)
    if not any(pool.nodes for pool in wide.cluster.pools):
        what = "no pool may have a node"
        raise BadInput(what, mend="write nodes: {at_most: 20} in fleet.yaml, or give --at-most 20")
    facts, searches = search_fleet(replace(loaded, fleet=wide), site, perform=perform)
    candidates = {name: search.candidates for name, search in searches.items()}

    def solve() -> Sized:
        return size(wide, candidates, prices=facts.prices, gpus=facts.gpus, spare=spare)

    (sized,) = perform([Step(stage="place", label="node counts", call=solve)])
    unmet = {}
    for served in sized.placed.served:
        if served.share < 1.0 - 1e-9:
            helps = [relaxation.text for relaxation in searches[served.intent].relaxations]
            unmet[served.intent] = "; ".join([served.reason.rstrip("."), *helps])
    return Sizing(cluster=fleet.cluster, asked=wide.cluster, prices=facts.prices, sized=sized, unmet=unmet)
