"""`Objection`: what stands against putting a plan in the place of the one that is live.

A plan is objected to if it is stale (made for another fleet, on another ground, or older than what is live), empty,
takes the last replica of a live service away without a tombstone, or moves more than the fleet allows. Movement is
counted as placement counts it: GPUs of replicas that start, of services that what runs already serves enough.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from planner.plan import Plan, ReplicaGroup

#: What tells replicas apart that cannot stand in for each other without a restart.
_KEY = ("intent", "role", "node_pool", "model", "gpu", "tp", "pp", "dp", "expert_parallel", "quantization", "kv_dtype",
        "max_num_seqs", "max_num_batched_tokens", "max_model_len", "enable_prefix_caching",
        "engines_per_gpu")  # fmt: skip
_SERVED = ("met", "margin_consumed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Objection:
    """One reason not to publish, and what would mend it."""

    kind: Literal["stale", "empty", "gone", "movement"]
    text: str
    mend: str


def review(
    plan: Plan,
    live: Plan | None,
    *,
    newest: int = 0,
    retired: Collection[str] = (),
    fleet_digest: str | None = None,
) -> tuple[Objection, ...]:
    """Say what stands against `plan` taking the place of `live`; nothing against what is live already.

    `newest` is the highest serial that was ever live, `retired` names tombstones besides the plan's own, and
    `fleet_digest` is that of the fleet as it is now, where it is known.
    """
    found = list(_stale_fleet(plan, fleet_digest))
    if live is not None and live.digest == plan.digest:
        return tuple(found)
    found += _stale_base(plan, live, newest)
    if not plan.placements:
        found.append(
            Objection(kind="empty", text="it places nothing at all", mend="fleetplan explain says why; plan again")
        )
    if live is not None:
        found += _gone(plan, live, retired)
        found += _movement(plan, live)
    return tuple(found)


def _stale_fleet(plan: Plan, digest: str | None) -> list[Objection]:
    if digest is None or digest == plan.fleet_digest:
        return []
    text = f"it was made for fleet {plan.fleet_digest[:12]}, the fleet is {digest[:12]} now"
    return [Objection(kind="stale", text=text, mend="plan again: fleetplan plan fleet.yaml")]


def _stale_base(plan: Plan, live: Plan | None, newest: int) -> list[Objection]:
    """A plan may skip plans that were never live; it must not be older than what is, nor know nothing of it."""
    serial = max(newest, live.serial if live else 0)
    if serial >= plan.serial > 0:
        text = f"its serial is {plan.serial}, plan {serial} was published here already"
        return [Objection(kind="stale", text=text, mend="publish a newer plan; fleetplan rollback takes one back")]
    if live is not None and not plan.changed_from:
        text = f"it was made as if nothing ran, plan {live.serial} is live"
        return [Objection(kind="stale", text=text, mend="plan again with --out on the folder of the plan in force")]
    return []


def gone(plan: Plan, live: Plan) -> tuple[str, ...]:
    """Services that run in `live` and have no replica in `plan`."""
    return tuple(sorted(_running(live) - _running(plan)))


def _gone(plan: Plan, live: Plan, retired: Collection[str]) -> list[Objection]:
    models = {group.intent: group.model for group in live.placements}
    lost = [name for name in gone(plan, live) if name not in {*plan.retired, *retired}]
    return [
        Objection(
            kind="gone",
            text=f"{name!r} ({models[name]}) is live and would have no replica left",
            mend=f"write retired: [{name}] into the fleet, or say --retire {name}",
        )
        for name in lost
    ]


def _running(plan: Plan) -> set[str]:
    return {group.intent for group in plan.placements if group.replicas > 0}


def _replicas(plan: Plan) -> Counter[tuple[object, ...]]:
    found: Counter[tuple[object, ...]] = Counter()
    for group in plan.placements:
        found[_key(group)] += group.replicas
    return found


def _key(group: ReplicaGroup) -> tuple[object, ...]:
    return tuple(getattr(group, name) for name in _KEY)


def moved_gpus(plan: Plan, live: Plan) -> int:
    """GPUs of replicas that would start, of services that what runs already serves enough; rounded up if shared."""
    settled = _settled(plan, live)
    size = {_key(group): _whole_gpus(group) for group in plan.placements}
    more = _replicas(plan) - _replicas(live)
    return math.ceil(sum(count * size[key] for key, count in more.items() if key[0] in settled))


def _whole_gpus(group: ReplicaGroup) -> Fraction:
    """GPUs of one replica, a part of one as that part."""
    return Fraction(group.gpus_per_replica, group.engines_per_gpu)


def _settled(plan: Plan, live: Plan) -> set[str]:
    """As the plan says where it was made from what is live; else what was served and does not ask for more now."""
    if plan.movement is not None and plan.changed_from == live.digest:
        return set(plan.movement.settled)
    before = {decision.name: decision for decision in live.intents if decision.status in _SERVED}
    return {
        decision.name
        for decision in plan.intents
        if (old := before.get(decision.name)) is not None
        and (old.model, old.slo) == (decision.model, decision.slo)
        and decision.rate <= old.rate
    }


def _movement(plan: Plan, live: Plan) -> list[Objection]:
    if plan.movement is None:
        return []
    running = float(sum(group.replicas * _whole_gpus(group) for group in live.placements))
    forced = plan.movement.forced_gpus if plan.changed_from == live.digest else 0
    # the share was rounded to six digits when the plan was sealed
    allowed = math.floor(plan.movement.share * running * (1.0 + 1e-5) + 1e-9) + forced
    moved = moved_gpus(plan, live)
    if moved <= allowed:
        return []
    text = f"it starts {moved} GPUs anew, movement {plan.movement.share:g} of {running:g} allows {allowed}"
    mend = "publish the plans between, or raise movement: in the fleet and plan again"
    return [Objection(kind="movement", text=text, mend=mend)]
