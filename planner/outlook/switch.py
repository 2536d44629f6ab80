"""Switch: what another of an intent's strategies would save in the quiet windows of its day, its transitions paid.

    minimise  sum over windows w of  hours · cost_w  +  lead · (cost of what begins),  cost_w by day or by the other

A plan keeps one strategy all day: two would double what is deployed and warmed. But whoever reads it should know what
that is worth. The other strategy is a candidate of the same search, so its limits hold at its share of the load; it may
run where that share covers the window's rate and its GPUs are free then, counted by node pool, others as planned. Two
ways through a ring of windows (the day's strategy or the other) make a shortest path.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from catalog.units import SECONDS_PER_HOUR
from planner.candidates.screen import LATENCY_GOALS
from planner.explain.words import clock
from planner.intents import Fleet, Intent
from planner.outlook.day import HOURS
from planner.outlook.windows import Group
from planner.plan import IntentDay, IntentDecision, PoolUse
from planner.strategies import Candidate

#: Goals and rules under which another strategy by the hour would be another service.
STEADY = (*LATENCY_GOALS, "failure_domain")
#: What saves less than this share of the day's cost is not worth a word.
WORTH = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """The candidate that would save most, the windows it would run in, and dollars a day."""

    candidate: Candidate
    windows: tuple[int, ...]
    saves: float


def switch(
    day: IntentDay,
    candidates: Sequence[Candidate],
    *,
    rate: float,
    free: Sequence[Mapping[str, int]],
    lead_hours: float,
) -> Switch | None:
    """The best change of strategy within the day, None where none is worth its transitions.

    `rate` is what the candidates' shares are of, requests/s; `free` says by window how many GPUs of each node pool this
    intent may use, its own included.
    """
    best: Switch | None = None
    for candidate in sorted(candidates, key=lambda one: (one.cost_per_hour, str(one.strategy))):
        able = [
            part.rate <= candidate.share * rate * (1 + 1e-9) and _fits(candidate, room)
            for part, room in zip(day.parts, free, strict=True)
        ]
        through = _Ring(day=tuple(part.cost_per_hour for part in day.parts), other=candidate.cost_per_hour,
                        lead_hours=lead_hours)  # fmt: skip
        spent, path = min(through.paths(able))
        saves = through.cost((False,) * len(able)) - spent
        if saves > max(WORTH * day.cost, best.saves if best else 0.0) + 1e-9:
            windows = tuple(window for window, other in enumerate(path) if other)
            best = Switch(candidate=candidate, windows=windows, saves=saves)
    return best


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """The whole fleet's day, in which one intent might change strategy."""

    fleet: Fleet
    pools: tuple[PoolUse, ...]
    groups: tuple[Group, ...]
    candidates: Mapping[str, Sequence[Candidate]]

    def free(self, intent: str) -> list[dict[str, int]]:
        """By window, GPUs of each pool of which no GPU is shared: what no other intent holds then, as planned."""
        windows = []
        for window in range(self.fleet.day.windows):
            free = Counter({pool.name: pool.gpus - pool.used for pool in self.pools})
            for group in self.groups:
                kept = 0 if group.intent == intent else group.course.counts[window]
                free[group.seats.pool.node_pool] += (group.most - kept) * group.seats.pool.configuration.gpus
            windows.append({p.name: free[p.name] for p in self.fleet.cluster.pools if p.engines_per_gpu == 1})
        return windows


def priced(decision: IntentDecision, intent: Intent, market: Market, *, rate: float) -> IntentDecision:
    """The decision, its day with what another strategy would save; `rate` is what candidates' shares are of."""
    day = decision.day
    if day is None or intent.goal in STEADY or intent.availability.survive in STEADY:
        return decision
    chosen = {choice.strategy for choice in decision.chosen}
    others = [one for one in market.candidates.get(intent.name, ()) if str(one.strategy) not in chosen]
    lead = market.fleet.day.start_time / SECONDS_PER_HOUR
    found = switch(day, others, rate=rate, free=market.free(intent.name), lead_hours=lead)
    if found is None:
        return decision
    hours = ", ".join(_hours(day, found.windows))
    said = f"{found.candidate.strategy} at {hours} UTC"
    return decision.model_copy(update={"day": day.model_copy(update={"switch": said, "switch_saves": found.saves})})


def _hours(day: IntentDay, windows: Sequence[int]) -> Iterator[str]:
    """`00:00-08:00`: windows that follow one another as one span."""
    spans: list[tuple[float, float]] = []
    for part in (day.parts[window] for window in windows):
        joined = spans and spans[-1][1] == part.start_hour
        spans[-1:] = [(spans[-1][0], part.end_hour)] if joined else [*spans[-1:], (part.start_hour, part.end_hour)]
    yield from (f"{clock(start)}-{clock(end)}" for start, end in spans)


def _fits(candidate: Candidate, room: Mapping[str, int]) -> bool:
    return all(gpus <= room.get(name, 0) for name, gpus in candidate.gpus)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ring:
    """Dollars per hour of each window by the day's strategy, and of the other one."""

    day: tuple[float, ...]
    other: float
    lead_hours: float

    def step(self, window: int, before: bool, now: bool) -> float:  # noqa: FBT001 - states: True = the other runs
        """Dollars of one window, and of what begins for it: all of a strategy that comes, else what it grows by."""
        was, here = (self.other if state else self.day[at] for state, at in ((before, window - 1), (now, window)))
        begins = here if before != now else max(0.0, here - was)
        return HOURS / len(self.day) * here + self.lead_hours * begins

    def cost(self, path: Sequence[bool]) -> float:
        """Dollars of a whole day."""
        return sum(self.step(window, path[window - 1], now) for window, now in enumerate(path))

    def paths(self, able: Sequence[bool]) -> Iterator[tuple[float, tuple[bool, ...]]]:
        """(dollars, states) of the best way round from each first state to each last one."""
        states = [(False, True) if may else (False,) for may in able]
        for first in states[0]:
            ways: dict[bool, tuple[float, tuple[bool, ...]]] = {first: (0.0, (first,))}
            for window in range(1, len(able)):
                ways = {
                    now: min((spent + self.step(window, path[-1], now), (*path, now)) for spent, path in ways.values())
                    for now in states[window]
                }
            yield from ((spent + self.step(0, path[-1], first), path) for spent, path in ways.values())
