"""Metrics of a reproduced benchmark: what `vllm bench` would have printed, by the columns of predictions.parquet."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

METRICS: tuple[str, ...] = (
    "ttft_ms", "p90_ttft_ms", "p99_ttft_ms", "mean_ttft_ms", "tpot_ms", "p90_tpot_ms", "p99_tpot_ms", "mean_tpot_ms",
    "itl_ms", "p90_itl_ms", "p99_itl_ms", "mean_itl_ms", "out_tps", "out_tps_gpu", "total_tps", "total_tps_gpu",
    "e2e_s", "batch_latency_s", "power_w", "j_per_tok",
)  # fmt: skip
"""Unsuffixed latencies are medians over requests (of `itl`: over tokens)."""

TAIL: dict[str, float] = {"p90": 0.05, "p99": 0.2}
"""Further relative half-width of tail percentiles (assumed; P99 ITL of the H100 calibration runs is 15 % low)."""


def spread(name: str, seconds: Floats, *, unit: float = 1e3) -> dict[str, float]:
    """Median, P90, P99 and mean of one latency, in ms, as numpy and `vllm bench serve` interpolate percentiles."""
    if seconds.size == 0:
        return {}
    p50, p90, p99 = np.percentile(seconds, (50, 90, 99)) * unit
    return {name: float(p50), f"p90_{name}": float(p90), f"p99_{name}": float(p99),
            f"mean_{name}": float(seconds.mean() * unit)}  # fmt: skip


def throughput(output_tps: float, total_tps: float, gpus: int) -> dict[str, float]:
    """Tokens per second of the replica and of each of its GPUs."""
    return {"out_tps": output_tps, "out_tps_gpu": output_tps / gpus, "total_tps": total_tps,
            "total_tps_gpu": total_tps / gpus}  # fmt: skip


def bounded(
    middle: Mapping[str, float], ends: tuple[Mapping[str, float], ...], *, floor: float,
    ttft: tuple[float, float] = (1.0, 1.0),
) -> dict[str, float]:  # fmt: skip
    """Each metric with `_lo` and `_hi`: the extremes over the ends of the interval, and at least a relative `floor`.

    `ttft`: (low, high) multipliers that TTFT's ends reach at least. They were learned on measured TTFT, whole; the ends
    of a predictor stretch by them what is prefill's alone, and a prompt's matrix products, which it shares with
    decodes, by the narrower interval of decode steps.
    Percentiles of the tail rest on few requests and on the longest prompts: theirs are wider by `TAIL`.
    """
    found: dict[str, float] = {}
    for name, value in middle.items():
        values = [value, *(end[name] for end in ends if name in end)]
        found[name] = value
        tail = TAIL.get(name[:3], 0.0)
        low, high = ttft if name.endswith("ttft_ms") else (1.0, 1.0)
        found[f"{name}_lo"] = min(*values, value * min(low, 1.0 - floor)) * (1.0 - tail)
        found[f"{name}_hi"] = max(*values, value * max(high, 1.0 + floor)) * (1.0 + tail)
    return found
