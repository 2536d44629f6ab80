"""Requests drawn from ServeGen's published clients: rate and burstiness per 10 minutes, length quantiles per 6 hours.

ServeGen (arXiv 2505.09999) describes production load as a sum of clients, each with gamma or Weibull gaps of its own;
drawing from them keeps the burstiness that one law for the sum would lose.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from catalog.errors import BadInput, near_names
from planner.workload import Lengths, Trace
from planner.workload.requests import lengths_at

RATE_COLUMNS = {"model", "client", "t_s", "rate_rps", "pattern", "p1"}
LENGTH_COLUMNS = {"model", "client", "t_s", "field", "p10", "p50", "p90", "p99"}
LENGTHS_FILE = "client_length_quantiles_6h.parquet"
RATE_WINDOW_S, LENGTH_WINDOW_S = 600, 6 * 3600
PROMPT_FIELDS = ("input_tokens", "text_tokens")
QUANTILES = {"p10": 0.1, "p50": 0.5, "p90": 0.9, "p99": 0.99}
DAY_S = 24 * 3600

#: (client, `prompt` or `output`) -> start of the window -> lengths.
Known = dict[tuple[int, str], dict[int, Lengths]]


def read_clients(  # noqa: PLR0913 - all but the path are keywords with defaults
    path: str | Path,
    *,
    model: str | None = None,
    start_s: int | None = None,
    duration_s: int = 3600,
    most: int = 200_000,
    seed: int = 0,
) -> Trace:
    """Draw a trace from a client rate file and the length quantiles beside it. Seeded: same arguments, same rows.

    `model` may be left out where the file holds one; `start_s` defaults to the busiest hour. Where more than `most`
    requests would come, every client's rate is divided alike, and the source says by how much.
    """
    path = Path(path)
    rates = pl.read_parquet(path)
    lengths = pl.read_parquet(path.with_name(LENGTHS_FILE))
    _refuse_other_columns(path, rates, RATE_COLUMNS)
    _refuse_other_columns(path.with_name(LENGTHS_FILE), lengths, LENGTH_COLUMNS)
    model = _model(path, rates, model)
    rates = rates.filter(pl.col("model") == model).sort("client", "t_s")
    start = _busiest(rates, duration_s) if start_s is None else start_s
    chosen = rates.filter(pl.col("t_s").is_between(start, start + duration_s, closed="left"))
    known = _quantiles(lengths.filter(pl.col("model") == model))
    whole = chosen["client"].n_unique()
    chosen = chosen.filter(pl.col("client").is_in(sorted(client for client, side in known if side == "output")))
    expected = float(chosen["rate_rps"].sum()) * RATE_WINDOW_S
    if expected <= 1:
        what = f"model {model} has no load from {start} s for {duration_s} s"
        raise BadInput(what, place=path.name, mend="take a start within the file's windows")
    thinned = max(1.0, expected / most)
    arrival, prompt, output = _drawn(chosen, known, thinned, seed)
    note = f", {chosen['client'].n_unique()} of {whole} clients have lengths"
    note += f", rates divided by {thinned:.4g}" if thinned > 1 else ""
    source = f"{path.name} ({model}, {duration_s} s from {start} s{note})"
    return Trace(arrival_s=arrival, prompt=prompt, output=output, source=source, day_offset_s=float(start % DAY_S))


def _refuse_other_columns(path: Path, frame: pl.DataFrame, expected: set[str]) -> None:
    missing = expected - set(frame.columns)
    if missing:
        what = f"these are no ServeGen clients: {', '.join(sorted(missing))} missing"
        raise BadInput(what, place=path.name, mend="give the client rate file with the length quantiles beside it")


def _model(path: Path, rates: pl.DataFrame, model: str | None) -> str:
    models: list[str] = sorted(rates["model"].unique().to_list())
    if model is None and len(models) == 1:
        return models[0]
    if model is None or model not in models:
        what = f"model {model!r} is not in the file" if model else f"the file holds {len(models)} models"
        raise BadInput(what, place=path.name, mend=f"name one as {path.name}#MODEL: {near_names(model or '', models)}")
    return model


def _busiest(rates: pl.DataFrame, duration_s: int) -> int:
    blocks = rates.group_by((pl.col("t_s") // duration_s).alias("block")).agg(pl.col("rate_rps").sum())
    return int(blocks.sort("rate_rps", "block", descending=[True, False])["block"][0]) * duration_s


def _drawn(
    chosen: pl.DataFrame, known: Known, thinned: float, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    generator = np.random.default_rng(seed)
    start = int(chosen["t_s"].to_numpy().min())
    columns: tuple[list[NDArray[np.float64]], list[NDArray[np.int64]], list[NDArray[np.int64]]] = ([], [], [])
    for row in chosen.iter_rows(named=True):
        times = _arrivals(row["rate_rps"] / thinned, row["pattern"], row["p1"], generator)
        laws = [_nearest(known.get((row["client"], side), {}), row["t_s"]) for side in ("prompt", "output")]
        if not len(times) or laws[0] is None or laws[1] is None:
            continue
        columns[0].append(times + (row["t_s"] - start))
        for column, law in zip(columns[1:], laws, strict=True):
            share = np.clip(generator.random(len(times)), 1e-6, 1 - 1e-6)
            column.append(lengths_at(share, law))  # type: ignore[arg-type]
    arrival, prompt, output = np.concatenate(columns[0]), np.concatenate(columns[1]), np.concatenate(columns[2])
    order = np.argsort(arrival, kind="stable")
    return arrival[order], prompt[order], output[order]


def _nearest(by_window: dict[int, Lengths], t_s: int) -> Lengths | None:
    """The client's lengths of the window that holds `t_s`, or of the window nearest to it."""
    window = t_s // LENGTH_WINDOW_S * LENGTH_WINDOW_S
    at = min(by_window, key=lambda known: (abs(known - window), known), default=None)
    return None if at is None else by_window[at]


def _quantiles(lengths: pl.DataFrame) -> Known:
    """(client, side) -> window -> lengths; the longest draw is twice the 99th percentile."""
    table: Known = {}
    for row in lengths.iter_rows(named=True):
        side = "prompt" if row["field"] in PROMPT_FIELDS else "output"
        values = np.maximum.accumulate([max(1.0, float(row[name])) for name in QUANTILES])
        quantiles = dict(zip(QUANTILES.values(), values.tolist(), strict=True))
        law = Lengths(quantiles=quantiles, max=int(2 * values[-1]))
        table.setdefault((row["client"], side), {})[row["t_s"]] = law
    return table


def _arrivals(rate: float, pattern: str, shape: float, generator: np.random.Generator) -> NDArray[np.float64]:
    """Arrivals within one rate window: gaps of the client's law with mean 1/rate, from a random phase of the first."""
    count = max(8, int(2 * rate * RATE_WINDOW_S) + 8)
    gaps = generator.weibull(shape, count) if pattern == "Weibull" else generator.gamma(shape, 1.0, count)
    mean = gaps.mean()
    if not mean > 0:
        return np.empty(0)
    times = np.cumsum(gaps / mean / rate) - generator.random() * gaps[0] / mean / rate
    inside: NDArray[np.float64] = times[times < RATE_WINDOW_S]
    return inside
