"""Rich tables of what-if sweeps, and in words what a network upgrade is worth."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl
from rich.table import Table

from flows.tables import dollars, seconds
from planner.report.sweeps import AXES
from planner.whatif import Upgrade, break_even


def sweep(frame: pl.DataFrame, *, title: str) -> Table:
    """One row per point: what the cheapest strategy costs there, and which it is; of a network sweep the pair."""
    network = "gain" in frame.columns
    name, written = AXES[frame["sweep"][0]]
    table = Table(title=title, title_justify="left")
    table.add_column(name, justify="right", overflow="fold", max_width=18)
    for column in ("collocated", "disaggregated", "gain") if network else ("USD/h",):
        table.add_column(column, justify="right")
    table.add_column("disaggregated strategy" if network else "strategy")
    for column in () if network else ("TTFT", "TPOT"):
        table.add_column(column, justify="right")
    for row in frame.sort("value").iter_rows(named=True):
        costs = ("collocated_cost", "disaggregated_cost", "gain") if network else ("cost_per_hour",)
        table.add_row(
            written(row["value"]),
            *(dollars(row[cost]) for cost in costs),
            row["disaggregated" if network else "strategy"] or "none is feasible",
            *(() if network else (seconds(row["ttft_high_s"]), seconds(row["tpot_high_s"]))),
        )
    return table


def turn(frame: pl.DataFrame) -> Iterator[str]:
    """Of a network sweep where disaggregation starts or stops paying."""
    if "gain" not in frame.columns:
        return
    _, written = AXES[frame["sweep"][0]]
    unit = " GB/s per GPU" if frame["sweep"][0] == "bandwidth" else ""
    found, gains = break_even(frame), [gain for gain in frame["gain"].to_list() if gain is not None]
    if found is None:
        always = bool(gains) and len(gains) == frame.height and min(gains) > 0
        yield f"disaggregation {'pays' if always else 'does not pay'} at any of these points"
        return
    verb = "starts" if frame["sweep"][0] == "bandwidth" else "stops"
    low, high = (written(value) for value in found)
    yield f"disaggregation {verb} paying between {low} and {high}{unit}"


def upgrade(worth: Upgrade) -> Iterator[str]:
    """What an upgrade is worth, in words."""
    speed = f"{worth.bandwidth / 1e9:g} GB/s per GPU"
    if worth.cost_then is None:
        yield f"with {speed} nothing is feasible either" if worth.cost_now is None else f"{speed}: nothing is feasible"
    elif worth.cost_now is None:
        yield f"with {speed} the intent becomes feasible, for {dollars(worth.cost_then)} USD/h ({worth.strategy})"
    elif worth.strategy is None:
        stays = f"a collocated strategy at {dollars(worth.cost_now)} USD/h stays best"
        yield f"an upgrade to {speed} gains nothing: {stays}"
    else:
        gain = worth.gain or 0.0
        yield (
            f"an upgrade to {speed} {'gains' if gain >= 0 else 'loses'} {dollars(abs(gain))} USD/h: "
            f"{dollars(worth.cost_then)} instead of {dollars(worth.cost_now)} ({worth.strategy}); "
            f"it is worth at most {dollars(worth.worth)} USD/h"
        )
