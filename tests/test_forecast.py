"""`planner.forecast`: repeats are found, intervals hold what comes, and gaps are unknown rather than zero."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.forecast import DAY, WINDOWS, expected, forecast
from planner.workload import Lengths, Observed, Workload, realize
from planner.workload.histogram import Histogram
from planner.workload.observed import peak
from planner.workload.requests import demand


def history(days: int, *, seed: int = 0, noise: float = 0.15, weekend: float = 0.5, level: float = 5.0):
    """Rates of `days` days and the day after: a day's shape, quieter weekends, noise by day and by hour."""
    dice = np.random.default_rng(seed)
    hours = np.arange((days + 1) * DAY)
    shape = 1 + 0.8 * np.sin((hours % DAY - 8) / DAY * 2 * np.pi)
    week = np.where((hours // DAY + 3) % 7 >= 5, weekend, 1.0)
    daily = np.repeat(dice.normal(0, noise, days + 1), DAY)
    rates = level * shape * week * np.exp(daily + dice.normal(0, noise / 2, len(hours)))
    return rates[: days * DAY], rates[days * DAY :]


def seen(rates, start_hour: int = 0) -> Observed:
    """An observation of these rates."""
    return Observed(start_hour=start_hour, rates=tuple(None if math.isnan(r) else float(r) for r in rates))


def busiest(day) -> np.ndarray:
    """Busiest hour of each window of a day that starts at midnight."""
    return np.reshape(day, (WINDOWS, -1)).max(axis=1)


def test_a_week_that_repeats_is_forecast() -> None:
    """Four equal weeks without noise: every window within 8 %, weekend and working day apart."""
    for days in (28, 33):  # the day after is a Thursday, and a Tuesday
        rates, ahead = history(days, noise=0.0)
        found = forecast(seen(rates), days * DAY)
        assert np.abs(np.log([w.rate for w in found.windows] / busiest(ahead))).max() < 0.08


def test_a_weekend_is_not_a_working_day() -> None:
    """From four weeks the forecast of a Saturday is near half of that of the Friday before it."""
    rates, _ = history(29, noise=0.05)
    friday = forecast(seen(rates[: 29 * DAY]), 29 * DAY)  # day 29 is a Friday
    rates, _ = history(30, noise=0.05)
    saturday = forecast(seen(rates), 30 * DAY)
    assert 0.4 < saturday.peak.rate / friday.peak.rate < 0.65


@pytest.mark.parametrize("days", [2, 7, 14, 28])
def test_the_interval_holds_nine_of_ten(days: int) -> None:
    """Over 60 services the 90 % interval holds 85 % to 100 % of the windows, and the peak's upper end 85 % of peaks."""
    inside, held = [], []
    for seed in range(60):
        rates, ahead = history(days + seed % 7, seed=seed)
        found = forecast(seen(rates), (days + seed % 7) * DAY)
        came = busiest(ahead)
        inside += [w.low <= actual <= w.high for w, actual in zip(found.windows, came, strict=True)]
        held.append(came.max() <= found.peak.high)
    assert 0.85 <= np.mean(inside) <= 1.0
    assert np.mean(held) >= 0.85


def test_less_noise_makes_a_narrower_interval() -> None:
    """The spread comes from the backtest: a calm service is known better than a wild one."""
    calm, wild = (forecast(seen(history(28, noise=n)[0]), 28 * DAY).spread for n in (0.02, 0.4))
    assert calm < 0.5 * wild


def test_gaps_are_unknown_not_zero() -> None:
    """A day without telemetry changes the forecast little; taken for zero it would pull it down."""
    rates, _ = history(21, noise=0.05)
    full = forecast(seen(rates), 21 * DAY)
    holed = rates.copy()
    holed[15 * DAY : 16 * DAY] = np.nan
    assert forecast(seen(holed), 21 * DAY).peak.rate == pytest.approx(full.peak.rate, rel=0.1)


def test_windows_are_those_of_the_utc_day_whenever_the_night_runs() -> None:
    """Run at 02:00 or at 14:00, the first window is 00:00 to 04:00."""
    rates, _ = history(21, noise=0.0)
    for hour in (2, 14):
        found = forecast(seen(rates[: 20 * DAY + hour]), 20 * DAY + hour)
        assert [w.start_hour for w in found.windows] == [0.0, 4.0, 8.0, 12.0, 16.0, 20.0]
        assert found.peak.hours == "12:00 to 16:00"


def test_hours_that_have_not_come_are_not_looked_at() -> None:
    """A history that reaches beyond the hour of the forecast gives the same forecast as one that ends there."""
    rates, ahead = history(14)
    whole = forecast(seen(np.concatenate([rates, ahead * 100])), 14 * DAY)
    assert whole == forecast(seen(rates), 14 * DAY)


@given(
    st.lists(st.one_of(st.none(), st.floats(0, 1e6)), min_size=1, max_size=24 * 9).filter(
        lambda rates: any(rate is not None for rate in rates)
    ),
    st.integers(0, 500_000),
)
def test_any_history_gives_a_sane_forecast(rates: list[float | None], start: int) -> None:
    """Whatever was observed: finite rates above 0, low <= middle <= high, and the same again from the same."""
    observed = Observed(start_hour=start, rates=tuple(rates))
    found = forecast(observed, start + len(rates))
    for window in found.windows:
        assert 0 < window.low <= window.rate <= window.high < math.inf
    assert found == forecast(observed, start + len(rates))


def test_the_plan_is_sized_for_the_upper_end_of_the_peak() -> None:
    """The workload's busiest window is the forecast's upper end, and that is what a plan holds."""
    rates, _ = history(21)
    lengths = Histogram(edges=(100.0, 200.0, 500.0), counts=(50.0, 80.0, 100.0), total=100.0, sum=15000.0)
    observed = seen(rates).model_copy(update={"prompt": lengths, "output": lengths, "dispersion": 4.0})
    found = forecast(observed, 21 * DAY)
    workload = expected(observed, found, Workload(rate="1 /s", prompt=Lengths(mean=9.0), output=Lengths(mean=9.0)))
    assert workload is not None
    assert peak(workload) == pytest.approx(found.peak.high, rel=0.01)
    assert demand(realize(workload)) == pytest.approx(found.peak.high, rel=0.01)
    assert workload.arrival_cv == 2.0
    assert workload.prompt is not None
    assert workload.prompt.quantiles == {0.5: 100.0, 0.8: 200.0}


def test_lengths_that_nobody_knows_make_no_workload() -> None:
    """Rates alone are no load: without histograms and without declared lengths there is none."""
    observed = seen(history(7)[0])
    bare = Workload.model_construct(rate=None, prompt=None, output=None)
    assert expected(observed, forecast(observed, 7 * DAY), bare) is None
