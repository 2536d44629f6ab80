"""Arguments of `vllm serve` for one replica group: what was planned is what is enforced.

Every argument is checked against the recorded table of the plan's vLLM version before it is handed out, so a plan for
a version that lacks a flag fails here and not in a cluster.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from catalog.errors import BadInput
from catalog.flags import FlagValue, check_arguments, flags, switch
from planner.manifests.index import index
from planner.manifests.pairing import attention_backend, kv_transfer
from planner.memory import default_utilization
from planner.plan import IntentDecision, Plan, ReplicaGroup

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
#: Flags whose values are secrets -> the environment variable that vLLM reads instead: plans and manifests are read by
#: many and kept for ever.
SECRETS = {"api-key": "VLLM_API_KEY", "hf-token": "HF_TOKEN"}
#: Seconds that a replica may take to finish what it serves before it is stopped.
DRAIN_S = (60, 600)


def arguments(plan: Plan, group: ReplicaGroup) -> dict[str, FlagValue]:
    """Long flags without dashes -> values, overrides merged last.

    Raises:
        BadInput: the plan's vLLM version has no recorded table, or would refuse an argument; or an override would write
            a secret down.
    """
    known = index(plan).arguments
    if not any(group is one for one in index(plan).groups.get((group.intent, group.role), ())):
        return _arguments(plan, group)  # a group that is not the plan's own may share its identity with a later one
    if id(group) not in known:
        known[id(group)] = _arguments(plan, group)
    return dict(known[id(group)])


def _arguments(plan: Plan, group: ReplicaGroup) -> dict[str, FlagValue]:
    version = plan.vllm_version
    intent = index(plan).intents.get(group.intent)
    for name in sorted(SECRETS.keys() & group.overrides.keys()):
        what = f"the override {name!r} of {group.intent!r} would write a secret into the plan and its manifests"
        raise BadInput(what, place="overrides", mend=f"give replicas {SECRETS[name]} from a secret of theirs")
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
        "gpu-memory-utilization": part_of_memory(version, group),
        "kv-cache-dtype": "bfloat16" if group.kv_dtype == "bf16" else group.kv_dtype,
        "quantization": group.online_quantization,
        switch(version, "enable-prefix-caching", on=group.enable_prefix_caching): True,
        "enable-chunked-prefill": True,
        "enable-mfu-metrics": True if "enable-mfu-metrics" in flags(version) else None,
        "custom-histogram-buckets": buckets(intent) if "custom-histogram-buckets" in flags(version) else None,
        "max-num-queued-tokens": queue_limit(group) if "max-num-queued-tokens" in flags(version) else None,
        "shutdown-timeout": drain_s(intent) if "shutdown-timeout" in flags(version) else None,
        "kv-transfer-config": kv_transfer(group),
        "attention-backend": attention_backend(plan, group) if "attention-backend" in flags(version) else None,
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


def queue_limit(group: ReplicaGroup) -> int | None:
    """Prompt tokens that one API server lets wait, so that a replica's together let wait what was planned.

    vLLM starts as many API servers as there are data-parallel ranks, and each counts its own requests alone
    (vllm/entrypoints/cli/serve.py, v1/engine/output_processor.py, 0.32). One whole request always fits.
    """
    planned = group.max_num_queued_tokens
    return None if planned is None else max(planned // group.dp, min(planned, group.max_model_len))


def part_of_memory(version: str, group: ReplicaGroup) -> float | None:
    """What must be free of a GPU when an engine that shares it starts; None where it has the GPU to itself.

    vLLM refuses to start unless that share of the whole memory is free, however small its KV space is set.
    """
    if group.engines_per_gpu == 1:
        return None
    return math.floor(1000 * default_utilization(version) / group.engines_per_gpu) / 1000


def drain_s(intent: IntentDecision | None) -> int:
    """Seconds to let running requests end: one and a half times the longest one predicted, within `DRAIN_S`."""
    longest = max((part.e2e.p99_s or 0.0 for part in intent.chosen if part.e2e), default=0.0) if intent else 0.0
    return int(min(max(DRAIN_S[0], 1.5 * longest), DRAIN_S[1]))
