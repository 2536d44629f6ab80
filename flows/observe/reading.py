"""Read one service's telemetry: four queries, whose answers become an `Observed`."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

import numpy as np

from flows import promql
from flows.prometheus import Prometheus, Series
from planner.forecast import HOURS
from planner.workload import Observed, Scraped, Telemetry
from planner.workload.counters import dispersion
from planner.workload.histogram import Histogram
from planner.workload.observed import Attained

HOUR_S, DAY_HOURS = promql.HOUR_S, 24
#: Requests that tell a distribution of lengths; with fewer in the last day the whole history is asked.
ENOUGH = 200
#: A rate above it is no telemetry, requests per second.
MOST_RATE = 1e6
Names = Mapping[str, str]


def read_service(
    prometheus: Prometheus, scraped: Scraped, *, telemetry: Telemetry, names: Names, at_hour: int
) -> Observed:
    """Read what a service served in the days before an hour (hours since 1970).

    Raises:
        Unreachable, NoTelemetry: what `flows.prometheus` says of a server that does not answer as it should.
    """
    labels = promql.selector(scraped)
    hours = telemetry.days * DAY_HOURS
    rates = _hourly(prometheus, labels, telemetry, names, (at_hour - hours, at_hour))
    start = busiest_window(rates, at_hour)
    busiest = None if start is None else read_attained(prometheus, labels, names, start, _mean(rates, start, at_hour))
    gained = _lengths(prometheus, labels, names, at_hour, hours)
    return Observed(
        start_hour=at_hour - hours,
        rates=rates,
        prompt=_histogram(gained, "prompt"),
        output=_histogram(gained, "output"),
        dispersion=None if start is None else _dispersion(prometheus, labels, names, start),
        prefix_hit_share=_share(gained.get("prefix_hits"), gained.get("prefix_queries")),
        busiest=busiest,
    )


def read_attained(prometheus: Prometheus, labels: str, names: Names, start_hour: int, rate: float) -> Attained:
    """What the servers measured in the `HOURS` hours from `start_hour` on."""
    span, end = HOURS * HOUR_S, (start_hour + HOURS) * HOUR_S
    counted = _buckets(names, ("ttft", "tpot")) | _present(names, ("preemptions",))
    gained = _by_what(prometheus.instant(promql.gained(counted, labels, span_s=span), at_s=end))
    gauges = _present(names, ("kv_usage", "waiting"))
    highest = _by_what(prometheus.instant(promql.highest(gauges, labels, span_s=span), at_s=end)) if gauges else {}
    return Attained(
        start_hour=start_hour,
        hours=HOURS,
        rate=rate,
        ttft=_histogram(gained, "ttft"),
        tpot=_histogram(gained, "tpot"),
        kv_usage=_sound(highest.get("kv_usage"), most=1.0),
        waiting=_sound(highest.get("waiting"), most=1e9),
        preemptions=_sound(gained.get("preemptions"), most=1e12) or 0.0,
    )


def busiest_window(rates: tuple[float | None, ...], at_hour: int) -> int | None:
    """First hour of the busiest whole window of the day among the last 24 hours; None where none is half known."""
    first = at_hour - len(rates)
    best: tuple[float, int] | None = None
    for start in range((at_hour - DAY_HOURS) // HOURS * HOURS, at_hour - HOURS + 1, HOURS):
        if start < at_hour - DAY_HOURS or start < first:
            continue
        known = [rate for rate in rates[start - first : start - first + HOURS] if rate is not None]
        if 2 * len(known) >= HOURS:
            mean = sum(known) / len(known)
            best = max(best or (mean, start), (mean, start))
    return None if best is None or best[0] <= 0 else best[1]


def day_of(hour: int) -> str:
    """An hour since 1970 as people read it."""
    return datetime.fromtimestamp(hour * HOUR_S, tz=UTC).strftime("%Y-%m-%d %H:%M UTC")


def _mean(rates: tuple[float | None, ...], start: int, at_hour: int) -> float:
    first = at_hour - len(rates)
    known = [rate for rate in rates[start - first : start - first + HOURS] if rate is not None]
    return sum(known) / len(known)


def _hourly(
    prometheus: Prometheus, labels: str, telemetry: Telemetry, names: Names, hours: tuple[int, int]
) -> tuple[float | None, ...]:
    """Requests per second of each hour: those that got a first token, and those that were turned away at the door."""
    total = np.full(hours[1] - hours[0], np.nan)
    for what, suffix in (("ttft", "_count"), ("refused", "")):
        if what not in names:
            continue
        query = promql.hourly_rate(names[what] + suffix, labels, window_s=telemetry.window_s)
        for series in prometheus.range(query, start_s=(hours[0] + 1) * HOUR_S, end_s=hours[1] * HOUR_S, step_s=HOUR_S):
            index = np.round(series.times / HOUR_S).astype(np.int64) - 1 - hours[0]
            sound = (index >= 0) & (index < len(total)) & np.isfinite(series.values)
            sound &= (series.values >= 0) & (series.values <= MOST_RATE)
            at, values = index[sound], series.values[sound]
            total[at] = np.where(np.isnan(total[at]), 0.0, total[at]) + values
    return tuple(None if math.isnan(rate) else float(f"{rate:.6g}") for rate in total)


def _lengths(
    prometheus: Prometheus, labels: str, names: Names, at_hour: int, hours: int
) -> dict[str, dict[str, float]]:
    """Lengths and prefix hits of the last day, or of the whole history where that day says too little."""
    asked = _buckets(names, ("prompt", "output")) | _present(names, ("prefix_queries", "prefix_hits"))
    found: dict[str, dict[str, float]] = {}
    for span in dict.fromkeys((min(hours, DAY_HOURS), hours)):
        query = promql.gained(asked, labels, span_s=span * HOUR_S)
        found = _by_what(prometheus.instant(query, at_s=at_hour * HOUR_S))
        if found.get("prompt", {}).get("+Inf", 0.0) >= ENOUGH:
            break
    return found


def _dispersion(prometheus: Prometheus, labels: str, names: Names, start_hour: int) -> float | None:
    """Burstiness in the busiest window, from the counters' own samples."""
    if "ttft" not in names:
        return None
    query = promql.samples(f"{names['ttft']}_count", labels, span_s=HOURS * HOUR_S)
    series = prometheus.instant(query, at_s=(start_hour + HOURS) * HOUR_S)
    return dispersion([(each.times, each.values) for each in series if len(each.times) >= 2])


