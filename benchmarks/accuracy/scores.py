"""Scores of predictions against measured runs: errors, coverage of intervals, and the quality of decisions.

A decision: within one group of runs (model, GPU, precision, lengths) and under one TPOT limit, pick the configuration
with the greatest predicted throughput among those predicted to keep the limit (by the pessimistic end where there is
one). It is *broken* if the pick's measured TPOT exceeds the limit by more than 5 %, *abstained* if nothing is predicted
to keep a limit that some measured run keeps; its regret is the share of the best measured throughput that is missed,
1 for a broken or abstained one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

GROUP = ("model", "gpu", "precision", "isl", "osl")
LIMITS_MS = (10.0, 15.0, 20.0, 30.0, 50.0)
TOLERANCE = 0.05
LEAST_RUNS = 6  # a smaller group is no choice

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decisions:
    """What came of the picks."""

    decisions: int
    broken: int
    abstained: int
    regret_mean: float | None


def joined(inputs: pl.DataFrame, truth: pl.DataFrame, predictions: pl.DataFrame) -> pl.DataFrame:
    """Conditions, measured metrics, and predicted ones as `<metric>_pred`, `<metric>_pred_lo`, `<metric>_pred_hi`."""
    names = [c for c in predictions.columns if c.removesuffix("_lo").removesuffix("_hi") in truth.columns and c != "id"]
    ends = {name: _renamed(name) for name in names}
    return inputs.join(truth, on="id").join(predictions.select("id", *names).rename(ends), on="id", how="left")


def _renamed(name: str) -> str:
    for end in ("_lo", "_hi"):
        if name.endswith(end):
            return f"{name.removesuffix(end)}_pred{end}"
    return f"{name}_pred"


def errors(rows: pl.DataFrame, metric: str) -> Floats:
    """|predicted / measured - 1| of the rows that have both."""
    measured, predicted = _column(rows, metric), _column(rows, f"{metric}_pred")
    known = np.isfinite(measured) & (measured > 0) & np.isfinite(predicted)
    return np.abs(predicted[known] / measured[known] - 1.0)


def coverage(rows: pl.DataFrame, metric: str) -> float | None:
    """Share of the measured rows that have a prediction."""
    measured = np.isfinite(_column(rows, metric))
    return float(np.isfinite(_column(rows, f"{metric}_pred"))[measured].mean()) if measured.any() else None


def interval_coverage(rows: pl.DataFrame, metric: str) -> float | None:
    """Share of the measured values inside their interval, where there is one."""
    measured, low, high = (_column(rows, name) for name in (metric, f"{metric}_pred_lo", f"{metric}_pred_hi"))
    known = np.isfinite(measured) & np.isfinite(low) & np.isfinite(high)
    inside = (measured >= low) & (measured <= high)
    return float(inside[known].mean()) if known.any() else None


def quantile(values: Floats, share: float) -> float | None:
    """A quantile, None of nothing."""
    return float(np.quantile(values, share)) if values.size else None


def decide(
    rows: pl.DataFrame, *, objective: str = "out_tps_gpu", metric: str = "tpot_ms",
    limits: Sequence[float] = LIMITS_MS, pessimistic: bool = True,
) -> Decisions:  # fmt: skip
    """Make and judge every decision; without intervals the prediction itself decides."""
    bound = f"{metric}_pred_hi" if pessimistic else f"{metric}_pred"
    regrets: list[float] = []
    broken = abstained = 0
    for _, group in rows.sort("id").group_by(GROUP, maintain_order=True):
        if group.height < LEAST_RUNS:
            continue
        names = (metric, objective, bound, f"{objective}_pred")
        measured, gain, high, promised = (_column(group, name) for name in names)
        for limit in limits:
            feasible = measured <= limit
            if not feasible.any():
                continue
            choice = np.flatnonzero((high <= limit) & np.isfinite(promised))
            if choice.size == 0:
                abstained += 1
                regrets.append(1.0)
                continue
            pick = choice[np.argmax(promised[choice])]
            broke = bool(measured[pick] > limit * (1.0 + TOLERANCE))
            broken += broke
            best = gain[feasible].max()
            regrets.append(1.0 if broke else max(0.0, float((best - gain[pick]) / best)))
    mean = float(np.mean(regrets)) if regrets else None
    return Decisions(decisions=len(regrets), broken=broken, abstained=abstained, regret_mean=mean)


def summary(rows: pl.DataFrame, *, pessimistic: bool) -> dict[str, float | int | None]:
    """The figures of one predictor."""
    tpot, made = errors(rows, "tpot_ms"), decide(rows, pessimistic=pessimistic)
    return {
        "coverage": coverage(rows, "tpot_ms"),
        "tpot_median": quantile(tpot, 0.5),
        "tpot_p90": quantile(tpot, 0.9),
        "ttft_median": quantile(errors(rows, "ttft_ms"), 0.5),
        "broken": made.broken,
        "abstained": made.abstained,
        "decisions": made.decisions,
        "regret_mean": made.regret_mean,
        "interval_coverage": interval_coverage(rows, "tpot_ms"),
    }


KEYS: tuple[str, ...] = (
    "coverage", "tpot_median", "tpot_p90", "ttft_median", "broken", "abstained", "decisions", "regret_mean",
    "interval_coverage",
)  # fmt: skip


def _column(rows: pl.DataFrame, name: str) -> Floats:
    """A column as floats, NaN where it is null or absent."""
    if name not in rows.columns:
        return np.full(rows.height, np.nan)
    return rows[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()
