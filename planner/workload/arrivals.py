"""Statistics of measured arrivals: burstiness on several time scales, peak rate, profile of the day.

The coefficient of variation sees only neighbouring gaps; the index of dispersion for counts, Var N(τ) / E N(τ), says
how bursty the load is over windows of τ seconds. A Poisson stream has 1 on every scale.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalog.errors import BadInput
from catalog.units import SECONDS_PER_HOUR
from planner.workload.trace import Trace

SCALES_S = (1.0, 10.0, 60.0)
#: Fewer windows than this tell nothing about their variance.
MIN_WINDOWS = 10
DAY_S = 24 * SECONDS_PER_HOUR


@dataclass(frozen=True, slots=True, kw_only=True)
class Burstiness:
    """How uneven arrivals are."""

    cv: float
    """Standard deviation over mean of the gaps; 1 = Poisson."""
    dispersion: dict[float, float]
    """Window in seconds -> Var / mean of the counts; scales with fewer than 10 windows are absent."""
    peak_rate: float
    """Requests per second of the busiest minute (of the whole trace where that is shorter)."""


def arrival_cv_of(vllm_burstiness: float) -> float:
    """Coefficient of variation of `vllm bench serve --burstiness b`: its gaps are gamma with shape b, so 1/sqrt(b)."""
    if not (math.isfinite(vllm_burstiness) and vllm_burstiness > 0):
        what = f"burstiness {vllm_burstiness!r} is not above 0"
        raise BadInput(what, mend="1 is Poisson, below 1 is burstier")
    return 1.0 / math.sqrt(vllm_burstiness)


def gap_cv(arrival_s: NDArray[np.float64]) -> float:
    """Coefficient of variation between arrivals; 1 (Poisson) where fewer than three arrivals cannot tell."""
    gaps = np.diff(arrival_s)
    if len(gaps) < 2 or gaps.mean() <= 0:
        return 1.0
    return float(gaps.std() / gaps.mean())


def window_counts(arrival_s: NDArray[np.float64], window_s: float) -> NDArray[np.int64]:
    """Arrivals in each whole window of `window_s` seconds from the first arrival on; a broken last one is left out."""
    since = arrival_s - arrival_s[0]
    windows = int(since[-1] // window_s)
    inside = since[since < windows * window_s]
    return np.bincount((inside // window_s).astype(np.int64), minlength=windows)[:windows].astype(np.int64)


def burstiness(trace: Trace) -> Burstiness:
    """Measure how uneven a trace's arrivals are, on the scales of `SCALES_S`."""
    dispersion: dict[float, float] = {}
    for scale in SCALES_S:
        counts = window_counts(trace.arrival_s, scale)
        if len(counts) >= MIN_WINDOWS:
            dispersion[scale] = float(counts.var() / counts.mean())
    return Burstiness(cv=gap_cv(trace.arrival_s), dispersion=dispersion, peak_rate=busiest(trace, SCALES_S[-1]))


def busiest(trace: Trace, window_s: float) -> float:
    """Requests per second of the busiest whole window; the mean rate where the trace is shorter than one."""
    counts = window_counts(trace.arrival_s, window_s)
    return float(counts.max() / window_s) if len(counts) else trace.rate


def daily_profile(trace: Trace, *, windows: int = 24) -> tuple[float, ...]:
    """Load by equal windows of the day, relative to the trace's mean, as `Workload.diurnal` takes it.

    Days are averaged; a window that the trace never covers is 1 (unknown, taken as the mean). Raises `BadInput`
    where the trace does not say at what time of day it starts.
    """
    if trace.day_offset_s is None:
        what = "the trace has no time of day"
        raise BadInput(what, place=trace.source, mend="give timestamps with a date")
    width = DAY_S / windows
    clock = trace.arrival_s + trace.day_offset_s
    edges = np.arange(math.floor(clock[0] / width), math.floor(clock[-1] / width) + 2) * width
    counts, _ = np.histogram(clock, bins=edges)
    covered = np.minimum(edges[1:], clock[-1]) - np.maximum(edges[:-1], clock[0])
    slot = np.round(edges[:-1] / width).astype(np.int64) % windows
    seconds = np.bincount(slot, weights=np.maximum(covered, 0.0), minlength=windows)
    arrivals = np.bincount(slot, weights=counts, minlength=windows)
    known = seconds > 0
    profile = np.ones(windows)
    profile[known] = arrivals[known] / seconds[known] / trace.rate
    return tuple(float(factor) for factor in profile)