def _buckets(names: Names, wanted: Iterable[str]) -> dict[str, str]:
    """Buckets and sum of histograms, by what they are called here."""
    found: dict[str, str] = {}
    for what in wanted:
        if what in names:
            found |= {what: f"{names[what]}_bucket", f"{what}_sum": f"{names[what]}_sum"}
    return found


def _present(names: Names, wanted: Iterable[str]) -> dict[str, str]:
    return {what: names[what] for what in wanted if what in names}


def _by_what(found: Iterable[Series]) -> dict[str, dict[str, float]]:
    """{what: {le, or the empty text: value}} of an answer whose series are marked."""
    sorted_out: dict[str, dict[str, float]] = defaultdict(dict)
    for series in found:
        if len(series.values):
            sorted_out[series.labels.get("what", "")][series.labels.get("le", "")] = float(series.values[-1])
    return dict(sorted_out)


def _histogram(gained: Mapping[str, Mapping[str, float]], what: str) -> Histogram | None:
    buckets = {}
    for edge, count in gained.get(what, {}).items():
        try:
            buckets[float(edge)] = count
        except ValueError:
            return None
    return Histogram.of(buckets, gained.get(f"{what}_sum", {}).get(""))


def _share(part: Mapping[str, float] | None, whole: Mapping[str, float] | None) -> float | None:
    hits, queries = (math.nan if each is None else each.get("", math.nan) for each in (part, whole))
    sound = math.isfinite(hits) and math.isfinite(queries) and queries > 0 and hits >= 0
    return min(hits / queries, 1.0) if sound else None


def _sound(found: Mapping[str, float] | None, *, most: float) -> float | None:
    value = math.nan if found is None else found.get("", math.nan)
    return value if math.isfinite(value) and 0 <= value <= most else None
