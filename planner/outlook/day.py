"""The day in windows: how many replicas each part of it needs, and whether going down for it pays.

    minimise    sum over windows w of  hours · price · n_w  +  lead · price · max(0, n_w - n_(w-1))
    with        need_w <= n_w <= most,  windows in a ring

`need_w` is the fewest replicas whose goodput at the slow end covers the window's rate, spares and survivors on top.
What starts is started `lead` before its window, so that it serves when the window begins, and is paid for from then on:
that is the whole price of a transition. An optimum needs no other counts than the needs themselves, since lowering all
of a run of equal counts to the largest need inside never costs more; so the ring is a shortest path over few states.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

HOURS = 24.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """Replicas through the day, one count per equal window."""

    counts: tuple[int, ...]
    lead_hours: float

    @property
    def window_hours(self) -> float:
        """Length of a window."""
        return HOURS / len(self.counts)

    @property
    def starts(self) -> int:
        """Replicas that start in a day."""
        return sum(max(0, now - before) for before, now in self._steps())

    @property
    def replica_hours(self) -> float:
        """Hours that replicas are paid for, the leads included."""
        return self.window_hours * sum(self.counts) + self.lead_hours * self.starts

    @property
    def bounds(self) -> tuple[tuple[float, float, int], ...]:
        """(start hour, end hour, replicas) through the day, each rise moved ahead by the lead; equal ones joined."""
        edges = []
        for window, (before, now) in enumerate(self._steps()):
            if now != before:
                at = window * self.window_hours - (self.lead_hours if now > before else 0.0)
                edges.append((at % HOURS, now))
        if not edges:
            return ((0.0, HOURS, self.counts[0]),)
        edges.sort()
        parts = [(0.0, edges[-1][1])] * (edges[0][0] > 0) + edges
        ends = [start for start, _ in parts[1:]] + [HOURS]
        return tuple((start, end, count) for (start, count), end in zip(parts, ends, strict=True))

    def _steps(self) -> list[tuple[int, int]]:
        return list(zip((self.counts[-1], *self.counts[:-1]), self.counts, strict=True))


def rates(profile: Sequence[float], windows: int) -> tuple[float, ...]:
    """The busiest factor of each of `windows` equal windows; a factor counts wherever its own window reaches."""
    width, own = HOURS / windows, HOURS / len(profile)
    found = []
    for window in range(windows):
        first, last = math.floor(window * width / own + 1e-9), math.ceil((window + 1) * width / own - 1e-9)
        found.append(max(profile[first:last]))
    return tuple(found)


def fewest(serves: Callable[[int], float], rate: float, most: int) -> int:
    """Fewest replicas whose goodput reaches a rate, `most` where none does; goodput never falls with replicas."""
    if rate <= 0:
        return 0
    low, high = 1, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if serves(middle) >= rate else (middle + 1, high)
    return high


def cheapest(needs: Sequence[int], *, lead_hours: float) -> Course:
    """The course through the day that costs the fewest replica-hours; of equal ones the one with the fewest starts."""
    levels = sorted(set(needs))
    best: tuple[float, int, tuple[int, ...]] | None = None
    for first in (level for level in levels if level >= needs[0]):
        found = _round(needs, levels, first, lead_hours=lead_hours)
        if best is None or found < best:
            best = found
    assert best is not None  # noqa: S101 - the largest need is a level
    return Course(counts=best[2], lead_hours=lead_hours)


def _round(
    needs: Sequence[int], levels: Sequence[int], first: int, *, lead_hours: float
) -> tuple[float, int, tuple[int, ...]]:
    """(replica-hours, starts, counts) of the best course that begins with `first`, back to it at midnight."""
    hours = HOURS / len(needs)
    paths: dict[int, tuple[float, int, tuple[int, ...]]] = {first: (hours * first, 0, (first,))}

    def onward(path: tuple[float, int, tuple[int, ...]], level: int) -> tuple[float, int, tuple[int, ...]]:
        rise = max(0, level - path[2][-1])
        return path[0] + hours * level + lead_hours * rise, path[1] + rise, (*path[2], level)

    for need in needs[1:]:
        paths = {level: min(onward(p, level) for p in paths.values()) for level in levels if level >= need}
    closed = []
    for cost, starts, counts in paths.values():
        rise = max(0, first - counts[-1])
        closed.append((round(cost + lead_hours * rise, 9), starts + rise, counts))
    return min(closed)
