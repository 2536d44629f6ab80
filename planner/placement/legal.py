"""Whether an intent may use a candidate at all: everything that no row of the integer program needs to say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from planner.placement.bins import BinClass
from planner.placement.placed import roles
from planner.strategies import Candidate, Configuration, Pool

if TYPE_CHECKING:
    from planner.intents import Intent


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What legality is checked against: the bins, and the catalog's name of each GPU that users may spell otherwise."""

    classes: Mapping[str, BinClass]
    gpu_names: Mapping[str, str] = field(default_factory=dict)
    slots: dict[tuple[str, Configuration], int | None] = field(default_factory=dict)
    """Remembered answers of `BinClass.slot`."""
    rooms: dict[tuple[str, int], int] = field(default_factory=dict)
    """Remembered answers of `BinClass.capacity`."""

    def slot(self, pool: Pool) -> int | None:
        """GPUs that one replica of the pool is charged; None = it cannot run there."""
        key = (pool.node_pool, pool.configuration)
        if key not in self.slots:
            self.slots[key] = self.classes[pool.node_pool].slot(pool.configuration)
        return self.slots[key]

    def room(self, name: str, slot: int) -> int:
        """GPUs of a class that slots of that size can take at most."""
        if (name, slot) not in self.rooms:
            bins = self.classes[name]
            self.rooms[name, slot] = bins.capacity(min(slot, bins.node))
        return self.rooms[name, slot]

    def gpu(self, name: str) -> str:
        """The catalog's spelling of a GPU name."""
        return self.gpu_names.get(name, name)


def objection(candidate: Candidate, intent: Intent, ground: Ground) -> str:
    """Why the intent may not use the candidate; empty where it may. One sentence, without the intent's name."""
    price = candidate.cost_per_hour
    if not (math.isfinite(price) and price > 0):
        return f"its cost {price!r} USD/h is missing, zero or not a number"
    if not (math.isfinite(candidate.share) and 0 < candidate.share <= 1 + 1e-9):
        return f"its share {candidate.share!r} is not within (0, 1]"
    if intent.budget is not None and price > intent.budget * (1 + 1e-9):
        return f"it costs {price:.2f} USD/h, above the budget of {intent.budget:.2f} USD/h"
    if candidate.quality < intent.quality - 1e-9:
        return f"its quality {candidate.quality:.3f} is below the floor {intent.quality:.3f}"
    if intent.disaggregated == "forbidden" and candidate.strategy.kind == "disaggregated":
        return "the intent forbids disaggregation"
    if intent.disaggregated == "required" and candidate.strategy.kind != "disaggregated":
        return "the intent requires disaggregation"
    replicas = sum(pool.replicas for pool in candidate.strategy.pools)
    if intent.max_replicas is not None and replicas > intent.max_replicas:
        return f"it takes {replicas} replicas, above max_replicas {intent.max_replicas}"
    for _, pool in roles(candidate):
        if said := _pool_objection(pool, intent, ground):
            return said
    return _pairing_objection(candidate, ground)


def _pool_objection(pool: Pool, intent: Intent, ground: Ground) -> str:  # noqa: C901 - one line per reason
    if pool.node_pool not in ground.classes:
        return f"it needs node pool {pool.node_pool!r}, which the cluster does not have"
    if pool.node_pool in intent.forbidden_pools or (intent.pools is not None and pool.node_pool not in intent.pools):
        return f"the intent may not use node pool {pool.node_pool!r}"
    bins = ground.classes[pool.node_pool]
    configuration = pool.configuration
    if ground.gpu(configuration.gpu) != bins.gpu and configuration.gpu != bins.pool.gpu:
        return f"it needs {configuration.gpu!r}, and node pool {pool.node_pool!r} holds {bins.gpu!r}"
    if bins.gpu in {ground.gpu(name) for name in intent.forbidden_gpus}:
        return f"the intent forbids GPU {bins.gpu!r}"
    if intent.gpus is not None and bins.gpu not in {ground.gpu(name) for name in intent.gpus}:
        return f"the intent allows only {', '.join(intent.gpus)}"
    if intent.quantizations is not None and configuration.quantization not in intent.quantizations:
        return f"the intent does not allow quantization {configuration.quantization!r}"
    if intent.kv_dtypes is not None and configuration.kv_dtype not in intent.kv_dtypes:
        return f"the intent does not allow KV dtype {configuration.kv_dtype!r}"
    if pool.replicas < 1:
        return "it has no replicas"
    slot = ground.slot(pool)
    if configuration.engines_per_gpu != bins.parts:
        wants = "a GPU alone" if configuration.engines_per_gpu == 1 else f"1/{configuration.engines_per_gpu} of a GPU"
        return f"it takes {wants}, and {bins.parts} engines share each GPU of node pool {pool.node_pool!r}"
    if slot is None:
        return f"tp {configuration.tp} is wider than a link domain of {bins.domain} GPUs in {pool.node_pool!r}"
    room = ground.room(pool.node_pool, slot)
    if slot * pool.replicas > room:
        return f"it needs {slot * pool.replicas} GPUs of {pool.node_pool!r}, where {room} stand in slots of {slot}"
    return ""


def _pairing_objection(candidate: Candidate, ground: Ground) -> str:
    """Prefill and decode exchange KV blocks: same pool, or pools that name the same fabric."""
    used = {pool.node_pool for pool in candidate.strategy.pools}
    fabrics = {ground.classes[name].pool.network.fabric for name in used}
    if len(used) > 1 and (len(fabrics) > 1 or None in fabrics):
        return f"prefill and decode pools {' and '.join(sorted(used))} share no fabric"
    return ""
