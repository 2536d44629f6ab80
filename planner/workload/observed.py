"""`Observed`: what one service served, as its metrics tell it; `bounded` keeps absurd telemetry out of a plan.

An hour without telemetry is unknown, never zero. A forecast that is many times what the last good one was is cut to a
multiple of it and said: a real change of that size is followed in a few nights, a broken exporter is not.
"""

from __future__ import annotations

import math

from pydantic import Field

from catalog.cluster import Fact
from planner.workload.declared import Lengths, Workload
from planner.workload.histogram import Histogram, lengths_of

#: A load may grow or fall by this factor from one forecast to the next.
MOST_CHANGE = 4.0
#: Hours of known rates that a forecast needs.
LEAST_HOURS = 6
#: A history whose last known hour is older than this is yesterday's news.
STALE_HOURS = 24
#: Arrivals burstier than this are not declared, and steadier than Poisson is not believed from counters.
MOST_CV = 10.0
#: What is served at the very least, requests per second: one an hour.
LEAST_RATE = 1.0 / 3600.0
#: A prefix cache that holds more is not believed.
MOST_HITS = 0.99


class Attained(Fact):
    """Latencies of the busiest hours of the last day, as the servers measured them."""

    start_hour: int
    """Hours since 1970-01-01 00:00 UTC."""
    hours: int = Field(ge=1)
    rate: float = Field(ge=0.0)
    """Mean requests per second in these hours."""
    ttft: Histogram | None = None
    """Seconds."""
    tpot: Histogram | None = None
    kv_usage: float | None = None
    """Highest share of the KV blocks in use on any server."""
    waiting: float | None = None
    """Most requests waiting on any server."""
    preemptions: float = 0.0


class Observed(Fact):
    """One service's telemetry up to some hour."""

    start_hour: int
    """Of the first rate, hours since 1970-01-01 00:00 UTC."""
    rates: tuple[float | None, ...]
    """Mean requests per second by hour; None where it is unknown."""
    prompt: Histogram | None = None
    """Tokens."""
    output: Histogram | None = None
    dispersion: float | None = None
    """Var / mean of the arrivals per minute, within hours."""
    prefix_hit_share: float | None = None
    busiest: Attained | None = None

    @property
    def known_hours(self) -> int:
        """Hours with a rate."""
        return sum(rate is not None for rate in self.rates)

    @property
    def newest_hour(self) -> int | None:
        """The last hour with a rate."""
        known = [index for index, rate in enumerate(self.rates) if rate is not None]
        return self.start_hour + known[-1] if known else None


def too_little(observed: Observed, at_hour: int) -> str | None:
    """Why an observation carries no forecast; None where it does."""
    newest = observed.newest_hour
    if newest is None:
        return "no series of it were found"
    if at_hour - 1 - newest > STALE_HOURS:
        return f"its telemetry ended {at_hour - 1 - newest} hours ago"
    if observed.known_hours < LEAST_HOURS:
        return f"only {observed.known_hours} hours of it are known, {LEAST_HOURS} are needed"
    return None


def cv_of(dispersion: float | None) -> float:
    """Coefficient of variation between arrivals of a renewal stream whose counts are dispersed so: its root."""
    if dispersion is None or not math.isfinite(dispersion):
        return 1.0
    return round(min(max(math.sqrt(max(dispersion, 0.0)), 1.0), MOST_CV), 2)


def lengths(observed: Observed) -> tuple[Lengths | None, Lengths | None]:
    """Prompt and output lengths, None where the telemetry does not say."""
    return (
        None if observed.prompt is None else lengths_of(observed.prompt),
        None if observed.output is None else lengths_of(observed.output),
    )


def hit_share(observed: Observed) -> float:
    """Share of prompt tokens that the prefix cache held, 0 where it is not known."""
    share = observed.prefix_hit_share
    return 0.0 if share is None or not math.isfinite(share) else round(min(max(share, 0.0), MOST_HITS), 3)


def peak(workload: Workload) -> float:
    """Requests per second of a workload's busiest window."""
    return (workload.rate or 0.0) * max(workload.diurnal or (1.0,))


def bounded(new: Workload, last: Workload | None) -> tuple[Workload, tuple[str, ...]]:
    """Hold a forecast to `MOST_CHANGE` times the last good one, or a share of it; say what was cut and from what."""
    if last is None or last.rate is None or new.rate is None:
        return new, ()
    notes = []
    limit = min(max(peak(new), peak(last) / MOST_CHANGE), peak(last) * MOST_CHANGE)
    if not math.isclose(limit, peak(new)):
        notes.append(
            f"ABSURD TELEMETRY? a peak of {peak(new):.4g} requests/s against {peak(last):.4g} before; "
            f"planned for {limit:.4g}, {MOST_CHANGE:g} times the change of a night at most"
        )
        new = new.model_copy(update={"rate": significant(new.rate * limit / peak(new))})
    for name in ("prompt", "output"):
        before, after = getattr(last, name), getattr(new, name)
        sizes = (typical(before), typical(after))
        if None not in sizes and not 1 / MOST_CHANGE <= sizes[1] / sizes[0] <= MOST_CHANGE:  # type: ignore[operator]
            notes.append(
                f"ABSURD TELEMETRY? a typical {name} of {sizes[1]:.4g} tokens against {sizes[0]:.4g} before; kept"
            )
            new = new.model_copy(update={name: before})
    return new, tuple(notes)


def typical(lengths: Lengths | None) -> float | None:
    """A length to compare distributions by: their mean, or the quantile nearest to the median."""
    if lengths is None:
        return None
    if lengths.quantiles is None:
        return lengths.mean
    return min(lengths.quantiles.items(), key=lambda item: abs(item[0] - 0.5))[1]


def significant(number: float, digits: int = 3) -> float:
    """A number as a plan states it: so many digits, so that noise makes no new plan."""
    return float(f"{number:.{digits - 1}e}")
