"""From chosen columns to seats: class by class, packing by patterns where first-fit fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from planner.placement.nodes import Assignment, assign, fill_bins
from planner.placement.patterns import packing
from planner.placement.placed import Key, Seats, roles
from planner.placement.room import Wanted

if TYPE_CHECKING:
    from planner.intents import Fleet, Intent
    from planner.placement.legal import Ground
    from planner.placement.running import Running
    from planner.placement.solve import Solver
    from planner.strategies import Candidate, Pool


@dataclass(frozen=True, slots=True, kw_only=True)
class Seating:
    """Seats of every intent, or the classes where they did not fit."""

    seats: Mapping[str, tuple[Seats, ...]]
    unplaced: Mapping[str, int]
    """GPUs without room, by node pool; empty = everything sits."""


def seat(
    fleet: Fleet,
    chosen: Mapping[str, Sequence[Candidate]],
    ground: Ground,
    now: Running,
    solver: Solver,
) -> Seating:
    """Give every replica of the chosen candidates its nodes."""
    wanted: dict[str, list[Wanted]] = {name: [] for name in ground.classes}
    for intent in fleet.intents:
        for want in _wanted(intent, chosen.get(intent.name, ()), ground):
            wanted[want.key[1]].append(want)
    found = {name: _assign(name, wanted[name], ground, now, solver) for name in ground.classes}
    unplaced = {name: assignment.unplaced for name, assignment in found.items() if assignment.unplaced}
    seats = {
        intent.name: tuple(
            _seats(found, intent.name, role, pool)
            for candidate in chosen.get(intent.name, ())
            for role, pool in roles(candidate)
        )
        for intent in fleet.intents
    }
    return Seating(seats=seats, unplaced=unplaced)


def per_node(intent: Intent, candidates: Sequence[Candidate]) -> int | None:
    """Most replicas that one node should hold: the spares, or what the survival rule can lose; None = any number."""
    rule = intent.availability
    if rule.survive != "node":
        return max(1, rule.spares) if rule.spares else None
    share = sum(candidate.share for candidate in candidates)
    most = min((_bearable(pool, candidate.share, share, intent) for candidate, pool in _pools(candidates)), default=1)
    return max(1, most)


def _pools(candidates: Sequence[Candidate]) -> list[tuple[Candidate, Pool]]:
    return [(candidate, pool) for candidate in candidates for pool in candidate.strategy.pools]


def _bearable(pool: Pool, mine: float, total: float, intent: Intent) -> int:
    """Replicas of a pool that may go at once with the rule still kept."""
    rule = intent.availability
    needed = max(0.0, rule.share * min(1.0, total) - (total - mine)) / mine
    return max(1, int(pool.replicas - needed * max(1, pool.replicas - rule.spares) + 1e-9))


def _wanted(intent: Intent, candidates: Sequence[Candidate], ground: Ground) -> list[Wanted]:
    most = per_node(intent, candidates)
    found = []
    for candidate in candidates:
        for role, pool in roles(candidate):
            key: Key = (role, pool.node_pool, pool.configuration)
            slot = ground.slot(pool) or 0
            found.append(Wanted(intent=intent.name, key=key, replicas=pool.replicas, slot=slot, per_node=most))
    return found


def _assign(name: str, wanted: Sequence[Wanted], ground: Ground, now: Running, solver: Solver) -> Assignment:
    bins = ground.classes[name]
    found = assign(bins, wanted, now.replicas)
    if not found.unplaced:
        return found
    counts: dict[int, int] = {}
    for want in wanted:
        counts[want.slot] = counts.get(want.slot, 0) + want.replicas
    filled = packing(bins, counts, solver)
    return found if filled is None else fill_bins(bins, wanted, now.replicas, filled)


def _seats(found: Mapping[str, Assignment], intent: str, role: str, pool: Pool) -> Seats:
    key = (role, pool.node_pool, pool.configuration)
    assignment = found[pool.node_pool]
    return Seats(
        role=role,  # type: ignore[arg-type]  # one of the three roles
        pool=pool,
        nodes=assignment.places[intent, key],  # type: ignore[index]
        kept=assignment.kept[intent, key],  # type: ignore[index]
    )
