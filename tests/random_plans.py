"""Plans drawn at random over every catalog model, format, parallelism and role, for checks of what is emitted."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

from catalog.gpus import load_gpus
from catalog.models import Model, load_models
from catalog.quantizations import QUANTIZATIONS, QuantizationName
from planner.manifests.pairing import common_backend
from planner.plan import NodeShare, Plan, ReplicaGroup, Window, attention_of, checkpoint_of, from_json, seal

SAMPLE = Path(__file__).parent / "plans" / "sample.json"
MODELS = load_models()
GPUS = load_gpus()
POOLS = {"h100-eu": ("h100_sxm", 8), "l40s-eu": ("l40s", 4), "h200-us": ("h200_sxm", 8), "mi300x-us": ("mi300x", 8)}


def golden_plans() -> dict[str, Plan]:
    """The plans whose manifests were reviewed, by name."""
    return {path.stem: from_json(path.read_text(encoding="utf-8")) for path in sorted(SAMPLE.parent.glob("*.json"))}


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
    gpu = POOLS[pool][0]
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
        "max_model_len": min(draw.choice([2048, 4096]), model.max_position_embeddings),
        "enable_prefix_caching": draw.random() < 0.5,
        "kv_cache_memory_bytes": draw.randint(10**9, 10**11), "router": "least_requests",
        "max_num_queued_tokens": draw.choice([None, 20_000]),
    } | more  # fmt: skip
    gpus = made["tp"] * made["pp"] * made["dp"]
    made |= {
        "gpus_per_replica": gpus,
        "nodes": nodes(made["node_pool"], made["replicas"], gpus, POOLS[made["node_pool"]][1]),
    }
    return ReplicaGroup(**made)


def windows(draw: random.Random, replicas: int) -> tuple[Window, ...]:
    """Bounds of a day in two to six parts, within what was planned; or none."""
    cuts = sorted({0.0, 24.0, *(draw.randint(1, 95) / 4 for _ in range(draw.choice([0, 1, 3, 5])))})
    if len(cuts) == 2:
        return ()
    made = []
    for start, end in itertools.pairwise(cuts):
        low = draw.randint(1, replicas)
        made.append(Window(start_hour=start, end_hour=end, min_replicas=low, max_replicas=draw.randint(low, replicas)))
    return tuple(made)


def random_plan(seed: int) -> Plan:
    """One plan: a collocated intent and a disaggregated one, the models taken in turn so that all occur."""
    draw = random.Random(seed)  # noqa: S311 - a test's draw
    names = sorted(MODELS)
    plan = from_json(SAMPLE.read_text(encoding="utf-8"))
    alone = group(draw, MODELS[names[seed % len(names)]], plan.intents[0].name)
    alone = alone.model_copy(update={"windows": windows(draw, alone.replicas)})
    other = MODELS[names[(seed * 7 + 3) % len(names)]]
    decode = group(draw, other, plan.intents[2].name, role="decode", pp=1)
    narrower = draw.choice([tp for tp in widths(other) if tp <= decode.tp])
    same = {key: getattr(decode, key) for key in ("checkpoint", "quantization", "online_quantization", "kv_dtype")}
    beside = draw.choice([pool for pool in sorted(POOLS) if pairs_with(pool, decode)])
    prefill = group(
        draw,
        other,
        decode.intent,
        role="prefill",
        tp=narrower,
        dp=1,
        pp=1,
        node_pool=beside,
        gpu=POOLS[beside][0],
        **same,
    )
    return seal(plan.model_copy(update={"placements": (alone, prefill, decode), "waves": ()}))


def pairs_with(pool: str, decode: ReplicaGroup) -> bool:
    """Whether a prefill group on that pool and the decode group have an attention backend in common."""
    gpus = [GPUS[POOLS[pool][0]], GPUS[decode.gpu]]
    return (
        gpus[0] == gpus[1] or common_backend(gpus, attention_of(MODELS[decode.model]), decode.kv_dtype)[0] is not None
    )
