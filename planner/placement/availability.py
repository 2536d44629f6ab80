"""What still serves after a node or a failure domain is lost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from planner.placement.placed import Seats, roles

if TYPE_CHECKING:
    from planner.intents import Intent
    from planner.placement.bins import BinClass
    from planner.strategies import Candidate, Pool


def survives(candidates: Sequence[Candidate], intent: Intent, classes: Mapping[str, BinClass]) -> bool:
    """Whether the intent's survival rule can hold for these candidates, replicas spread as well as the nodes allow.

    Necessary, not sufficient: `share_after_loss` of the actual seats decides.
    """
    target = intent.availability.share * min(1.0, sum(candidate.share for candidate in candidates)) - 1e-9
    if intent.availability.survive == "failure_domain":
        domains = {classes[pool.node_pool].pool.failure_domain for c in candidates for pool in c.strategy.pools}
        return all(_without_domain(candidates, domain, classes) >= target for domain in domains)
    spares = intent.availability.spares
    for hit in candidates:
        left = min(_left(p, -(-p.replicas // max(1, classes[p.node_pool].nodes)), spares) for p in hit.strategy.pools)
        rest = sum(_most(candidate) for candidate in candidates if candidate is not hit)
        if rest + _most(hit) * left < target:
            return False
    return True


def _without_domain(candidates: Sequence[Candidate], domain: str, classes: Mapping[str, BinClass]) -> float:
    def touched(candidate: Candidate) -> bool:
        return any(classes[pool.node_pool].pool.failure_domain == domain for pool in candidate.strategy.pools)

    return sum(_most(candidate) for candidate in candidates if not touched(candidate))


def _most(candidate: Candidate) -> float:
    """Share of the load that a candidate could serve if others fail: its headroom counts."""
    return candidate.share * candidate.headroom


def _left(pool: Pool, lost: int, spares: int) -> float:
    """Share of a pool's work that is left without `lost` replicas; its spares were never counted on."""
    return min(1.0, (pool.replicas - lost) / max(1, pool.replicas - spares))


def share_after_loss(
    candidates: Sequence[Candidate], seats: Sequence[Seats], *, unit_of: Callable[[str], str], spares: int
) -> dict[str, float]:
    """Share still served after the loss of each unit (`unit_of` maps a node name to a node, rack or domain).

    A candidate serves its share, and its headroom, with `spares` of its replicas gone; beyond those it falls in
    proportion, and a disaggregated one to its weaker side.
    """
    by_key = {seat.key: seat for seat in seats}
    units: dict[str, float] = {}
    lost_of: dict[tuple[object, str], int] = {}
    for key, seat in by_key.items():
        for nodes in seat.nodes:
            for unit in {unit_of(name) for name, _ in nodes}:
                units.setdefault(unit, 0.0)
                lost_of[key, unit] = lost_of.get((key, unit), 0) + 1
    for unit in units:
        for candidate in candidates:
            parts = [((role, pool.node_pool, pool.configuration), pool) for role, pool in roles(candidate)]
            left = min(_left(pool, lost_of.get((key, unit), 0), spares) for key, pool in parts)
            units[unit] += _most(candidate) * left
    return {unit: min(1.0, share) for unit, share in units.items()}
