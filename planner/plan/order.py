"""The order of the change as a plan states it: placement's waves, equal moves counted together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from planner.plan.nouns import Dip, PlannedMove, PlannedWave

if TYPE_CHECKING:
    from planner.placement.placed import Key, Move, Placed


def order(placed: Placed) -> tuple[PlannedWave, ...]:
    """State placement's waves; a start names its replica group by its index in the plan's placements."""
    groups: dict[tuple[str, Key], int] = {}
    for served in placed.served:
        for seats in served.seats:
            groups[served.intent, seats.key] = len(groups)
    return tuple(
        PlannedWave(
            starts=_together(wave.starts, groups),
            stops=_together(wave.stops, {}),
            stops_first=wave.stops_first,
            dips=tuple(Dip(intent=name, served_share=share) for name, share in wave.dips),
        )
        for wave in placed.waves
    )


def _together(moves: Sequence[Move], groups: dict[tuple[str, Key], int]) -> tuple[PlannedMove, ...]:
    """Equal moves as one, in the order of the first of each."""
    alike: dict[tuple[str, Key], list[Move]] = {}
    for move in moves:
        alike.setdefault((move.intent, (move.role, move.pool.node_pool, move.pool.configuration)), []).append(move)
    return tuple(
        PlannedMove(
            intent=intent,
            role=role,
            node_pool=node_pool,
            configuration=str(configuration),
            replicas=len(mine),
            gpus=math.ceil(configuration.whole_gpus * len(mine) - 1e-9),
            nodes=tuple("+".join(name for name, _ in move.nodes) for move in mine),
            group=groups.get((intent, (role, node_pool, configuration))),
        )
        for (intent, (role, node_pool, configuration)), mine in alike.items()
    )
