"""Refine a fingerprint: within a budget, measure the sizes that leave tonight's decision most in doubt."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from catalog.fingerprints import Fingerprint
from planner.fit.doubt import Axis, Doubt, doubts
from planner.plan import Plan, ReplicaGroup
from probes import grid

#: Log width of an axis's part of a step below which nothing more is measured: the noise of repeated runs.
ENOUGH = 0.02
#: Sizes per start of a runner, which costs seconds by itself.
_TOGETHER = 4
#: What a size costs beside its repeats, seconds, and how often it is run.
_FIXED_S, _RUNS = 0.05, 13
#: Width, as a factor of e, of the sizes around a planned one that matter as much.
_NEAR = 1.0

Where = tuple[Axis, grid.Size]
Weight = Callable[[Where], float]
Measure = Callable[[grid.Grid], Fingerprint]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refined:
    """A fingerprint with what was added, and why no more was."""

    fingerprint: Fingerprint
    added: tuple[Where, ...]
    widest: float
    """Greatest doubt that is left, a log width, weighted by how much tonight's plan leans on it."""
    ended: str


def refine(
    fingerprint: Fingerprint,
    measure: Measure,
    *,
    budget_s: float,
    weight: Weight = lambda _: 1.0,
    clock: Callable[[], float] = time.monotonic,
) -> Refined:
    """Measure further sizes, the most doubtful first, until all are certain enough or the budget is spent.

    `measure` gets the sizes of one start and answers with the whole fingerprint, those measured before included.
    """
    deadline, added = clock() + budget_s, dict[Where, None]()
    while True:
        left = {where: doubt for where, doubt in doubts(fingerprint.points).items() if where not in added}
        leaning = {where: doubt.width * weight(where) for where, doubt in left.items()}
        widest = max(leaning.values(), default=0.0)
        doubtful = {where: left[where] for where, width in leaning.items() if width > ENOUGH}
        if not doubtful or clock() >= deadline:
            ended = "the budget is spent" if doubtful else "certain enough"
            return Refined(fingerprint=fingerprint, added=tuple(added), widest=widest, ended=ended)
        chosen = _chosen(doubtful, weight)
        added |= dict.fromkeys(chosen)
        fingerprint = measure(grid.only(chosen))


def _chosen(left: dict[Where, Doubt], weight: Weight) -> list[Where]:
    """The next sizes, each the best of those that are left."""
    chosen: list[Where] = []
    for _ in range(min(_TOGETHER, len(left))):
        best = grid.next_point(
            [where for where in left if where not in chosen],
            interval={where: doubt.width for where, doubt in left.items()},
            weight={where: weight(where) for where in left},
            seconds={where: _FIXED_S + _RUNS * doubt.seconds for where, doubt in left.items()},
        )
        if best is not None:
            chosen.append(best)
    return chosen


def planned(plan: Plan | None, *, model: str, gpu: str) -> Weight:
    """How much a plan leans on each size: near the batches and chunks of the replicas that run the model there.

    Where no plan runs it, every size counts alike.
    """
    groups = [] if plan is None else [g for g in plan.placements if (g.model, g.gpu) == (model, gpu)]
    if not groups:
        return lambda _: 1.0

    def weight(where: Where) -> float:
        axis, (x, _) = where
        return max(_nearness(x, size) for size in _sizes(axis, groups))

    return weight


def _sizes(axis: Axis, groups: Iterable[ReplicaGroup]) -> set[int]:
    """Sizes along an axis that the groups' engines run at."""
    batches = {group.max_num_seqs for group in groups}
    chunks = {group.max_num_batched_tokens for group in groups}
    return {"tokens": batches | chunks, "prefill": chunks}.get(axis, batches)


def _nearness(x: int, size: int) -> float:
    """1 at the size and below it, as batches fill up to it; less beyond."""
    return 1.0 if x <= size else math.exp(-0.5 * (math.log(x / size) / _NEAR) ** 2)
