"""Arguments of `vllm serve` for one replica group: what was planned is what is enforced.

Every argument is checked against the recorded table of the plan's vLLM version before it is handed out, so a plan for
a version that lacks a flag fails here and not in a cluster.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from catalog.errors import BadInput
from catalog.flags import FlagValue, check_arguments, flags, switch
from planner.plan import IntentDecision, Plan, PoolUse, ReplicaGroup

#: Bucket edges of vLLM's own histograms, seconds (vllm/v1/metrics/buckets.py, 0.32): the SLO's edge joins them, so
#: that attainment is read off exactly and other models' histograms still add up.
BUCKETS: dict[str, tuple[float, ...]] = {
    "time_to_first_token": (
        0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
        160.0, 640.0, 2560.0,
    ),
    "inter_token_latency": (
        0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
    ),
    "request_latency": (
        0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0,
        1920.0, 7680.0,
    ),
}  # fmt: skip
FAMILIES = {"ttft": "time_to_first_token", "tpot": "inter_token_latency", "e2e": "request_latency"}
#: Seconds that a replica may take to finish what it serves before it is stopped.
DRAIN_S = (60, 600)
KV_ROLES = {"prefill": "kv_producer", "decode": "kv_consumer"}
SIDE_CHANNEL_PORT = 5600


@dataclass(frozen=True, slots=True)
class Index:
    """A plan's intents, pools and groups by name: formats look them up once per group."""

    intents: Mapping[str, IntentDecision]
    pools: Mapping[str, PoolUse]
    groups: Mapping[tuple[str, str], tuple[ReplicaGroup, ...]]


class _Same:
    """A plan compared by identity: hashing its content would cost more than the look-up saves."""

    __slots__ = ("plan",)

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def __hash__(self) -> int:
        return id(self.plan)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.plan is self.plan


def index(plan: Plan) -> Index:
    """Look up by name; made once per plan."""
    return _index(_Same(plan))


@functools.lru_cache(maxsize=2)
def _index(same: _Same) -> Index:
    groups: dict[tuple[str, str], tuple[ReplicaGroup, ...]] = {}
    for group in same.plan.placements:
        groups[group.intent, group.role] = (*groups.get((group.intent, group.role), ()), group)
    return Index(
        intents={intent.name: intent for intent in same.plan.intents},
        pools={pool.name: pool for pool in same.plan.pools},
        groups=groups,
    )


def arguments(plan: Plan, group: ReplicaGroup) -> dict[str, FlagValue]:
    """Long flags without dashes -> values, overrides merged last.

    Raises:
        BadInput: the plan's vLLM version has no recorded table, or would refuse an argument.
    """
    version = plan.vllm_version
    intent = index(plan).intents.get(group.intent)
    planned: dict[str, FlagValue | None] = {
        "model": group.checkpoint,
        "served-model-name": [group.model],
        "tensor-parallel-size": group.tp,
        "pipeline-parallel-size": group.pp,
        "data-parallel-size": group.dp if group.dp > 1 else None,
        "enable-expert-parallel": True if group.expert_parallel else None,
        "max-num-seqs": group.max_num_seqs,
        "max-num-batched-tokens": group.max_num_batched_tokens,
        "max-model-len": group.max_model_len,
        "kv-cache-memory-bytes": group.kv_cache_memory_bytes,
        "kv-cache-dtype": "bfloat16" if group.kv_dtype == "bf16" else group.kv_dtype,
        "quantization": group.online_quantization,
        switch(version, "enable-prefix-caching", on=group.enable_prefix_caching): True,
        "enable-chunked-prefill": True,
        "enable-mfu-metrics": True if "enable-mfu-metrics" in flags(version) else None,
        "custom-histogram-buckets": buckets(intent) if "custom-histogram-buckets" in flags(version) else None,
        "max-num-queued-tokens": group.max_num_queued_tokens if "max-num-queued-tokens" in flags(version) else None,
        "shutdown-timeout": drain_s(intent) if "shutdown-timeout" in flags(version) else None,
        "kv-transfer-config": kv_transfer(group),
        "attention-backend": attention_backend(plan, group),
    }
    chosen = {name: value for name, value in planned.items() if value is not None} | group.overrides
    problems = check_arguments(version, chosen)
    if problems:
        raise BadInput(
            f"vLLM {version} would refuse the arguments of {group.intent!r}: {'; '.join(problems)}",
            place="overrides" if group.overrides else "plan",
            mend="mend the overrides, or plan for another vLLM version",
        )
    return dict(sorted(chosen.items()))


