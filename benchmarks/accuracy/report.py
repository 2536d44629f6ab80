"""accuracy.md and its plots: error by model, GPU, precision, TP and concurrency, predicted against measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
import polars as pl

from benchmarks.accuracy import scores

mpl.use("Agg")
import matplotlib.pyplot as plt

BY = ("model", "gpu", "precision", "tp", "concurrency")
SHOWN = {
    "coverage": "rows predicted",
    "tpot_median": "TPOT, median error",
    "tpot_p90": "TPOT, 90th percentile of error",
    "ttft_median": "TTFT, median error",
    "broken": "decisions that break the SLO",
    "abstained": "abstained though feasible",
    "decisions": "decisions",
    "regret_mean": "mean regret",
    "interval_coverage": "measured TPOT inside the 90 % interval",
}
Figures = Mapping[str, float | int | None]
PREAMBLE = """\
Written by `python -m benchmarks accuracy --write` on {runs} measured runs of vLLM (InferenceX, as published in
`silicon_sample.csv` of aiconfigurator-core 0.12.0, Apache-2.0). They are scored, never fitted. fleetplan decides by the
pessimistic end of its 90 % intervals, the peer by its point predictions, at its default settings. A decision picks the
configuration of greatest predicted throughput per GPU that keeps a TPOT limit of 10, 15, 20, 30 or 50 ms within one
model, GPU, precision and pair of lengths; regret is the share of the best measured throughput that is missed, 1 for a
broken or abstained decision.

What the source leaves unsaid fleetplan takes from its published serve commands and from the 60 calibration runs
(`planner/conditions/condition.py`): latencies are means over requests, attention runs one data-parallel rank per GPU,
KV space is FP8 on Blackwell, runs without a version schedule ahead. The peer is asked as the columns say.
"""
HEAD = ("runs", "predicted", "TPOT median", "TPOT p90", "TPOT bias", "TTFT median", "in interval", "peer TPOT median")


def table(figures: Figures) -> str:
    """Our figures beside the peer's, as Markdown."""
    lines = ["| figure | fleetplan | aiconfigurator 0.12.0 |", "|---|---:|---:|"]
    lines += [f"| {text} | {_shown(figures[key])} | {_shown(figures[f'peer_{key}'])} |" for key, text in SHOWN.items()]
    return "\n".join(lines)


def write(folder: Path, ours: pl.DataFrame, peer: pl.DataFrame | None, figures: Figures) -> None:
    """Renew accuracy.md, accuracy_tpot.png and accuracy_ttft.png."""
    for metric, name in (("tpot_ms", "TPOT"), ("ttft_ms", "TTFT")):
        _plot(folder / f"accuracy_{name.lower()}.png", ours, peer, metric=metric, name=name)
    (folder / "accuracy.md").write_text("\n".join(_text(ours, peer, figures)) + "\n", encoding="utf-8")


def _text(ours: pl.DataFrame, peer: pl.DataFrame | None, figures: Figures) -> Iterator[str]:
    yield "# Accuracy on public runs\n"
    yield PREAMBLE.format(runs=ours.height)
    yield table(figures) + "\n"
    yield "![TPOT predicted against measured](accuracy_tpot.png)\n"
    yield "![TTFT predicted against measured](accuracy_ttft.png)\n"
    for key in BY:
        yield f"## By {key}\n"
        yield f"| {key} | " + " | ".join(HEAD) + " |"
        yield "|---" + "|---:" * len(HEAD) + "|"
        yield from _rows(key, ours, peer)
        yield ""


def _rows(key: str, ours: pl.DataFrame, peer: pl.DataFrame | None) -> Iterator[str]:
    for value in ours[key].unique().sort():
        part = ours.filter(pl.col(key) == value)
        tpot, ttft = scores.errors(part, "tpot_ms"), scores.errors(part, "ttft_ms")
        theirs = None if peer is None else scores.errors(peer.filter(pl.col(key) == value), "tpot_ms")
        cells = (
            scores.coverage(part, "tpot_ms"),
            scores.quantile(tpot, 0.5),
            scores.quantile(tpot, 0.9),
            _bias(part),
            scores.quantile(ttft, 0.5),
            scores.interval_coverage(part, "tpot_ms"),
            None if theirs is None else scores.quantile(theirs, 0.5),
        )
        yield f"| {value} | {part.height} | " + " | ".join(_shown(cell) for cell in cells) + " |"


def _bias(rows: pl.DataFrame) -> float | None:
    """Median of predicted / measured - 1."""
    found = rows.select((pl.col("tpot_ms_pred") / pl.col("tpot_ms") - 1.0).median()).item()
    return None if found is None else float(found)


def _plot(path: Path, ours: pl.DataFrame, peer: pl.DataFrame | None, *, metric: str, name: str) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(11, 5), sharex=True, sharey=True, layout="constrained")
    for axis, rows, title in ((axes[0], ours, "fleetplan"), (axes[1], peer, "aiconfigurator 0.12.0")):
        _points(axis, rows, metric)
        axis.set(title=title, xlabel=f"measured {name}, ms", xscale="log", yscale="log")
    axes[0].set_ylabel(f"predicted {name}, ms")
    axes[0].legend(fontsize=7)
    figure.savefig(path, dpi=110, metadata={"Software": None})  # equal bytes for equal data
    plt.close(figure)


def _points(axis: plt.Axes, rows: pl.DataFrame | None, metric: str) -> None:
    """Measured against predicted by model, with lines at equal and at ±25 %."""
    if rows is None:
        return
    values = rows[metric].drop_nulls()
    ends = np.array([float(values.min() or 1.0), float(values.max() or 1.0)])  # type: ignore[arg-type]
    for factor, style in ((1.0, "-"), (1.25, ":"), (0.8, ":")):
        axis.plot(ends, ends * factor, style, color="black", linewidth=0.8)
    for model in rows["model"].unique().sort():
        part = rows.filter(pl.col("model") == model)
        axis.scatter(part[metric], part[f"{metric}_pred"], s=6, alpha=0.6, label=model.rpartition("/")[2])


def _shown(value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.1%}"
