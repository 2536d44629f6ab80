"""`forecast`: the next day's load by window of the day, with an interval from its own backtest.

Rates by hour are taken in the logarithm, y = ln(rate + one request an hour). With weights that halve every two weeks,

    ŷ(d, h) = m_h + a·s_d + b·r_dh + φ·e

m_h is the mean of an hour of the day, s_d how far a weekday as a whole lies from it, r_dh what is left at one hour of
one weekday, and e how far the last day lay from all of these. s and r are shrunk by a = n / (n + 1) and b = n / (n + 2)
for n weeks seen: one week tells a Sunday from a Monday and little of a Sunday at nine. A window's load is that of its
busiest hour.

The backtest makes the same forecast for each past day from what was known before it. Its errors ln(actual / forecast)
have a mean (taken off) and a spread, which counts beside a prior spread of 0.3 worth three days; the 90 % interval is
1.645 of it on either side. A forecast without a past day to test on rests on the prior alone, twice as wide. While the
history lacks a day of this weekday, what weekdays commonly differ by (0.4) is added.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.workload.declared import Lengths, Workload
from planner.workload.observed import LEAST_RATE, Observed, cv_of, hit_share, lengths, significant

Floats = NDArray[np.float64]
DAY = 24
WEEK = 7
#: Windows of the day, four hours each.
WINDOWS = 6
HOURS = DAY // WINDOWS
#: 1970-01-01 was a Thursday: weekday 3 counted from Monday.
_FIRST_WEEKDAY = 3
_HALF_LIFE_DAYS = 14.0
_WEEKDAY_PRIOR, _HOUR_PRIOR, _RECENT = 1.0, 2.0, 0.5
#: Past days that are tested, spread and weight of the prior.
_TESTED, _PRIOR_SPREAD, _PRIOR_DAYS = 28, 0.3, 3.0
#: Spread between weekdays, where the history does not tell it.
_WEEKDAY_SPREAD = 0.4
#: Two-sided 90 %.
_Z = 1.645


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowLoad:
    """The busiest hour of one window of the day, requests per second."""

    start_hour: float
    """UTC."""
    end_hour: float
    rate: float
    low: float
    """Of a 90 % interval."""
    high: float

    @property
    def hours(self) -> str:
        """`08:00 to 12:00`."""
        return f"{self.start_hour:02.0f}:00 to {self.end_hour:02.0f}:00"


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """The next day."""

    mean: float
    """Requests per second over the day."""
    windows: tuple[WindowLoad, ...]
    """From 00:00 UTC on."""
    tested_days: int
    """Past days whose forecasts were compared with what came."""
    spread: float
    """Standard deviation of ln(actual / forecast)."""

    @property
    def peak(self) -> WindowLoad:
        """The window with the highest upper end: what a plan must hold."""
        return max(self.windows, key=lambda window: (window.high, -window.start_hour))

    @property
    def diurnal(self) -> tuple[float, ...]:
        """Upper ends relative to the mean, as `Workload.diurnal` takes them."""
        return tuple(significant(window.high / self.mean) for window in self.windows)


def forecast(observed: Observed, at_hour: int) -> Forecast:
    """Forecast the 24 hours from `at_hour` (hours since 1970) on. Needs at least one known hour.

    Hours of the history at or after `at_hour` are not looked at.
    """
    levels = _levels(observed)[: max(0, at_hour - observed.start_hour)]
    first = observed.start_hour
    hourly = _day_ahead(levels, first, first + len(levels), at_hour)
    errors = _backtest(levels, first)
    tested = len(errors)
    flat = np.concatenate(errors) if tested else np.zeros(0)
    flat = flat[np.isfinite(flat)]
    # windows of one day err together: a day counts once
    weight = tested / (tested + _PRIOR_DAYS)
    bias = weight * float(flat.mean()) if len(flat) else 0.0
    own = float(((flat - flat.mean()) ** 2).mean()) if len(flat) else 4.0 * _PRIOR_SPREAD**2
    prior = _PRIOR_SPREAD**2 if tested else own
    unseen = 0.0 if len(levels) >= WEEK * DAY else _WEEKDAY_SPREAD**2
    spread = math.sqrt(weight * own + (1 - weight) * prior + unseen)
    windows = tuple(_window(index, value + bias, spread) for index, value in enumerate(_peaks(hourly, at_hour)))
    mean = max(float(np.mean(_rate(hourly))), LEAST_RATE)
    return Forecast(mean=significant(mean), windows=windows, tested_days=tested, spread=spread)


def expected(observed: Observed, ahead: Forecast, known: Workload) -> Workload | None:
    """The workload of the next day: forecast rates, observed lengths; `known` fills in lengths that were not observed.

    None where neither says how long requests are. The upper ends of the windows stand as `diurnal`, so that its
    highest is the load that the plan must hold.
    """
    found = lengths(observed)
    prompt, output = _either(found[0], known.prompt), _either(found[1], known.output)
    if prompt is None or output is None:
        return None
    return known.model_copy(
        update={
            "rate": ahead.mean,
            "prompt": prompt,
            "output": output,
            "arrival_cv": cv_of(observed.dispersion),
            "prefix_hit_share": hit_share(observed),
            "diurnal": ahead.diurnal,
        }
    )


def _either(observed: Lengths | None, known: Lengths | None) -> Lengths | None:
    return known if observed is None else observed


def _window(index: int, level: float, spread: float) -> WindowLoad:
    low, rate, high = (max(float(_rate(level + z * spread)), LEAST_RATE) for z in (-_Z, 0.0, _Z))
    return WindowLoad(
        start_hour=float(index * HOURS), end_hour=float((index + 1) * HOURS),
        rate=significant(rate), low=significant(low), high=significant(high),
    )  # fmt: skip


def _levels(observed: Observed) -> Floats:
    """Logarithms of the rates, NaN where unknown or impossible."""
    rates = np.array([math.nan if rate is None else rate for rate in observed.rates], dtype=np.float64)
    rates[~np.isfinite(rates) | (rates < 0)] = math.nan
    return np.log(rates + LEAST_RATE)


def _rate(level: Floats | float) -> Floats:
    return np.asarray(np.maximum(np.exp(level) - LEAST_RATE, 0.0))


def _day_ahead(levels: Floats, first: int, now: int, target: int) -> Floats:
    """Levels of the 24 hours from `target` on, from the hours before `now`; NaN where nothing is known at all."""
    levels = levels[: now - first]
    hours = first + np.arange(len(levels))
    known = np.isfinite(levels)
    if not known.any():
        return np.full(DAY, np.nan)
    weights = np.where(known, 0.5 ** ((now - hours) / (DAY * _HALF_LIFE_DAYS)), 0.0)
    values = np.where(known, levels, 0.0)
    clock, weekday = hours % DAY, (hours // DAY + _FIRST_WEEKDAY) % WEEK
    overall = float((weights * values).sum() / weights.sum())
    daily = _mean_by(clock, values, weights, size=DAY, otherwise=overall)
    rest = values - daily[clock]
    shift = _shrunk_by(weekday, rest, weights, size=WEEK, prior=_WEEKDAY_PRIOR * DAY)
    rest = rest - shift[weekday]
    cell = weekday * DAY + clock
    extra = _shrunk_by(cell, rest, weights, size=WEEK * DAY, prior=_HOUR_PRIOR)
    rest = rest - extra[cell]
    last = known & (hours >= now - DAY)
    recent = _RECENT * float(rest[last].mean()) * last.sum() / DAY if last.any() else 0.0
    ahead = target + np.arange(DAY)
    then = (ahead // DAY + _FIRST_WEEKDAY) % WEEK
    found: Floats = daily[ahead % DAY] + shift[then] + extra[then * DAY + ahead % DAY] + recent
    return found


def _mean_by(group: NDArray[np.int64], values: Floats, weights: Floats, *, size: int, otherwise: float) -> Floats:
    total = np.bincount(group, weights=weights, minlength=size)
    summed = np.bincount(group, weights=weights * values, minlength=size)
    return np.where(total > 0, summed / np.maximum(total, 1e-300), otherwise)


def _shrunk_by(group: NDArray[np.int64], values: Floats, weights: Floats, *, size: int, prior: float) -> Floats:
    """Weighted means by group, drawn to 0 by a prior worth so many observations."""
    total = np.bincount(group, weights=weights, minlength=size)
    return np.bincount(group, weights=weights * values, minlength=size) / (total + prior)


def _peaks(hourly: Floats, start: int) -> Floats:
    """Level of the busiest hour of each window of the day; NaN where no hour of it is known."""
    window = (start + np.arange(DAY)) % DAY // HOURS
    return np.array([_highest(hourly[window == index]) for index in range(WINDOWS)])


def _highest(levels: Floats) -> float:
    known = levels[np.isfinite(levels)]
    return float(known.max()) if len(known) else math.nan


def _backtest(levels: Floats, first: int) -> list[Floats]:
    """ln(actual / forecast) by window, for each of the last days that had a day before it and was seen in full."""
    errors = []
    end = first + len(levels)
    for now in range(end - DAY, max(first + DAY, end - DAY * _TESTED) - 1, -DAY):
        actual = levels[now - first : now - first + DAY]
        if np.isfinite(actual).sum() < DAY // 2 or not np.isfinite(levels[: now - first]).any():
            continue
        made = _peaks(_day_ahead(levels, first, now, now), now)
        came = _peaks(actual, now)
        errors.append(came - made)
    return errors
