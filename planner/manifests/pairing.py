"""Prefill and decode apart: what NixlConnector needs of a pair, and what it would refuse.

Read in vLLM 0.32, vllm/distributed/kv_transfer/kv_connector/v1/nixl: the handshake compares a hash of vLLM's version,
the model's name and shapes, the KV dtype and the attention backend (metadata.py), and then widths and layouts
(base_worker.py). On one GPU type both ends choose the same backend; over several it is named, so that they do: one that
all of them have, for vLLM ends where a named backend does not suit the GPU or the KV dtype.
"""

from __future__ import annotations

from catalog.flags import FlagValue
from catalog.gpus import GPU, load_gpus
from catalog.models import load_models
from planner.manifests.index import index
from planner.plan import Attention, Plan, ReplicaGroup, attention_of

KV_ROLES = {"prefill": "kv_producer", "decode": "kv_consumer"}
SIDE_CHANNEL_PORT = 5600
#: What NixlConnector's hash covers of a group; `quantization` besides, for it decides what the checkpoint holds.
ALIKE = ("checkpoint", "kv_dtype", "quantization")
#: CUDA compute capability x 10 from which Triton's kernels read fp8 (vllm/v1/attention/backends/triton_attn.py).
FP8_TRITON = 89


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
    """The backend to name where the two ends run on different GPU types; None where none is needed."""
    found = _shared(plan, group)
    return found[0] if found else None


def _shared(plan: Plan, group: ReplicaGroup) -> tuple[str | None, str] | None:
    """(backend, why there is none) over all GPU types that the group's intent hands KV between; None on one type."""
    peers = partners(plan, group)
    names = sorted({group.gpu, *(peer.gpu for peer in peers)})
    if not peers or len(names) == 1:
        return None
    # the peers of the peers too: one prefill group may feed decode groups on several types
    ends = [*peers, *partners(plan, peers[0])]
    known = load_gpus()
    names = sorted({end.gpu for end in ends})
    if any(name not in known for name in names):
        return None, f"nothing is known of {', '.join(name for name in names if name not in known)}"
    return common_backend([known[name] for name in names], attention(group), group.kv_dtype)


def attention(group: ReplicaGroup) -> Attention | None:
    """How the group's model attends: as the plan states, else as the catalog knows it."""
    if group.attention is not None:
        return group.attention
    model = load_models().get(group.model)
    return attention_of(model) if model else None


def common_backend(gpus: list[GPU], kind: Attention | None, kv_dtype: str) -> tuple[str | None, str]:
    """An attention backend that runs on all of these GPUs, or why there is none.

    Taken from `supports_compute_capability`, `supports_combination` and `supported_kv_cache_dtypes` of
    vllm/v1/attention/backends (0.32): FlashAttention reads fp8 KV and sinks, and MLA at all, on Hopper alone, dense
    FlashMLA runs on Hopper alone, Triton's kernels run everywhere and read fp8 from compute capability 8.9 on.
    """
    if any(gpu.vendor != "nvidia" for gpu in gpus):
        return None, f"{' and '.join(gpu.name for gpu in gpus)} share no attention backend that was read"
    if kind is None:
        return None, "how its model attends is not known"
    if all(gpu.compute_capability // 10 == 9 for gpu in gpus):
        hopper = "FLASH_ATTN_MLA" if kv_dtype == "bf16" else "FLASHMLA"
        return (hopper if kind == "mla" else "FLASH_ATTN"), ""
    if kv_dtype != "bf16" and min(gpu.compute_capability for gpu in gpus) < FP8_TRITON:
        return None, f"{kv_dtype} KV is read by no backend that {' and '.join(gpu.name for gpu in gpus)} share"
    if kind in ("full", "sliding") and kv_dtype == "bf16":
        return "FLASH_ATTN", ""
    return ("TRITON_MLA" if kind == "mla" else "TRITON_ATTN"), ""


def pairing_problems(plan: Plan) -> list[str]:
    """What NixlConnector would refuse between prefill and decode groups, one sentence each.

    Decode is to be at least as wide as prefill, in whole multiples: stricter than the handshake, which allows a
    narrower decode where no KV head is replicated.
    """
    problems: list[str] = []
    for group in plan.placements:
        peers = partners(plan, group)
        if group.role != "both" and not peers:
            problems.append(f"{group.intent}: {group.role} has no partner")
        if group.role == "prefill" and group.pp > 1 and attention(group) not in ("full", "mla"):
            problems.append(f"{group.intent}: prefill cannot be pipelined, its model's layers keep unequal KV")
        for peer in peers if group.role == "prefill" else ():
            same = [field for field in ALIKE if getattr(group, field) != getattr(peer, field)]
            problems += [f"{group.intent}: prefill and decode differ in {field}" for field in same]
            if peer.tp < group.tp or peer.tp % group.tp:
                problems.append(f"{group.intent}: decode TP {peer.tp} is no multiple of prefill TP {group.tp}")
            if peer.pp > 1:
                problems.append(f"{group.intent}: decode cannot be pipelined")
        shared = _shared(plan, group) if group.role == "prefill" else None
        if shared is not None and shared[0] is None:
            problems.append(
                f"{group.intent}: prefill and decode would choose different attention backends: {shared[1]}"
            )
    return list(dict.fromkeys(problems))
