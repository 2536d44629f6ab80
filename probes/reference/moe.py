"""Routed experts from the tables: the curve over tokens of the measured expert layer that is most alike.

Routing in the tables is balanced or follows a power law; real routers are uneven, so the mild power law (1.01) is
taken, which is also what the tables' publisher assumes.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np

from catalog.fingerprints import Op
from catalog.gpus import GPU
from probes.reference import tables
from probes.reference.curves import along, log_efficiency, scaled
from probes.runners import Bound, Floats, Timing

ROUTING = "power_law_1.01"
_SIZES = ("hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size", "moe_ep_size")
#: Our format -> the tables' formats, own first; each with our name of the same weights.
_TABLE_FORMATS: dict[str, tuple[tuple[str, str], ...]] = {
    "bf16": (("bfloat16", "bf16"),),
    "fp8": (("fp8", "fp8"), ("fp8_block", "fp8_block"), ("bfloat16", "bf16")),
    "fp8_block": (("fp8_block", "fp8_block"), ("fp8", "fp8"), ("bfloat16", "bf16")),
    "int8": (("fp8", "fp8"), ("bfloat16", "bf16")),
    "int4": (("int4_wo", "int4"), ("w4a16_mxfp4", "mxfp4"), ("bfloat16", "bf16")),
    "mxfp4": (("w4a16_mxfp4", "mxfp4"), ("int4_wo", "int4"), ("bfloat16", "bf16")),
    "nvfp4": (("nvfp4", "nvfp4"), ("fp8_block", "fp8_block"), ("fp8", "fp8"), ("bfloat16", "bf16")),
}
#: Format -> one of finer scales that does strictly more work, and so bounds it from above. On Hopper the tables time
#: per-tensor FP8 experts through one library's path alone, 2-6 times slower than their block-scaled and bf16 experts.
_FINER = {"fp8": "fp8_block"}
_GRID = np.array(sorted({*range(1, 9), *(2**i for i in range(4, 16)), 24, 48, 96, 192, 384, 768, 1536, 3072, 6144}),
                 dtype=float)  # fmt: skip

Shape = tuple[int, ...]  # hidden, inter, topk, experts, tp, ep


def moe(op: Op, gpu: GPU, bound: Bound) -> Timing | str:
    """Times of one layer's routed experts, at the tokens of one engine (the others equally loaded)."""
    formats = _TABLE_FORMATS.get(op.dtype, ())
    own = _timed(op, gpu, bound, formats)
    finer = _FINER.get(op.dtype)
    if finer is None or isinstance(own, str):
        return own
    other = _timed(op, gpu, bound, tuple(entry for entry in formats if entry[1] == finer))
    if isinstance(other, str) or other.source != "transferred" or "far" in other.note:
        return own
    return replace(own, time_s=np.minimum(own.time_s, other.time_s), source="transferred", note=other.note)


def _timed(op: Op, gpu: GPU, bound: Bound, formats: tuple[tuple[str, str], ...]) -> Timing | str:
    """The curve of the measured layer that is most alike, among the given formats in order of preference."""
    wanted: Shape = tuple(op.size(name) for name in ("hidden", "inter", "topk", "experts", "tp", "ep"))
    best: tuple[float, str, str, Shape] | None = None
    for rank, (spelled, dtype) in enumerate(formats):
        for shape in _curves(str(gpu.tables), spelled):
            # Another format of the same layer is about as far as another layer twice the size in all its dimensions.
            candidate = (_distance(wanted, shape) + 1.5 * rank, spelled, dtype, shape)
            best = candidate if best is None or candidate < best else best
    if best is None:
        return f"no table of routed experts in {op.dtype} or a stand-in"
    distance, spelled, dtype, shape = best
    tokens, time_s = _curves(str(gpu.tables), spelled)[shape]
    names = ("hidden", "inter", "topk", "experts", "tp", "ep", "group")
    near = replace(op, dtype=dtype, shape=tuple(sorted(zip(names, (*shape, 1), strict=True))))
    log_eff = log_efficiency(bound(near, gpu, tokens, np.zeros_like(tokens)), time_s)
    x, zero = _GRID, np.zeros_like(_GRID)
    seen = x * op.size("group", 1)
    bound_s = bound(near, gpu, seen, zero)
    near_s = bound_s * np.exp(-along(tokens, log_eff, seen))
    if distance == 0.0 and dtype == op.dtype:
        return Timing(x=x, y=zero, time_s=near_s, source="reference")
    carried = scaled(near_s, bound_s=bound_s, to_bound_s=bound(op, gpu, x, zero))
    note = f"from {dtype} experts {dict(near.shape)}" + ", which are far" * (shape != wanted)
    return Timing(x=x, y=zero, time_s=carried, source="transferred", note=note)


def _distance(wanted: Shape, have: Shape) -> float:
    """Unlikeness of two expert layers: what one expert's GEMMs look like, and how many tokens each sees."""
    if wanted == have:
        return 0.0

    gap = np.abs(_traits(wanted) - _traits(have))
    return float(gap @ np.array([0.7, 1.0, 0.7, 1.0, 0.2])) + 1e-3


@lru_cache(maxsize=4096)
def _traits(layer: Shape) -> Floats:
    hidden, inter, topk, experts, tp, ep = (float(size) for size in layer)
    return np.asarray(np.log(np.array([hidden, inter / tp, max(1.0, experts / ep), topk / experts, tp * ep])))


@lru_cache(maxsize=128)
def _curves(system: str, spelled: str) -> dict[Shape, tuple[Floats, Floats]]:
    """Expert layer -> (tokens, seconds), the preferred version where several measured it."""
    found: dict[Shape, tuple[Floats, Floats]] = {}
    for version in tables.versions(system, "moe", "vllm", "moe"):
        where = (("moe_dtype", spelled), ("distribution", ROUTING))
        rows = tables.read(system, "moe", "moe", version=version, columns=(*_SIZES, "num_tokens"), where=where)
        rows = rows.sort(*_SIZES, "num_tokens")
        if rows.height == 0:
            continue
        table = rows.to_numpy().astype(float)
        starts = np.flatnonzero(np.any(np.diff(table[:, :6], axis=0) != 0, axis=1)) + 1
        for part in np.split(table, starts):
            shape = tuple(int(size) for size in part[0, :6])
            found.setdefault(shape, (part[:, 6], np.maximum.accumulate(part[:, 7])))
    return found
