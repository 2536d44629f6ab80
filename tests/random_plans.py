"""Plans drawn at random over every catalog model, format, parallelism and role, for checks of what is emitted."""

from __future__ import annotations

import random
from pathlib import Path

from catalog.models import Model, load_models
from catalog.quantizations import QUANTIZATIONS, QuantizationName
from planner.plan import NodeShare, Plan, ReplicaGroup, checkpoint_of, from_json, seal

SAMPLE = Path(__file__).parent / "plans" / "sample.json"
MODELS = load_models()
POOLS = {"h100-eu": ("h100_sxm", 8), "l40s-eu": ("l40s", 4), "h200-us": ("h200_sxm", 8), "mi300x-us": ("mi300x", 8)}


def formats(model: Model) -> list[QuantizationName]:
    """Weight formats that the model can be served in."""
    published = {model.native, *(name for name, _ in model.checkpoints)}
    online = {name for name, one in QUANTIZATIONS.items() if one.vllm and model.native == "bf16"}
    return sorted(published | online)


def widths(model: Model) -> list[int]:
    """Tensor parallelism that divides the attention heads."""
    heads = {layer.num_heads for layer, _ in model.layers}
    return [tp for tp in (1, 2, 4, 8) if all(count % tp == 0 for count in heads)]


def nodes(pool: str, replicas: int, gpus: int, size: int) -> tuple[tuple[NodeShare, ...], ...]:
    """Seats one after another: whole nodes for a replica larger than one."""
    if gpus > size:
        per = -(-gpus // size)
        spans = [range(per * replica, per * (replica + 1)) for replica in range(replicas)]
        return tuple(tuple(NodeShare(node=f"{pool}-{i}", gpus=gpus // per) for i in span) for span in spans)
    per = size // gpus
    return tuple((NodeShare(node=f"{pool}-{replica // per}", gpus=gpus),) for replica in range(replicas))


def group(draw: random.Random, model: Model, intent: str, **more: object) -> ReplicaGroup:
    """One replica group of a model."""
    pool = draw.choice(sorted(POOLS))
    gpu, size = POOLS[pool]
    quantization = draw.choice(formats(model))
    checkpoint, online = checkpoint_of(model, quantization)
    tp = draw.choice(widths(model))
    expert = model.moe is not None and draw.random() < 0.5
    dp = draw.choice([1, 2, 4]) if model.moe is not None and tp <= 2 else 1
    pp = draw.choice([1, 1, 2]) if dp == 1 else 1
    made = {
        "intent": intent, "role": "both", "model": model.name, "checkpoint": checkpoint, "gpu": gpu, "node_pool": pool,
        "replicas": draw.randint(1, 4), "tp": tp, "pp": pp, "dp": dp, "expert_parallel": expert,
        "quantization": quantization, "kv_dtype": draw.choice(["bf16", "fp8"]), "online_quantization": online,
        "max_num_seqs": draw.choice([1, 16, 256, 1024]), "max_num_batched_tokens": draw.choice([2048, 8192, 16384]),
        "max_model_len": draw.choice([2048, 4096]), "enable_prefix_caching": draw.random() < 0.5,
        "kv_cache_memory_bytes": draw.randint(10**9, 10**11), "router": "least_requests",
        "max_num_queued_tokens": draw.choice([None, 20_000]),
    } | more  # fmt: skip
    gpus = made["tp"] * made["pp"] * made["dp"]
    made |= {"gpus_per_replica": gpus, "nodes": nodes(made["node_pool"], made["replicas"], gpus, size)}
    return ReplicaGroup(**made)


def random_plan(seed: int) -> Plan:
    """One plan: a collocated intent and a disaggregated one, the models taken in turn so that all occur."""
    draw = random.Random(seed)  # noqa: S311 - a test's draw
    names = sorted(MODELS)
    plan = from_json(SAMPLE.read_text(encoding="utf-8"))
    alone = group(draw, MODELS[names[seed % len(names)]], plan.intents[0].name)
    other = MODELS[names[(seed * 7 + 3) % len(names)]]
    decode = group(draw, other, plan.intents[2].name, role="decode", pp=1)
    narrower = draw.choice([tp for tp in widths(other) if tp <= decode.tp])
    same = {key: getattr(decode, key) for key in ("checkpoint", "quantization", "online_quantization", "kv_dtype")}
    prefill = group(draw, other, decode.intent, role="prefill", tp=narrower, dp=1, pp=1, **same)
    return seal(plan.model_copy(update={"placements": (alone, prefill, decode)}))
