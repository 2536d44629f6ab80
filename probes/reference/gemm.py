"""GEMM, LM head and streaming kernels from the tables: a cube of efficiencies over (n, k, m) per format.

The FP8 block-scaled GEMMs of all systems were timed without a CUDA graph: whatever the shape, none takes less than
55-300 us, which is the time of their launch on the CPU (DeepSeek-V3's attention module, timed in both formats, shows no
such cost). Where a time is within twice that floor, the per-tensor FP8 kernel stands in, if it is faster.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np

from catalog.fingerprints import Op
from catalog.gpus import GPU
from probes.reference import tables
from probes.reference.curves import along, filled, log_efficiency, scaled, steadied, weights
from probes.runners import Bound, Floats, Timing

#: Our format -> (the tables' format, our name of it) in order of preference; another than its own is a stand-in.
#: INT8 runs on the same units as FP8; INT4 and MXFP4 weights are expanded to bf16 in registers (Marlin).
_TABLE_FORMATS: dict[str, tuple[str, ...]] = {
    "bf16": ("bf16",), "fp8": ("fp8", "bf16"), "fp8_block": ("fp8_block", "fp8", "bf16"),
    "int8": ("fp8", "bf16"), "int4": ("bf16",), "mxfp4": ("bf16",), "nvfp4": ("nvfp4", "fp8", "bf16"),
}  # fmt: skip
_SPELLED = {"bf16": "bfloat16"}
#: Format timed launch-bound -> the format that stands in, and the cost of its finer scales relative to it.
_LAUNCH_BOUND = {"fp8_block": ("fp8", 1.15)}
#: Width whose row of the scaling table stands for streaming kernels.
_STREAM_WIDTH = 8192


class _Cube:
    """Log-efficiencies over ascending n, k, m."""

    def __init__(self, n: Floats, k: Floats, m: Floats, log_eff: Floats) -> None:
        self.n, self.k, self.m, self.log_eff = n, k, m, log_eff

    def curve(self, n: float, k: float) -> tuple[Floats, bool]:
        """Log-efficiency over m of a GEMM n x k, and whether the tables bracket it."""
        n0, n1, wn, inside_n = weights(self.n, n)
        k0, k1, wk, inside_k = weights(self.k, k)
        low = self.log_eff[n0, k0] * (1 - wk) + self.log_eff[n0, k1] * wk
        high = self.log_eff[n1, k0] * (1 - wk) + self.log_eff[n1, k1] * wk
        return low * (1 - wn) + high * wn, inside_n and inside_k


def gemm(op: Op, gpu: GPU, bound: Bound, *, grid: Floats | None = None) -> Timing | str:
    """Times of a GEMM (or the LM head) at the tables' own token counts, or at `grid`."""
    for dtype in _TABLE_FORMATS.get(op.dtype, ()):
        cube = _cube(gpu, bound, dtype)
        if cube is None:
            continue
        x = cube.m if grid is None else grid
        stand_in = replace(op, dtype=dtype)
        log_eff, inside = cube.curve(op.size("n"), op.size("k"))
        bound_s = bound(stand_in, gpu, x, np.zeros_like(x))
        time_s = np.maximum(bound_s * np.exp(-along(cube.m, log_eff, x)), bound_s)
        if grid is None:
            time_s = np.maximum(np.exp(steadied(np.log(time_s))), bound_s)
        if dtype == op.dtype:
            # The LM head lies beyond the tables' widest n: its efficiency is that of the widest, which is flat there.
            known = (inside or op.kind == "lm_head") and dtype not in _LAUNCH_BOUND
            return Timing(x=x, y=np.zeros_like(x), time_s=time_s, source="reference" if known else "transferred")
        to_bound_s = bound(op, gpu, x, np.zeros_like(x))
        time_s = scaled(time_s, bound_s=bound_s, to_bound_s=to_bound_s)
        return Timing(x=x, y=np.zeros_like(x), time_s=time_s, source="transferred", note=f"{op.dtype} from {dtype}")
    return f"no GEMM table in {op.dtype} or a stand-in"


def streaming(op: Op, gpu: GPU, bound: Bound) -> Timing | str:
    """Times of an elementwise kernel or of sampling, from the tables of the FP8 scaling kernel by bytes moved."""
    curve = _stream(gpu, bound)
    if curve is None:
        return "no table of a streaming kernel"
    moved, log_eff, x = curve
    bound_s = bound(op, gpu, x, np.zeros_like(x))
    per_token = op.size("read") + op.size("write")
    time_s = bound_s * np.exp(-along(moved, log_eff, x * per_token))
    own = op.name.endswith("_quantize") and op.dtype in ("fp8", "fp8_block")
    return Timing(x=x, y=np.zeros_like(x), time_s=time_s, source="reference" if own else "transferred")


