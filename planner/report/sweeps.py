"""Plots of what-if sweeps: cost along what is varied, the strategy named where it changes, as PNG or SVG."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from planner.explain import seconds
from planner.report.images import ACCENT, FREE, INK, LIMIT, SOFT, _figure, _png
from planner.whatif import break_even

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Format = Literal["png", "svg"]
#: Sweep -> name of its axis, and how a value is written.
AXES: dict[str, tuple[str, Callable[[float], str]]] = {
    "price": ("price, times today's", lambda x: f"{x:g}"),
    "rate": ("load, requests/s", lambda x: f"{x:g}"),
    "prompt": ("mean prompt, tokens", lambda x: f"{x:,.0f}"),
    "output": ("mean output, tokens", lambda x: f"{x:,.0f}"),
    "bandwidth": ("network bandwidth, GB/s per GPU", lambda x: f"{x / 1e9:g}"),
    "latency": ("network latency", seconds),
    "jitter": ("network jitter (standard deviation)", seconds),
    "ttft": ("TTFT limit", seconds),
    "tpot": ("TPOT limit", seconds),
    "e2e": ("limit of a whole request", seconds),
}
#: Points this far apart are shown on a logarithmic axis.
WIDE = 20.0


def plot(frame: pl.DataFrame, *, about: str, form: Format = "png") -> bytes:
    """Draw one sweep of `planner.whatif`; equal frames give equal bytes."""
    figure = _figure(7.6, 4.8)
    axis = figure.subplots()
    frame = frame.sort("value")
    name, written = AXES[frame["sweep"][0]]
    values = frame["value"].to_list()
    if "gain" in frame.columns:
        _sides(axis, frame)
    else:
        _line(axis, values, frame["cost_per_hour"].to_list(), colour=ACCENT, label="cheapest")
        _named(axis, frame, "cost_per_hour", "strategy")
    _infeasible(axis, frame)
    _axis(axis, values, written)
    axis.set_ylim(0, 1.15 * _dearest(frame))
    axis.margins(x=0.05)
    axis.set_title(about.replace("$", r"\$"), fontsize=10, loc="left", color=INK)
    axis.set_xlabel(name, fontsize=9, color=INK)
    axis.set_ylabel("USD/h", fontsize=9, color=INK)
    axis.tick_params(labelsize=8, colors=SOFT)
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(fontsize=7.5, frameon=False, labelcolor=INK, loc="outside lower left", ncols=2)
    return _png(figure) if form == "png" else _svg(figure)


def _dearest(frame: pl.DataFrame) -> float:
    columns = [name for name in ("cost_per_hour", "collocated_cost", "disaggregated_cost") if name in frame.columns]
    return max((cost for name in columns for cost in frame[name].to_list() if cost is not None), default=1.0)


def _sides(axis: Axes, frame: pl.DataFrame) -> None:
    """Both costs of a network sweep, and where disaggregation starts or stops paying."""
    values = frame["value"].to_list()
    _line(axis, values, frame["collocated_cost"].to_list(), colour=SOFT, label="collocated")
    _line(axis, values, frame["disaggregated_cost"].to_list(), colour=ACCENT, label="disaggregated")
    turn = break_even(frame)
    if turn is not None:
        axis.axvspan(*turn, color=FREE, zorder=0, label="disaggregation starts or stops paying")
    _named(axis, frame, "disaggregated_cost", "disaggregated")


def _line(axis: Axes, x: list[float], y: list[float | None], *, colour: str, label: str) -> None:
    known = [math.nan if value is None else value for value in y]
    axis.plot(x, known, color=colour, marker="o", markersize=4.5, linewidth=1.4, label=label, zorder=3)


def _named(axis: Axes, frame: pl.DataFrame, cost: str, name: str) -> None:
    """A letter at each point for its strategy; the letters are explained below the plot."""
    letters: dict[str, str] = {}
    for value, height, strategy in frame.select("value", cost, name).iter_rows():
        if strategy is None:
            continue
        if strategy not in letters:
            letters[strategy] = chr(ord("A") + len(letters) % 26)
            label = strategy.replace("$", r"\$")
            axis.plot([], [], linestyle="", marker=f"${letters[strategy]}$", color=INK, markersize=6, label=label)
        axis.annotate(
            letters[strategy], (value, height), xytext=(0, 6), textcoords="offset points", fontsize=8, color=INK,
            ha="center", zorder=4,
        )  # fmt: skip


def _infeasible(axis: Axes, frame: pl.DataFrame) -> None:
    """A cross on the axis where nothing is feasible."""
    without = frame.filter(~pl.col("feasible"))["value"].to_list()
    if without:
        axis.plot(without, [0.0] * len(without), linestyle="", marker="x", color=LIMIT, clip_on=False, zorder=5)
        axis.annotate(
            "not feasible", (without[0], 0.0), xytext=(0, 7), textcoords="offset points", fontsize=7, color=LIMIT,
            ha="center",
        )  # fmt: skip


def _axis(axis: Axes, values: list[float], written: Callable[[float], str]) -> None:
    """Ticks at the points themselves; logarithmic where they lie far apart."""
    low = min((value for value in values if value > 0), default=1.0)
    if max(values) / low > WIDE:
        axis.set_xscale("symlog" if min(values) <= 0 else "log", **({"linthresh": low} if min(values) <= 0 else {}))
    axis.minorticks_off()
    axis.set_xticks(values, [written(value) if value else "0" for value in values])


def _svg(figure: Any) -> bytes:  # noqa: ANN401 - matplotlib has no types
    from matplotlib import rc_context  # noqa: PLC0415 - half a second, only where drawn
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415

    target = io.BytesIO()
    # names inside the file come from this word instead of chance, and no date is written
    with rc_context({"svg.hashsalt": "fleetplan", "svg.fonttype": "none"}):
        canvas: Any = FigureCanvasSVG(figure)
        canvas.print_svg(target, metadata={"Date": None, "Creator": None})
    return target.getvalue()
