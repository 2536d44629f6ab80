"""What-if: how the best answer to one intent changes with price, SLO, load, lengths and network.

Each sweep repeats the search at every point, on facts that are asked once, and returns one row per point.
Disaggregation pays where its cheapest candidate costs less than the cheapest collocated one; with a faster network the
KV blocks arrive sooner, so the growth of that difference is what an upgrade of the network may cost per hour.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np
import polars as pl

from catalog.cluster import Cluster
from catalog.gpus import GPU
from catalog.models import Model
from planner.candidates import Facts, Judge, explore
from planner.candidates.asking import QualityOf
from planner.intents import Intent
from planner.strategies import Candidate
from planner.workload import Requests

SCHEMA = pl.Schema(
    {
        "sweep": pl.String,
        "value": pl.Float64,
        "unit": pl.String,
        "feasible": pl.Boolean,
        "cost_per_hour": pl.Float64,
        "strategy": pl.String,
        "kind": pl.String,
        "gpus": pl.Int64,
        "node_pools": pl.String,
        "ttft_high_s": pl.Float64,
        "tpot_high_s": pl.Float64,
        "goodput_low": pl.Float64,
        "quality": pl.Float64,
        "method": pl.String,
        "source": pl.String,
    }
)
"""Columns of a sweep: one row per point, nulls where nothing is feasible; `value` in `unit`, `goodput_low` in /s."""

Limit = Literal["ttft", "tpot", "e2e"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Study:
    """One intent in its surroundings: what a search takes, with facts that every point of a sweep shares."""

    intent: Intent
    cluster: Cluster
    gpus: Mapping[str, GPU]
    model: Model
    requests: Requests
    facts: Facts
    prices: Mapping[str, float]
    quality_of: QualityOf
    judge: Judge | None = None
    simulated: int = 0
    """Options simulated per point; 0 keeps to the closed form, whose error is the same at every point."""


def best(study: Study) -> tuple[Candidate, ...]:
    """Candidates that serve the whole rate, cheapest first."""
    names = ("cluster", "gpus", "model", "requests", "facts", "prices", "quality_of", "judge", "simulated")
    found = explore(study.intent, **{name: getattr(study, name) for name in names})
    return tuple(candidate for candidate in found.candidates if candidate.share >= 1.0)


def prices(study: Study, factors: Sequence[float], *, pools: Sequence[str] | None = None) -> pl.DataFrame:
    """Multiply the price of some node pools (all by default): `value` is the factor."""
    chosen = set(study.prices if pools is None else pools)

    def changed(factor: float) -> Study:
        scaled = {name: price * factor if name in chosen else price for name, price in study.prices.items()}
        return replace(study, prices=scaled)

    return _sweep("price", "x", factors, changed)


def limits(study: Study, limit: Limit, values_s: Sequence[float]) -> pl.DataFrame:
    """Set one limit of the SLO, in seconds. The intent needs an SLO with an attainment to vary."""

    def changed(value: float) -> Study:
        assert study.intent.slo is not None  # noqa: S101 - documented
        slo = study.intent.slo.model_copy(update={limit: value})
        return replace(study, intent=study.intent.model_copy(update={"slo": slo}))

    return _sweep(limit, "s", values_s, changed)


def loads(study: Study, factors: Sequence[float]) -> pl.DataFrame:
    """Multiply the request rate: `value` is the rate in requests per second."""

    def changed(rate: float) -> Study:
        return replace(study, requests=at_rate(study.requests, rate))

    return _sweep("rate", "/s", [factor * study.requests.rate for factor in factors], changed)


def lengths(study: Study, side: Literal["prompt", "output"], factors: Sequence[float]) -> pl.DataFrame:
    """Multiply prompt or output lengths: `value` is the mean length in tokens."""
    mean = float(getattr(study.requests, side).mean())

    def changed(value: float) -> Study:
        return replace(study, requests=stretched(study.requests, side, value / mean))

    return _sweep(side, "tokens", [factor * mean for factor in factors], changed)


def networks(
    study: Study,
    bandwidths: Sequence[float],
    *,
    latency_s: float | None = None,
    jitter_s: float = 0.0,
    price_per_gpu_hour: float = 0.0,
) -> pl.DataFrame:
    """Give every pool a network of each bandwidth (bytes per second and GPU), at a price per GPU in use.

    Jitter is a standard deviation of the latency; a transfer is charged twice of it on top of the mean, since the SLO
    is about slow requests. Beside the columns of `SCHEMA`: `collocated_cost`, `disaggregated_cost` (null where not
    feasible) and `gain`, the dollars per hour that disaggregation saves at that bandwidth, the network's price paid.
    """
    together = _first(_only(study, "forbidden"))
    collocated = None if together is None else together.cost_per_hour
    rows = []
    for bandwidth in bandwidths:
        cluster = networked(study.cluster, bandwidth, latency_s, jitter_s)
        apart = _first(_only(replace(study, cluster=cluster), "required"))
        disaggregated = None if apart is None else apart.cost_per_hour + price_per_gpu_hour * _gpus(apart)
        gain = None if collocated is None or disaggregated is None else collocated - disaggregated
        cheaper = disaggregated is not None and (collocated is None or disaggregated < collocated)
        row = _row("bandwidth", bandwidth, "B/s", apart if cheaper else together)
        costs = {"collocated_cost": collocated, "disaggregated_cost": disaggregated, "gain": gain}
        rows.append({**row, **costs, "cost_per_hour": disaggregated if cheaper else collocated})
    extra = dict.fromkeys(("collocated_cost", "disaggregated_cost", "gain"), pl.Float64)
    return pl.DataFrame(rows, schema={**SCHEMA, **extra})


def _only(study: Study, disaggregated: Literal["forbidden", "required"]) -> Study:
    return replace(study, intent=study.intent.model_copy(update={"disaggregated": disaggregated}))


def _first(study: Study) -> Candidate | None:
    return next(iter(best(study)), None)


def break_even(frame: pl.DataFrame) -> float | None:
    """Bandwidth below which disaggregation stops paying: where `gain` last turns positive as bandwidth grows.

    Linear between points; None where it never pays or always does.
    """
    known = frame.drop_nulls("gain").sort("value")
    points = list(zip(known["value"].to_list(), known["gain"].to_list(), strict=True))
    crossing = None
    for (x0, y0), (x1, y1) in pairwise(points):
        if y0 <= 0 < y1:
            crossing = x0 + (x1 - x0) * (0 - y0) / (y1 - y0)
    return crossing


def upgrade(frame: pl.DataFrame, now: float, then: float) -> float | None:
    """Dollars per hour that going from one point of a sweep to another saves; None where either is not feasible.

    Of a network sweep without a price: what the faster network may cost per hour before it stops paying.
    """
    cost = dict(zip(frame["value"].to_list(), frame["cost_per_hour"].to_list(), strict=True))
    if cost.get(now) is None or cost.get(then) is None:
        return None
    return float(cost[now] - cost[then])


def at_rate(requests: Requests, rate: float) -> Requests:
    """The same requests at another mean rate; measured arrivals are sped up alike."""
    factor = rate / requests.rate
    return replace(
        requests,
        rate=rate,
        peak_rate=None if requests.peak_rate is None else requests.peak_rate * factor,
        arrival_s=None if requests.arrival_s is None else requests.arrival_s / factor,
    )


def stretched(requests: Requests, side: Literal["prompt", "output"], factor: float) -> Requests:
    """The same requests with longer or shorter prompts (cached tokens alike) or outputs, at least one token."""

    def scaled(tokens: np.ndarray[tuple[int], np.dtype[np.int64]]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return np.maximum(1, np.round(tokens * factor)).astype(np.int64)

    if side == "output":
        return replace(requests, output=scaled(requests.output))
    prompt = scaled(requests.prompt)
    cached = np.minimum(np.round(requests.cached * factor).astype(np.int64), prompt - 1)
    return replace(requests, prompt=prompt, cached=cached)


def networked(cluster: Cluster, bandwidth: float, latency_s: float | None = None, jitter_s: float = 0.0) -> Cluster:
    """The cluster with this network in every pool; latency stays where none is given."""
    pools = []
    for pool in cluster.pools:
        latency = (pool.network.latency if latency_s is None else latency_s) + 2 * jitter_s
        network = pool.network.model_copy(update={"bandwidth": bandwidth, "latency": latency})
        pools.append(pool.model_copy(update={"network": network}))
    return cluster.model_copy(update={"pools": tuple(pools)})


def _gpus(candidate: Candidate) -> int:
    return sum(count for _, count in candidate.gpus)


def _sweep(name: str, unit: str, values: Sequence[float], changed: Callable[[float], Study]) -> pl.DataFrame:
    def rows() -> Iterator[dict[str, object]]:
        for value in values:
            yield _row(name, value, unit, _first(changed(value)))

    return pl.DataFrame(list(rows()), schema=SCHEMA)


def _row(name: str, value: float, unit: str, candidate: Candidate | None) -> dict[str, object]:
    row: dict[str, object] = dict.fromkeys(SCHEMA)
    row |= {"sweep": name, "value": float(value), "unit": unit, "feasible": candidate is not None}
    if candidate is None:
        return row
    estimate = candidate.estimate
    return row | {
        "cost_per_hour": candidate.cost_per_hour,
        "strategy": str(candidate.strategy),
        "kind": candidate.strategy.kind,
        "gpus": _gpus(candidate),
        "node_pools": ", ".join(name for name, _ in candidate.gpus),
        "ttft_high_s": estimate.ttft_high,
        "tpot_high_s": estimate.tpot_high,
        "goodput_low": estimate.goodput_low,
        "quality": candidate.quality,
        "method": estimate.method,
        "source": estimate.source,
    }
