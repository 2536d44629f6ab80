"""The order of the change in Kubernetes: a step for each replica group, as Argo CD sync waves and as ordered folders.

A wave of the plan is two steps: its starts, and when they serve, its stops (the other way round where nothing can start
before something stops). A group is one object, so it takes its planned count in one step: that of its last start, or of
its last stop where nothing of it starts. Groups that do not change stand in step 0, before all others.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

from planner.diff import shape
from planner.manifests.index import Same
from planner.manifests.names import group_names, safe
from planner.plan import Plan, PlannedMove, PlannedWave

SYNC_WAVE = "argocd.argoproj.io/sync-wave"


def steps(plan: Plan) -> Mapping[str, int]:
    """Step of each group by its name; made once per plan."""
    return _steps(Same(plan))


@functools.lru_cache(maxsize=2)
def _steps(same: Same) -> dict[str, int]:
    plan, found = same.plan, dict[str, int]()
    if not plan.waves:
        return found
    names = group_names(plan)
    for starts in (False, True):  # a start overrules a stop
        last: dict[str, int] = {}
        for number, wave in enumerate(plan.waves):
            step = 2 * number + 1 + (starts == wave.stops_first)
            for move in wave.starts if starts else wave.stops:
                last |= {names[index]: step for index in _groups(plan, move)}
        found |= last
    return found


def _groups(plan: Plan, move: PlannedMove) -> list[int]:
    """The groups of the plan whose replicas a move starts or stops: none for what the plan does not run any more."""
    key = (move.intent, move.role, move.node_pool, move.configuration)
    groups = enumerate(plan.placements)
    if move.group is not None:
        return [move.group] if move.group < len(plan.placements) else []
    return [i for i, group in groups if (group.intent, group.role, group.node_pool, shape(group)) == key]


def sync_wave(plan: Plan, name: str) -> dict[str, str]:
    """The annotation that makes Argo CD wait for the steps before; none where nothing is ordered."""
    step = steps(plan).get(name, 0)
    return {SYNC_WAVE: str(step)} if step else {}


def folders(plan: Plan) -> dict[int, list[str]]:
    """Step -> the groups that it brings to their planned counts, in order."""
    found: dict[int, list[str]] = {}
    for name, step in sorted(steps(plan).items()):
        found.setdefault(step, []).append(name)
    return dict(sorted(found.items()))


def gone(wave: PlannedWave, plan: Plan) -> list[str]:
    """Deployments whose last replicas a wave stops and that the plan does not render any more."""
    names = set(group_names(plan))
    left = [move for move in wave.stops if not _groups(plan, move)]
    bases = [move.intent if move.role == "both" else f"{move.intent}-{move.role}" for move in left]
    return sorted({safe(base) for base in bases} - names)
