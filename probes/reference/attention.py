"""Attention from the tables: efficiency over (batch, context) in decode, over chunk length in prefill.

Prefill tables hold prompts without prior context. A chunk of s tokens after p others is taken to run at the
efficiency of a prompt with as many (query, key) pairs, s' = sqrt(s² + 2 s p), on its own FLOP. Its time is one
launch plus its marginal cost in a batch that fills the GPU, since vLLM runs all prompts of a step in one kernel.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

import numpy as np

from catalog.fingerprints import Op, Source
from catalog.gpus import GPU
from probes.reference import tables
from probes.reference.curves import along, bilinear, filled, log_efficiency, scaled
from probes.runners import BATCH_GRID, CHUNK_GRID, CONTEXT_GRID, PRIOR_GRID, Bound, Floats, Timing

_COLUMNS = ("num_heads", "num_key_value_heads", "head_dim", "window_size", "batch_size")
#: Tokens that fill a GPU with prefill work (the default token budget of a step).
_FULL = 8192


def decode(op: Op, gpu: GPU, bound: Bound) -> Timing | str:
    """Times of one layer's decode attention on the grid of batches and contexts."""
    found = _nearest(op, gpu, "generation_attention", "step")
    if isinstance(found, str):
        return found
    near, rows, batches, contexts, source = found
    contexts = contexts + 1  # `step` tokens were cached before the new one
    pairs = np.meshgrid(batches, contexts, indexing="ij")
    log_eff = filled(log_efficiency(bound(near, gpu, pairs[0], pairs[1]), rows))
    x, y = _flat(BATCH_GRID, CONTEXT_GRID)
    time_s = _carried(op, near, gpu, bound, x, y, bilinear(batches, contexts, log_eff, at_rows=x, at_columns=y))
    return Timing(x=x, y=y, time_s=time_s, source=source, note=_note(op, near))


def prefill(op: Op, gpu: GPU, bound: Bound) -> Timing | str:
    """Times of one layer's prefill attention of one chunk on the grid of chunk and prior lengths."""
    found = _nearest(op, gpu, "context_attention", "isl")
    if isinstance(found, str):
        return found
    near, rows, batches, lengths, source = found
    launch, marginal = marginal_cost(rows, batches, lengths)
    x, y = _flat(CHUNK_GRID, PRIOR_GRID)
    window = op.size("window")
    prior = np.minimum(y, window) if window else y
    at = np.clip(np.sqrt(x * x + 2 * x * prior), lengths[0], lengths[-1])
    zero = np.zeros_like(lengths)
    log_eff = log_efficiency(bound(near, gpu, lengths, zero), np.maximum(marginal, bound(near, gpu, lengths, zero)))
    time_s = launch + _carried(op, near, gpu, bound, x, y, along(lengths, log_eff, at), fixed=False)
    return Timing(x=x, y=y, time_s=time_s, source=source, note=_note(op, near))


def marginal_cost(time_s: Floats, batches: Floats, lengths: Floats) -> tuple[float, Floats]:
    """(launch, cost of one prompt per length): times (batches, lengths), NaN where not measured."""
    launch = float(np.nanmin(time_s))
    marginal = np.empty_like(lengths)
    for j, length in enumerate(lengths):
        known = np.flatnonzero(np.isfinite(time_s[:, j]) & (batches * length <= max(_FULL, length)))
        i = known[-1] if known.size else int(np.flatnonzero(np.isfinite(time_s[:, j]))[0])
        marginal[j] = max((time_s[i, j] - launch) / batches[i], 1e-9)
    return launch, np.maximum.accumulate(marginal)


def _carried(op: Op, near: Op, gpu: GPU, bound: Bound, x: Floats, y: Floats, log_eff: Floats, *,  # noqa: PLR0913, PLR0917 - two operators at the same sizes
             fixed: bool = True) -> Floats:  # fmt: skip
    """Time of `op` from the efficiency of its neighbour; head counts close by share the fixed part of the time."""
    near_s = bound(near, gpu, x, y) * np.exp(-log_eff)
    if near == op or not fixed:
        return np.asarray(bound(op, gpu, x, y) * np.exp(-log_eff))
    return scaled(near_s, bound_s=bound(near, gpu, x, y), to_bound_s=bound(op, gpu, x, y))