@lru_cache(maxsize=64)
def _read_cube(system: str, dtype: str) -> tuple[Floats, Floats, Floats, Floats] | None:
    """Axes and times (n, k, m), NaN where not measured."""
    for version in tables.versions(system, "gemm", "vllm", "gemm"):
        rows = tables.read(system, "gemm", "gemm", version=version, columns=("n", "k", "m"),
                           where=(("gemm_dtype", _SPELLED.get(dtype, dtype)),))  # fmt: skip
        # A format measured for a few shapes only (a fallback kernel) is no grid to interpolate in.
        if rows.height > 5000:
            break
    else:
        return None
    n, k, m = (np.unique(rows[name].to_numpy()) for name in ("n", "k", "m"))
    time_s = np.full((n.size, k.size, m.size), np.nan)
    index = tuple(np.searchsorted(axis, rows[name].to_numpy()) for axis, name in ((n, "n"), (k, "k"), (m, "m")))
    time_s[index] = rows["time_s"].to_numpy()
    return n.astype(float), k.astype(float), m.astype(float), time_s


_CUBES: dict[tuple[str, float, float, str], _Cube | None] = {}


def _cube(gpu: GPU, bound: Bound, dtype: str) -> _Cube | None:
    key = (str(gpu.tables), gpu.bandwidth, gpu.peak["bf16"], dtype)
    if key not in _CUBES:
        read = _read_cube(str(gpu.tables), dtype)
        if read is not None and dtype in _LAUNCH_BOUND:
            read = _relieved(str(gpu.tables), dtype, read)
        _CUBES[key] = None if read is None else _efficiencies(gpu, bound, dtype, read)
    return _CUBES[key]


def _relieved(system: str, dtype: str, read: tuple[Floats, Floats, Floats, Floats],
              ) -> tuple[Floats, Floats, Floats, Floats]:  # fmt: skip
    """Times with the launch-bound ones replaced by the stand-in's where both formats were measured on the same grid."""
    stand_in, cost = _LAUNCH_BOUND[dtype]
    other = _read_cube(system, stand_in)
    n, k, m, time_s = read
    if other is None or other[3].shape != time_s.shape:
        return read
    floor_s = np.nanmedian(time_s[:4, :4], axis=(0, 1))  # (m,): shapes so small that only the launch shows
    bound_by_launch = time_s < 2.0 * floor_s
    return n, k, m, np.where(bound_by_launch, np.fmin(time_s, cost * other[3]), time_s)


def _efficiencies(gpu: GPU, bound: Bound, dtype: str, read: tuple[Floats, Floats, Floats, Floats]) -> _Cube:
    n, k, m, time_s = read
    log_eff = np.empty_like(time_s)
    for i, width in enumerate(n):
        for j, depth in enumerate(k):
            op = Op(name="", kind="gemm", count=1, dtype=dtype, shape=(("k", int(depth)), ("n", int(width))))
            log_eff[i, j] = log_efficiency(bound(op, gpu, m, np.zeros_like(m)), time_s[i, j])
        log_eff[i] = filled(log_eff[i])
    return _Cube(n, k, m, log_eff)


_STREAMS: dict[tuple[str, float], tuple[Floats, Floats, Floats] | None] = {}


def _stream(gpu: GPU, bound: Bound) -> tuple[Floats, Floats, Floats] | None:
    """(bytes moved, log-efficiency, token counts) of the scaling kernel: 2 bytes read and 1 written per element."""
    key = (str(gpu.tables), gpu.bandwidth)
    if key not in _STREAMS:
        _STREAMS[key] = _read_stream(gpu, bound)
    return _STREAMS[key]


def _read_stream(gpu: GPU, bound: Bound) -> tuple[Floats, Floats, Floats] | None:
    versions = tables.versions(str(gpu.tables), "quantize", "vllm", "scale_matrix")
    if not versions:
        return None
    rows = tables.read(str(gpu.tables), "quantize", "scale_matrix", version=versions[0], columns=("m", "k"))
    rows = rows.filter(rows["k"] == _STREAM_WIDTH).sort("m")
    m = rows["m"].to_numpy().astype(float)
    op = Op(name="", kind="elementwise", count=1, dtype="bf16",
            shape=(("read", 2 * _STREAM_WIDTH), ("write", _STREAM_WIDTH)))  # fmt: skip
    bound_s = bound(op, gpu, m, np.zeros_like(m))
    # Small tensors stay in the L2 cache and beat the HBM bound: the efficiency is capped at 1.
    return 3.0 * _STREAM_WIDTH * m, log_efficiency(bound_s, rows["time_s"].to_numpy()), m
