"""Times of operators on any grid, from the points of a fingerprint, from a like operator, or from the roofline.

A point's efficiency (bound / measured) is interpolated in the logarithm over the logarithm of the sizes; the time is
the bound at the wanted size over that efficiency. So nothing is faster than its bound, and a size beyond the measured
range keeps the border's efficiency. Prefill points are split into one launch per step and a marginal time per chunk.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from catalog.fingerprints import Fingerprint, Op, Source, weakest
from catalog.gpus import GPU
from catalog.predictors import Floats
from planner.fit.learned import Learned
from planner.fit.terms import parts
from planner.roofline import op_time

_TWO_SIZES = ("attention_prefill", "attention_decode", "mla_prefill", "mla_decode")
_PREFILL = ("attention_prefill", "mla_prefill")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured:
    """Points of one operator of a fingerprint."""

    op: Op
    x: Floats  # (n,)
    y: Floats  # (n,)
    time_s: Floats  # (n,)
    source: Source

    @property
    def content(self) -> tuple[Hashable, ...]:
        """What times are made of: all but the operator's name and count."""
        numbers = (values.tobytes() for values in (self.x, self.y, self.time_s))
        return (self.op.kind, self.op.dtype, self.op.shape, self.source, *numbers)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Times:
    """Seconds of one execution on the wanted grid, and once per step."""

    time_s: Floats
    launch_s: float
    source: Source


Known = dict[Hashable, Times]


def read(fingerprint: Fingerprint) -> tuple[Measured, ...]:
    """Split a fingerprint's points by operator; rows of time zero, negative or NaN are left out."""
    frame = fingerprint.points
    x, y, time_s = (frame[name].to_numpy() for name in ("x", "y", "time_s"))
    keep = np.isfinite(time_s) & (time_s > 0) & (x > 0)
    if not keep.all():
        frame, x, y, time_s = frame.filter(keep), x[keep], y[keep], time_s[keep]
    found = []
    names = frame["op"].to_numpy()
    edges = [0, *(np.flatnonzero(names[1:] != names[:-1]) + 1), names.size] if names.size else []
    for start, end in itertools.pairwise(edges):
        row = frame.row(int(start), named=True)
        op = Op(name=row["op"], kind=row["kind"], count=row["count"], dtype=row["dtype"], shape=_shape(row["shape"]))
        part = slice(int(start), int(end))
        found.append(Measured(op=op, x=x[part], y=y[part], time_s=time_s[part], source=row["source"]))
    return tuple(found)


def times(  # noqa: PLR0913 - an operator, where it runs, what is known of it and the sizes
    op: Op,
    gpu: GPU,
    measured: Sequence[Measured],
    *,
    x: Floats,
    y: Floats,
    learned: Learned,
    known: Known | None = None,
) -> Times:
    """Times of `op` at the sizes (x, y), which broadcast to the grid.

    `known` holds the results of earlier calls with the same data sheets, sizes and constants; engines that differ in KV
    format or pipeline stages alone share most of their operators.
    """
    near = _like(op, measured)
    if known is None:
        return _times(op, gpu, near, x=x, y=y, learned=learned)
    key = (gpu.name, op.kind, op.dtype, op.shape, None if near is None else near.content)
    if key not in known:
        known[key] = _times(op, gpu, near, x=x, y=y, learned=learned)
    return known[key]


def _times(  # noqa: PLR0913 - as above
    op: Op, gpu: GPU, near: Measured | None, *, x: Floats, y: Floats, learned: Learned
) -> Times:
    x, y = np.broadcast_arrays(np.asarray(x, dtype=float), np.asarray(y, dtype=float))
    if near is None:
        return _from_roofline(op, gpu, x, y, learned)
    found = _two_sizes(near, gpu, x, y) if op.kind in _TWO_SIZES else _one_size(near, gpu, x)
    if (near.op.dtype, near.op.shape) != (op.dtype, op.shape):
        found = _carried(found, near.op, op, gpu, x=x, y=y, learned=learned)
    time_s = sum(learned.in_situ[term] * part for term, part in parts(op, gpu, x, found.time_s).items())
    return Times(time_s=np.maximum(time_s, op_time(op, gpu, x, y)), launch_s=found.launch_s, source=found.source)


def _shape(text: str) -> tuple[tuple[str, int], ...]:
    parts = (part.partition("=") for part in text.split(",") if part)
    return tuple((name, int(size)) for name, _, size in parts)


def _like(op: Op, measured: Sequence[Measured]) -> Measured | None:
    """The same operator if it was measured, else the one of its kind that is most alike."""
    same_kind = [entry for entry in measured if entry.op.kind == op.kind and _unit(entry.op) == _unit(op)]
    if not same_kind:
        return None
    return min(same_kind, key=lambda entry: (_unlikeness(op, entry.op), entry.op.name))