def _flat(first: tuple[int, ...], second: tuple[int, ...]) -> tuple[Floats, Floats]:
    x, y = np.meshgrid(np.array(first, dtype=float), np.array(second, dtype=float), indexing="ij")
    return x.ravel(), y.ravel()


def _note(op: Op, near: Op) -> str:
    return "" if near == op else f"heads, head size, window or KV format from {dict(near.shape)}"


@lru_cache(maxsize=32)
def _table(system: str, name: str, size: str) -> tuple[Floats, tuple[str, ...]] | None:
    """Rows (heads, kv heads, head dim, window, batch, size, seconds) of all versions, and their KV formats."""
    parts = []
    for version in tables.versions(system, "attention", "vllm", name)[:1]:
        columns = (*_COLUMNS, size, "kv_cache_dtype")
        parts.append(tables.read(system, "attention", name, version=version, columns=columns))
    if not parts:
        return None
    rows = parts[0]
    return rows.select(*_COLUMNS, size, "time_s").to_numpy().astype(float), tuple(rows["kv_cache_dtype"])


@lru_cache(maxsize=32)
def _shapes(system: str, name: str, size: str) -> dict[tuple[int, int, int, int, str], Floats] | None:
    """(heads, kv heads, head dim, window, KV format) -> rows (batch, size, seconds)."""
    table = _table(system, name, size)
    if table is None:
        return None
    rows, formats = table
    is_fp8 = np.array([kind == "fp8" for kind in formats], dtype=float)
    keys = np.column_stack([rows[:, :4], is_fp8])
    unique, inverse = np.unique(keys, axis=0, return_inverse=True)
    order = np.argsort(inverse.ravel(), kind="stable")
    ends = np.cumsum(np.bincount(inverse.ravel(), minlength=unique.shape[0]))
    return {
        (int(u[0]), int(u[1]), int(u[2]), int(u[3]), "fp8" if u[4] else "bf16"): rows[order[start:end], 4:]
        for u, start, end in zip(unique, np.concatenate([[0], ends[:-1]]), ends, strict=True)
    }


def _nearest(op: Op, gpu: GPU, name: str, size: str) -> tuple[Op, Floats, Floats, Floats, Source] | str:
    """The measured head shape nearest to the operator's: (it, times, batches, sizes, source)."""
    shapes = _shapes(str(gpu.tables), name, size)
    if not shapes:
        return "no attention table"
    wanted = (op.size("heads"), op.size("kv_heads"), op.size("head_dim"), op.size("window"), op.dtype)
    key = wanted if wanted in shapes else min(shapes, key=lambda have: (_distance(wanted, have), have))
    grid = _grid(str(gpu.tables), name, size, key)
    if key == wanted:
        return op, *grid, "reference"
    shape = {"heads": key[0], "kv_heads": key[1], "head_dim": key[2], "window": key[3]}
    return replace(op, dtype=key[4], shape=tuple(sorted(shape.items()))), *grid, "transferred"


def _distance(wanted: tuple[int, int, int, int, str], have: tuple[int, int, int, int, str]) -> float:
    """Unlikeness of two head shapes: head size and KV format decide the kernel, the window what it reads."""
    pairs = zip(wanted[:3], have[:3], strict=True)
    heads, kv_heads, d = (abs(math.log(mine / theirs)) for mine, theirs in pairs)
    window = 0.0 if wanted[3] == have[3] else 2.0 if not have[3] else 4.0
    return 4.0 * d + 3.0 * (wanted[4] != have[4]) + window + kv_heads + 0.5 * heads


@lru_cache(maxsize=512)
def _grid(system: str, name: str, size: str, key: tuple[int, int, int, int, str]) -> tuple[Floats, Floats, Floats]:
    """(times (batches, sizes) with NaN where not measured, batches, sizes)."""
    rows = (_shapes(system, name, size) or {})[key]
    batches, sizes = np.unique(rows[:, 0]), np.unique(rows[:, 1])
    time_s = np.full((batches.size, sizes.size), np.nan)
    time_s[np.searchsorted(batches, rows[:, 0]), np.searchsorted(sizes, rows[:, 1])] = rows[:, 2]
    return time_s, batches, sizes
