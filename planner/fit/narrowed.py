"""Narrow a predictor by what was measured of its engine: a factor with shrinkage, and the interval that is left.

With r = ln(measured / predicted) of a condition on one (model, GPU, TP, quantization),

    r_i = b + e_i,   b ~ N(0, τ²),   e_i ~ N(0, s²)

where b is what all conditions of the engine share and e what each adds (load, lengths, noise of a repeated run). The
predictor's interval knows τ² + s² (its half-width is 1.645 of their root), the calibration residuals know s. After n
measured conditions with mean m the normal posterior is (Gelman et al., Bayesian Data Analysis, 2.5)

    b | m ~ N(m·w, τ²·(1 - w)),   w = n τ² / (n τ² + s²)

and a further condition lies within ± 1.645·sqrt(τ²(1-w) + s²) of exp(m·w) times its prediction. Where measurements
contradict the interval (|m| beyond two of its standard deviations) τ is widened until they do not; where they disagree
with each other s is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np

from catalog.predictors import Predictor

#: Standard normal quantile of 95 %: half-width of a 90 % interval in standard deviations.
Z90 = 1.645
#: Least scatter of measured conditions: repeated runs of vLLM differ by 0.4 % (TPOT) and 2.8 % (TTFT) in the median;
#: the median of |normal| is 0.6745 of its standard deviation.
NOISE = {"decode": 0.004 / 0.6745, "prefill": 0.028 / 0.6745}
#: How many conditions the calibration's scatter counts for, beside the measured ones'.
_PRIOR_WEIGHT = 10.0
#: Measurements this many standard deviations off contradict the interval.
_SURPRISE = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """What measured conditions say of the others of their engine."""

    factor: float
    """Multiplies predicted times."""
    interval: tuple[float, float]
    """(low, high) multipliers of the corrected time: its 90 % interval."""
    points: int


def correction(ratios: Sequence[float], *, interval: tuple[float, float], scatter: float) -> Correction:
    """Learn from measured / predicted of 0 or more conditions.

    Args:
        ratios: measured over predicted, each above 0.
        interval: (low, high) multipliers of the prediction before, 90 %; low <= 1 <= high.
        scatter: standard deviation of ln(measured / predicted) between conditions of one engine, above 0.

    Raises:
        ValueError: a ratio that is no positive number.
    """
    if not all(ratio > 0 and math.isfinite(ratio) for ratio in ratios):
        msg = f"measured / predicted must be positive numbers: {list(ratios)!r}"
        raise ValueError(msg)
    if not ratios:
        return Correction(factor=1.0, interval=interval, points=0)
    logs = [math.log(ratio) for ratio in ratios]
    mean, n = fmean(logs), len(logs)
    spread = _scatter(logs, scatter)
    total = [abs(math.log(end)) / Z90 for end in interval]
    shared = [math.sqrt(max(0.0, sd**2 - scatter**2)) for sd in total]
    # A shift towards a wide side of the interval is believed more readily than one towards a narrow side.
    shared = [_unsurprised(sd, mean, spread / math.sqrt(n)) for sd in shared]
    side = shared[1] if mean > 0 else shared[0]
    weight = n * side**2 / (n * side**2 + spread**2)
    ends = [Z90 * math.sqrt(_left(sd, spread, n) + spread**2) for sd in shared]
    return Correction(factor=math.exp(mean * weight), interval=(math.exp(-ends[0]), math.exp(ends[1])), points=n)


def corrected(predictor: Predictor, *, decode: Correction, prefill: Correction) -> Predictor:
    """The predictor with its times multiplied by the factors and its intervals narrowed."""
    points = max(decode.points, prefill.points)
    if points == 0:
        return predictor
    note = f"corrected by {points} measured runs: decode x{decode.factor:.3f}, prefill x{prefill.factor:.3f}"
    return replace(
        predictor.scaled(decode=decode.factor, prefill=prefill.factor),
        decode_interval=decode.interval,
        prefill_interval=_within(predictor.prefill_interval, prefill.interval),
        ttft_interval=prefill.interval,
        notes=(*predictor.notes, note),
    )


def not_below(predictor: Predictor, bound: Predictor) -> Predictor:
    """The predictor with every table at least the bound's, and a note where that raised it; same grids, else itself."""
    grids = ("tokens", "sequences", "decode_batch", "decode_context", "chunk", "prior")
    if not all(np.array_equal(getattr(predictor, name), getattr(bound, name)) for name in grids):
        return predictor
    tables = {
        name: np.maximum(getattr(predictor, name), getattr(bound, name))
        for name in ("token_s", "sequence_s", "decode_s", "prefill_s")
    }
    if all(np.array_equal(table, getattr(predictor, name)) for name, table in tables.items()):
        return predictor
    note = "measured runs say less than the roofline allows: held at the roofline"
    return replace(predictor, **tables, notes=(*predictor.notes, note))


def _within(interval: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    """No wider than the other: measured TTFT bounds prefill too."""
    return max(interval[0], other[0]), min(interval[1], other[1])


def _scatter(logs: Sequence[float], scatter: float) -> float:
    """The calibration's scatter and the measured conditions' own, weighted by how many each rests on."""
    own = sum((value - fmean(logs)) ** 2 for value in logs)
    return math.sqrt((_PRIOR_WEIGHT * scatter**2 + own) / (_PRIOR_WEIGHT + len(logs) - 1))


def _unsurprised(shared: float, mean: float, error: float) -> float:
    """The shared standard deviation, widened so that the measured mean lies within two of the whole."""
    needed = (mean / _SURPRISE) ** 2 - error**2
    return max(shared, math.sqrt(max(0.0, needed)))


def _left(shared: float, spread: float, n: int) -> float:
    """Variance of the shared part after n conditions."""
    return shared**2 * spread**2 / (n * shared**2 + spread**2) if shared > 0 else 0.0
