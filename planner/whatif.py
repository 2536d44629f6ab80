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


NETWORK = pl.Schema(
    [
        *SCHEMA.items(),
        ("collocated_cost", pl.Float64()),
        ("disaggregated_cost", pl.Float64()),
        ("gain", pl.Float64()),
        ("disaggregated", pl.String()),
    ]
)
"""Columns of a network sweep: both costs and the cheapest disaggregated strategy, null where none is feasible; `gain`
is what disaggregation saves per hour."""


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
    is about slow requests. Columns of `NETWORK`. Collocated strategies need no such network and do not pay for it.
    """

    def changed(bandwidth: float) -> Cluster:
        return networked(study.cluster, bandwidth=bandwidth, latency_s=latency_s, jitter_s=jitter_s)

    return _network_sweep(study, "bandwidth", "B/s", bandwidths, changed, price=price_per_gpu_hour)


def latencies(study: Study, values_s: Sequence[float]) -> pl.DataFrame:
    """Give every pool's network each latency in seconds; bandwidths stay. Columns of `NETWORK`."""
    return _network_sweep(study, "latency", "s", values_s, lambda at: networked(study.cluster, latency_s=at))


def jitters(study: Study, values_s: Sequence[float]) -> pl.DataFrame:
    """Let every pool's latency vary by each standard deviation in seconds. Columns of `NETWORK`."""
    return _network_sweep(study, "jitter", "s", values_s, lambda at: networked(study.cluster, jitter_s=at))


def _network_sweep(  # noqa: PLR0913, PLR0917 - one row per value of one thing
    study: Study,
    name: str,
    unit: str,
    values: Sequence[float],
    changed: Callable[[float], Cluster],
    price: float = 0.0,
) -> pl.DataFrame:
    together = None if study.intent.disaggregated == "required" else _first(_only(study, "forbidden"))
    collocated = None if together is None else together.cost_per_hour
    rows = []
    for value in values:
        apart = _first(_only(replace(study, cluster=changed(value)), "required"))
        disaggregated = None if apart is None else apart.cost_per_hour + price * _gpus(apart)
        gain = None if collocated is None or disaggregated is None else collocated - disaggregated
        cheaper = disaggregated is not None and (collocated is None or disaggregated < collocated)
        row = _row(name, value, unit, apart if cheaper else together)
        costs = {"collocated_cost": collocated, "disaggregated_cost": disaggregated, "gain": gain}
        named = {"disaggregated": None if apart is None else str(apart.strategy)}
        rows.append({**row, **costs, **named, "cost_per_hour": disaggregated if cheaper else collocated})
    return pl.DataFrame(rows, schema=NETWORK)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgrade:
    """A network upgrade of every pool, dollars per hour."""

    bandwidth: float
    """Bytes per second and GPU."""
    cost_now: float | None
    """Of the cheapest strategy on today's network; None where none is feasible."""
    cost_then: float | None
    """On the faster one, which is paid for by the GPUs that use it."""
    worth: float | None
    """What it would save if it were free: the most that it may cost."""
    gain: float | None
    """What it saves at its price; below zero it costs more than it brings, and nobody has to buy it."""
    strategy: str | None
    """The strategy that makes use of it; None where a collocated one stays the cheapest."""


def upgraded(study: Study, bandwidth: float, *, price_per_gpu_hour: float = 0.0) -> Upgrade:
    """What a network of `bandwidth` at a price per GPU in use and hour would save against today's."""
    now = _network_sweep(study, "today", "", [0.0], lambda _: study.cluster)
    then = networks(study, [bandwidth])
    cost_now, free = (frame["cost_per_hour"][0] for frame in (now, then))
    used = then["kind"][0] == "disaggregated"
    paid = price_per_gpu_hour * then["gpus"][0] if used and then["gpus"][0] is not None else 0.0
    cost_then = None if free is None else free + paid
    known = cost_now is not None and cost_then is not None
    return Upgrade(
        bandwidth=bandwidth,
        cost_now=cost_now,
        cost_then=cost_then,
        worth=cost_now - free if known else None,
        gain=cost_now - cost_then if known else None,
        strategy=then["strategy"][0] if used else None,
    )


def _only(study: Study, disaggregated: Literal["forbidden", "required"]) -> Study:
    return replace(study, intent=study.intent.model_copy(update={"disaggregated": disaggregated}))


def _first(study: Study) -> Candidate | None:
    return next(iter(best(study)), None)


def break_even(frame: pl.DataFrame) -> tuple[float, float] | None:
    """Two neighbouring points of a network sweep between which disaggregation starts or stops paying.

    The last change of sign of `gain`; what is not feasible does not pay. None where it always or never pays.
    """
    known = frame.sort("value").select("value", pl.col("gain").fill_null(-1.0) > 0)
    points = list(known.iter_rows())
    return next(((x0, x1) for (x0, y0), (x1, y1) in reversed(list(pairwise(points))) if y0 != y1), None)


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


def networked(
    cluster: Cluster, *, bandwidth: float | None = None, latency_s: float | None = None, jitter_s: float = 0.0
) -> Cluster:
    """The cluster with this network in every pool; what is not given stays."""
    pools = []
    for pool in cluster.pools:
        latency = (pool.network.latency if latency_s is None else latency_s) + 2 * jitter_s
        rate = pool.network.bandwidth if bandwidth is None else bandwidth
        network = pool.network.model_copy(update={"bandwidth": rate, "latency": latency})
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