def argv(settings: Mapping[str, FlagValue]) -> list[str]:
    """The arguments as a command line after `vllm serve`: the model first, then one string per flag."""
    line = [str(settings["model"])] if "model" in settings else []
    for name, value in sorted(settings.items()):
        match value:
            case _ if name == "model":
                continue
            case True:
                line.append(f"--{name}")
            case dict():
                line.append(f"--{name}={compact(value)}")
            case list():
                line += [f"--{name}", *map(str, value)]
            case _:
                line.append(f"--{name}={value}")
    return line


def compact(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """JSON in one line, keys sorted."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def buckets(intent: IntentDecision | None) -> dict[str, object] | None:
    """Histogram edges by family, with the SLO's limits among them."""
    limits = {} if intent is None else {FAMILIES[key]: value for key, value in intent.slo.items() if key in FAMILIES}
    return {family: sorted({*BUCKETS[family], limit}) for family, limit in sorted(limits.items())} or None


def drain_s(intent: IntentDecision | None) -> int:
    """Seconds to let running requests end: one and a half times the longest one predicted, within `DRAIN_S`."""
    longest = max((part.e2e.p99_s or 0.0 for part in intent.chosen if part.e2e), default=0.0) if intent else 0.0
    return int(min(max(DRAIN_S[0], 1.5 * longest), DRAIN_S[1]))


def kv_transfer(group: ReplicaGroup) -> FlagValue | None:
    """NIXL between prefill and decode: the producer and the consumer named apart (kv_both is deprecated)."""
    if group.role == "both":
        return None
    return {
        "kv_connector": "NixlConnector",
        "kv_role": KV_ROLES[group.role],
        "kv_load_failure_policy": "recompute",
    }


def partners(plan: Plan, group: ReplicaGroup) -> tuple[ReplicaGroup, ...]:
    """The groups at the other end of the KV transfer."""
    other = {"prefill": "decode", "decode": "prefill"}.get(group.role, "")
    return index(plan).groups.get((group.intent, other), ())


def attention_backend(plan: Plan, group: ReplicaGroup) -> FlagValue | None:
    """Name the backend where the two ends run on different GPU types: NIXL's handshake demands the same one."""
    differs = any(peer.gpu != group.gpu for peer in partners(plan, group))
    return "FLASH_ATTN" if differs and "attention-backend" in flags(plan.vllm_version) else None


def pairing_problems(plan: Plan) -> list[str]:
    """What NixlConnector would refuse between prefill and decode groups, one sentence each.

    Compared is what its handshake hashes (model, KV dtype; vLLM/distributed/kv_transfer/kv_connector/v1/nixl) and the
    rule that decode is at least as wide as prefill, with whole multiples.
    """
    problems: list[str] = []
    for group in plan.placements:
        peers = partners(plan, group)
        if group.role != "both" and not peers:
            problems.append(f"{group.intent}: {group.role} has no partner")
        for peer in peers if group.role == "prefill" else ():
            same = [field for field in ("checkpoint", "kv_dtype", "quantization") if _differ(group, peer, field)]
            problems += [f"{group.intent}: prefill and decode differ in {field}" for field in same]
            if peer.tp < group.tp or peer.tp % group.tp:
                problems.append(f"{group.intent}: decode TP {peer.tp} is no multiple of prefill TP {group.tp}")
            if peer.pp > 1:
                problems.append(f"{group.intent}: decode cannot be pipelined")
    return problems


def _differ(one: ReplicaGroup, other: ReplicaGroup, field: str) -> bool:
    return bool(getattr(one, field) != getattr(other, field))
