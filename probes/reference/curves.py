"""Interpolation along efficiency: bound / measured, in the logarithm, over the logarithm of the sizes.

Efficiency varies slowly and between known limits where time varies over orders of magnitude, so that an unmeasured
shape gets an efficiency from its neighbours and its own bound, and stays physical. Outside the measured range the
efficiency of the border holds.
"""

from __future__ import annotations

import numpy as np

from probes.runners import Floats

#: Part of a kernel's time that does not depend on its size: launch in a CUDA graph, prologue and epilogue. Smallest
#: times in the tables (GEMM, scaling and all-reduce kernels of NVIDIA GPUs): 1.7-4.4 us.
KERNEL_FLOOR_S = 2.0e-6


def log_efficiency(bound_s: Floats, time_s: Floats) -> Floats:
    """ln(bound / measured), at most 0: nothing is taken to be faster than its bound."""
    return np.asarray(np.minimum(np.log(bound_s) - np.log(time_s), 0.0))


def along(axis: Floats, values: Floats, at: Floats) -> Floats:
    """Interpolate `values` (n,) over ln(axis), ends held."""
    return np.interp(np.log(at), np.log(axis), values)


def weights(axis: Floats, at: float) -> tuple[int, int, float, bool]:
    """(lower index, upper index, share of the upper, inside) of a size on a logarithmic axis, ends held."""
    inside = bool(axis[0] <= at <= axis[-1])
    upper = int(np.clip(np.searchsorted(axis, at), 1, axis.size - 1)) if axis.size > 1 else 0
    lower = max(0, upper - 1)
    if upper == lower:
        return lower, upper, 0.0, inside
    share = (np.log(at) - np.log(axis[lower])) / (np.log(axis[upper]) - np.log(axis[lower]))
    return lower, upper, float(np.clip(share, 0.0, 1.0)), inside


def bilinear(rows: Floats, columns: Floats, values: Floats, *, at_rows: Floats, at_columns: Floats) -> Floats:
    """Interpolate `values` (rows, columns) over both logarithms at pairs of sizes (n,), ends held."""
    by_column = np.stack([along(columns, row, at_columns) for row in values])  # (rows, n)
    position = np.interp(np.log(at_rows), np.log(rows), np.arange(rows.size, dtype=float))
    low = np.minimum(position.astype(int), max(0, rows.size - 2))
    high = np.minimum(low + 1, rows.size - 1)
    share = position - low
    index = np.arange(at_rows.size)
    return np.asarray(by_column[low, index] * (1 - share) + by_column[high, index] * share)


def filled(values: Floats) -> Floats:
    """Replace NaN by the last number before it in its row (then after it, then by the row above)."""
    out = values.copy()
    for row in range(out.shape[0]):
        known = np.flatnonzero(np.isfinite(out[row]))
        if known.size == 0:
            out[row] = out[row - 1] if row else 0.0
            continue
        nearest = known[np.clip(np.searchsorted(known, np.arange(out.shape[1]), side="right") - 1, 0, None)]
        out[row] = out[row, nearest]
    return out


def scaled(time_s: Floats, *, bound_s: Floats, to_bound_s: Floats) -> Floats:
    """Carry a time to another format or GPU: the fixed part stays, the rest scales with the bound."""
    fixed = np.minimum(KERNEL_FLOOR_S, time_s)
    return np.maximum(fixed + (time_s - fixed) * to_bound_s / bound_s, to_bound_s)


def steadied(values: Floats) -> Floats:
    """The rising sequence nearest to `values` in the least-squares sense, single spikes removed first.

    A larger batch never takes less time than it must for a smaller one padded to it; what the tables show otherwise is
    noise or a badly chosen kernel, and is shared between its neighbours. Isotonic regression by its minimax formula,
    max over i <= k of min over j >= k of mean(values[i..j]) (Robertson, Wright and Dykstra 1988, theorem 1.4.4).
    """
    padded = np.concatenate([values[1:2], values, values[-2:-1]])
    smooth = np.median(np.stack([padded[:-2], padded[1:-1], padded[2:]]), axis=0) if values.size > 2 else values
    total = np.concatenate([[0.0], np.cumsum(smooth)])
    start, end = np.meshgrid(np.arange(smooth.size), np.arange(smooth.size), indexing="ij")
    mean = np.where(end >= start, (total[end + 1] - total[start]) / np.maximum(end - start + 1, 1), np.inf)
    least = np.minimum.accumulate(mean[:, ::-1], axis=1)[:, ::-1]  # min over ends >= k of mean(i..end)
    least[start > end] = -np.inf
    return np.asarray(least.max(axis=0))
