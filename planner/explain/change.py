"""The order of the change in words: wave by wave what starts, what stops after it, and what dips meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from planner.explain.words import counted
from planner.plan import Plan, PlannedMove, PlannedWave


def waves_of(plan: Plan, intent: str | None = None) -> tuple[tuple[int, tuple[str, ...]], ...]:
    """(number, sentences) of each wave of the plan's change, or of those that move or lower one intent."""
    told = ((number, tuple(_told(wave, intent))) for number, wave in enumerate(plan.waves, start=1))
    return tuple((number, lines) for number, lines in told if lines)


def _told(wave: PlannedWave, intent: str | None) -> Iterator[str]:
    def mine(moves: Sequence[PlannedMove]) -> list[PlannedMove]:
        return [move for move in moves if intent is None or move.intent == intent]

    named = intent is None
    starts = [f"start {moved(move, named=named)}" for move in mine(wave.starts)]
    stops = [f"stop {moved(move, named=named)}" for move in mine(wave.stops)]
    yield from (*stops, *starts) if wave.stops_first else (*starts, *stops)
    for dip in wave.dips:
        if intent is None or dip.intent == intent:
            yield f"until then {dip.served_share:.0%} of {dip.intent} is served"


def moved(move: PlannedMove, *, named: bool) -> str:
    """What moves: `2 replicas of h100_sxm-tp4-fp8 on h100-eu (chat, decode)`."""
    who = [move.intent] * named + [move.role] * (move.role != "both")
    aside = f" ({', '.join(who)})" if who else ""
    return f"{counted(move.replicas, 'replica')} of {move.configuration} on {move.node_pool}{aside}"
