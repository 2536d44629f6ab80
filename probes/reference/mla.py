"""Multi-head latent attention from the tables: what the measured module takes beyond its projections.

The tables time DeepSeek-V3's whole attention module, projections included, by heads per rank. A step reads the
projections' weights once for all its sequences, so they are operators of their own here, and what remains of the
module (norms, rotary embedding, the two absorbed products' overhead, attention itself) is the MLA kernel.

Most systems' modules were timed launch by launch: at the smallest sizes they take 78-96 us on GPUs as unlike as L40S
and B300, and 39 us on B200, whose launches were replayed from a graph. What a system takes at its smallest size beyond
B200 (its time scaled by the bounds) is taken off, fading as the time grows past that size.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np

from catalog.fingerprints import Op
from catalog.gpus import GPU
from probes.reference import tables
from probes.reference.attention import marginal_cost
from probes.reference.curves import along, bilinear, filled, log_efficiency, scaled
from probes.reference.gemm import gemm
from probes.runners import BATCH_GRID, CHUNK_GRID, CONTEXT_GRID, PRIOR_GRID, Bound, Floats, Timing

#: Smallest MLA kernel of the system that was timed from a graph (b200_sxm, 39 us less its projections), and its HBM.
_GRAPHED_FLOOR_S = 18.0e-6
_GRAPHED_BANDWIDTH = 8.0e12
#: Sizes of the measured module (deepseek-ai/DeepSeek-V3 config.json).
_MEASURED = {"hidden": 7168, "q_lora": 1536, "latent": 512, "nope": 128, "rope": 64, "v": 128}


def decode(op: Op, gpu: GPU, bound: Bound) -> Timing | str:
    """Times of one layer's MLA decode on the grid of batches and contexts."""
    found = _kernel(op, gpu, bound, "mla_generation_module", "step")
    if isinstance(found, str):
        return found
    near, time_s, batches, contexts = found
    pairs = np.meshgrid(batches, contexts, indexing="ij")
    log_eff = filled(log_efficiency(bound(near, gpu, pairs[0], pairs[1]), time_s))
    x, y = (axis.ravel() for axis in np.meshgrid(np.array(BATCH_GRID, float), np.array(CONTEXT_GRID, float),
                                                 indexing="ij"))  # fmt: skip
    bound_s = bound(near, gpu, x, y)
    near_s = bound_s * np.exp(-bilinear(batches, contexts, log_eff, at_rows=x, at_columns=y))
    return _timing(op, near, x, y, scaled(near_s, bound_s=bound_s, to_bound_s=bound(op, gpu, x, y)))


def prefill(op: Op, gpu: GPU, bound: Bound) -> Timing | str:
    """Times of one layer's MLA prefill of one chunk on the grid of chunk and prior lengths."""
    found = _kernel(op, gpu, bound, "mla_context_module", "isl")
    if isinstance(found, str):
        return found
    near, time_s, batches, lengths = found
    launch, marginal = marginal_cost(time_s, batches, lengths)
    x, y = (axis.ravel() for axis in np.meshgrid(np.array(CHUNK_GRID, float), np.array(PRIOR_GRID, float),
                                                 indexing="ij"))  # fmt: skip
    log_eff = log_efficiency(bound(near, gpu, lengths, np.zeros_like(lengths)), marginal)
    at = np.clip(np.sqrt(x * x + 2 * x * y), lengths[0], lengths[-1])
    return _timing(op, near, x, y, launch + bound(op, gpu, x, y) * np.exp(-along(lengths, log_eff, at)))


def _timing(op: Op, near: Op, x: Floats, y: Floats, time_s: Floats) -> Timing:
    if near == op:
        return Timing(x=x, y=y, time_s=time_s, source="reference")
    return Timing(x=x, y=y, time_s=time_s, source="transferred", note=f"from the MLA kernel {dict(near.shape)}")


def _kernel(op: Op, gpu: GPU, bound: Bound, name: str, size: str) -> tuple[Op, Floats, Floats, Floats] | str:
    """The measured module nearest in heads, less its projections: (operator, times, batches, sizes)."""
    versions = tables.versions(str(gpu.tables), "mla", "vllm", name)
    if not versions:
        return "no MLA table"
    rows = _rows(str(gpu.tables), name, size, versions[0], op.dtype)
    if rows.size == 0:
        rows = _rows(str(gpu.tables), name, size, versions[0], "bf16")
    heads = min(np.unique(rows[:, 0]), key=lambda have: (abs(np.log(have / op.size("heads"))), have))
    near = replace(op, shape=tuple(sorted({**_MEASURED, "heads": int(heads)}.items())))
    part = rows[rows[:, 0] == heads]
    batches, sizes = np.unique(part[:, 1]), np.unique(part[:, 2])
    time_s = np.full((batches.size, sizes.size), np.nan)
    time_s[np.searchsorted(batches, part[:, 1]), np.searchsorted(sizes, part[:, 2])] = part[:, 3]
    tokens = np.outer(batches, sizes if size == "isl" else np.ones_like(sizes))
    kernel_s = np.maximum(time_s - _projections(int(heads), gpu, bound, tokens), 0.1 * time_s)
    least_s = float(np.nanmin(kernel_s))
    excess_s = max(0.0, least_s - _GRAPHED_FLOOR_S * max(1.0, _GRAPHED_BANDWIDTH / gpu.bandwidth))
    return near, kernel_s - excess_s * np.exp(1.0 - kernel_s / least_s), batches, sizes


def _projections(heads: int, gpu: GPU, bound: Bound, tokens: Floats) -> Floats:
    """Seconds of the module's four GEMMs in bf16 at each number of tokens."""
    m = _MEASURED
    sizes = (
        (m["q_lora"] + m["latent"] + m["rope"], m["hidden"]),
        (heads * (m["nope"] + m["rope"]), m["q_lora"]),
        (heads * (m["nope"] + m["v"]), m["latent"]),
        (m["hidden"], heads * m["v"]),
    )
    total = np.zeros_like(tokens)
    flat = tokens.ravel()
    for n, k in sizes:
        op = Op(name="", kind="gemm", count=1, dtype="bf16", shape=(("k", k), ("n", n)))
        timing = gemm(op, gpu, bound, grid=flat)
        if not isinstance(timing, str):
            total += timing.time_s.reshape(tokens.shape)
    return total


@lru_cache(maxsize=32)
def _rows(system: str, name: str, size: str, version: str, kv_dtype: str) -> Floats:
    """Rows (heads, batch, size, seconds) of the module with bf16 projections."""
    columns = ("num_heads", "batch_size", size)
    where = (("kv_cache_dtype", {"bf16": "bfloat16"}.get(kv_dtype, kv_dtype)), ("gemm_type", "bfloat16"))
    return tables.read(system, "mla", name, version=version, columns=columns, where=where).to_numpy().astype(float)
