"""`Index`: a plan's intents, pools and groups by name, made once per plan."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

from catalog.flags import FlagValue
from planner.plan import IntentDecision, Plan, PoolUse, ReplicaGroup


@dataclass(frozen=True, slots=True)
class Index:
    """A plan's intents, pools and groups by name: formats look them up once per group."""

    intents: Mapping[str, IntentDecision]
    pools: Mapping[str, PoolUse]
    groups: Mapping[tuple[str, str], tuple[ReplicaGroup, ...]]
    arguments: dict[int, dict[str, FlagValue]]
    """What was worked out already, by the group's identity: formats ask for it again and again."""


class Same:
    """A plan compared by identity: hashing its content would cost more than the look-up saves."""

    __slots__ = ("plan",)

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def __hash__(self) -> int:
        return id(self.plan)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and other.plan is self.plan


def index(plan: Plan) -> Index:
    """Look up by name; made once per plan."""
    return _index(Same(plan))


@functools.lru_cache(maxsize=2)
def _index(same: Same) -> Index:
    groups: dict[tuple[str, str], tuple[ReplicaGroup, ...]] = {}
    for group in same.plan.placements:
        groups[group.intent, group.role] = (*groups.get((group.intent, group.role), ()), group)
    return Index(
        intents={intent.name: intent for intent in same.plan.intents},
        pools={pool.name: pool for pool in same.plan.pools},
        groups=groups,
        arguments={},
    )