def _unit(op: Op) -> bool:
    """Sampling kernels and the gather of logits share a kind and nothing else."""
    return op.dtype == "gather"


def _unlikeness(op: Op, other: Op) -> float:
    if (op.dtype, op.shape) == (other.dtype, other.shape):
        return 0.0 if op.name == other.name else 1e-6
    mine, theirs = dict(op.shape), dict(other.shape)
    sizes = {*mine, *theirs}
    gap = sum(abs(np.log(max(mine.get(name, 0), 0.5) / max(theirs.get(name, 0), 0.5))) for name in sorted(sizes))
    return float(1e-3 + gap + 2.0 * (op.dtype != other.dtype))


def _one_size(near: Measured, gpu: GPU, x: Floats) -> Times:
    order = np.argsort(near.x, kind="stable")
    sizes, first = np.unique(near.x[order], return_index=True)
    time_s = near.time_s[order][first]
    # 1e-12: an operator that moves nothing (a gather of one rank) has no bound.
    log_eff = np.minimum(np.log(np.maximum(op_time(near.op, gpu, sizes), 1e-12) / time_s), 0.0)
    bound_s = np.maximum(op_time(near.op, gpu, x), 1e-12)
    return Times(time_s=bound_s * np.exp(-np.interp(np.log(x), np.log(sizes), log_eff)), launch_s=0.0,
                 source=near.source)  # fmt: skip


def _two_sizes(near: Measured, gpu: GPU, x: Floats, y: Floats) -> Times:
    rows, columns = np.unique(near.x), np.unique(near.y)
    grid = np.full((rows.size, columns.size), np.nan)
    grid[np.searchsorted(rows, near.x), np.searchsorted(columns, near.y)] = near.time_s
    launch = float(np.nanmin(grid)) if near.op.kind in _PREFILL else 0.0
    bound = op_time(near.op, gpu, rows[:, None], columns[None, :])
    log_eff = _fill(np.minimum(np.log(bound / np.maximum(grid - launch, 1e-9)), 0.0))
    position_x = np.interp(np.log(x), np.log(rows), np.arange(rows.size, dtype=float))
    position_y = np.interp(np.log1p(y), np.log1p(columns), np.arange(columns.size, dtype=float))
    value = _at(log_eff, position_x, position_y)
    return Times(time_s=op_time(near.op, gpu, x, y) * np.exp(-value), launch_s=launch, source=near.source)


def _at(values: Floats, row: Floats, column: Floats) -> Floats:
    """Bilinear interpolation at fractional indices."""
    i = np.minimum(row.astype(int), max(0, values.shape[0] - 2))
    j = np.minimum(column.astype(int), max(0, values.shape[1] - 2))
    i1, j1 = np.minimum(i + 1, values.shape[0] - 1), np.minimum(j + 1, values.shape[1] - 1)
    u, v = row - i, column - j
    low = values[i, j] * (1 - v) + values[i, j1] * v
    high = values[i1, j] * (1 - v) + values[i1, j1] * v
    return np.asarray(low * (1 - u) + high * u)


def _fill(values: Floats) -> Floats:
    """Give unmeasured sizes the efficiency of the nearest measured one, along the row first."""
    out = values.copy()
    for axis in (out, out.T):
        for line in axis:
            known = np.flatnonzero(np.isfinite(line))
            if known.size:
                line[:] = np.interp(np.arange(line.size), known, line[known])
    return out


def _carried(  # noqa: PLR0913 - two operators at the same sizes
    found: Times, near: Op, op: Op, gpu: GPU, *, x: Floats, y: Floats, learned: Learned
) -> Times:
    """A like operator's time, its part beyond the kernel floor scaled by the ratio of the bounds."""
    fixed = np.minimum(learned.kernel_floor_s, found.time_s)
    ratio = op_time(op, gpu, x, y) / np.maximum(op_time(near, gpu, x, y), 1e-12)
    return replace(found, time_s=fixed + (found.time_s - fixed) * ratio, source=weakest(found.source, "transferred"))


def _from_roofline(op: Op, gpu: GPU, x: Floats, y: Floats, learned: Learned) -> Times:
    bound_s = op_time(op, gpu, x, y)
    hop_s = gpu.link_latency if op.kind in ("p2p", "all_to_all", "all_gather", "reduce_scatter", "all_reduce") else 0.0
    floor = 0.0 if op.kind in _PREFILL else learned.kernel_floor_s
    time_s = floor + hop_s + bound_s / learned.efficiency[op.kind]
    return Times(time_s=time_s, launch_s=learned.kernel_floor_s - floor, source="roofline")
