"""`planner.workload.counters`: resets and gaps are no traffic, and the index of dispersion is that of the arrivals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.observe import bursty
from planner.workload.counters import counts_on, dispersion, increases

HOUR = 3600.0


def scraped(counts, every: float = 15.0, start: float = 0.0):
    """(times, values) of a counter that gained these counts between scrapes."""
    return start + every * np.arange(len(counts) + 1), np.concatenate([[0.0], np.cumsum(counts)])


def test_a_fall_is_a_new_start() -> None:
    """5, 9, 2, 6: gains of 4, then 2 since the restart, then 4."""
    assert increases(np.array([5.0, 9.0, 2.0, 6.0])).tolist() == [4.0, 2.0, 4.0]


@given(st.lists(st.integers(0, 100), min_size=2, max_size=60), st.integers(1, 59))
def test_a_restart_loses_nothing_that_was_scraped(counts: list[int], at: int) -> None:
    """A process that begins anew at a scrape shows the same gains as one that does not."""
    _, values = scraped(np.array(counts, dtype=float))
    at = min(at, len(counts) - 1)
    anew = values.copy()
    anew[at + 1 :] -= values[at]
    fell = anew[at + 1] < values[at]
    gained = increases(anew)
    assert not fell or gained.tolist() == np.diff(values).tolist()


def test_a_grid_reads_between_scrapes() -> None:
    """One request a second, scraped every 15 s from an odd instant: 60 in each minute that is covered."""
    times, values = scraped(np.full(40, 15.0), start=7.0)
    found = counts_on(np.arange(0.0, 660.0, 60.0), times, values)
    assert np.isnan(found[0])
    assert found[1:9] == pytest.approx(np.full(8, 60.0))


def test_a_gap_is_unknown() -> None:
    """Ten minutes without scrapes are NaN: what came meanwhile cannot be told apart by minute."""
    times, values = scraped(np.full(120, 15.0))
    keep = (times < 600) | (times > 1200)
    found = counts_on(np.arange(0.0, 1801.0, 60.0), times[keep], values[keep])
    assert np.isnan(found[11:19]).all()
    assert np.isfinite(found[1:9]).all()


@pytest.mark.parametrize("true", [1.0, 4.0, 16.0])
def test_dispersion_is_that_of_the_arrivals(true: float) -> None:
    """Counts of known dispersion over a day and a half, scraped every minute: found within 15 %."""
    counts = bursty(np.full(36 * 60, 240.0), true, np.random.default_rng(2))
    assert dispersion([scraped(counts, 60.0)]) == pytest.approx(true, rel=0.15)


def test_the_shape_of_the_day_is_no_burst() -> None:
    """A Poisson stream whose rate swings threefold over the day is still Poisson within hours."""
    at = np.arange(24 * 60) * 60.0
    rate = 20 * (1 + 0.5 * np.sin(at / (24 * HOUR) * 2 * np.pi))
    counts = np.random.default_rng(3).poisson(rate * 60).astype(float)
    assert dispersion([scraped(counts, 60.0)]) == pytest.approx(1.0, rel=0.15)


def test_replicas_are_counted_together() -> None:
    """Two independent Poisson streams scraped at different instants are one Poisson stream."""
    dice = np.random.default_rng(4)
    both = [scraped(dice.poisson(150, 4 * 240).astype(float), 15.0, start) for start in (0.0, 7.0)]
    assert dispersion(both) == pytest.approx(1.0, rel=0.25)


def test_a_replica_that_leaves_is_no_burst() -> None:
    """Half of the load moves to another series within an hour: what each window gained together stays Poisson."""
    dice = np.random.default_rng(5)
    first = scraped(dice.poisson(150, 720).astype(float), 15.0)
    second = scraped(dice.poisson(150, 200).astype(float), 15.0)
    found = dispersion([first, second])
    assert found is not None
    assert found < 1.6


def test_too_little_says_nothing() -> None:
    """No series, one sample, or less than ten windows: there is no number."""
    assert dispersion([]) is None
    assert dispersion([(np.array([1.0]), np.array([1.0]))]) is None
    assert dispersion([scraped(np.full(20, 15.0))]) is None


@pytest.mark.parametrize("bad", [np.nan, np.inf, -5.0])
def test_impossible_samples_are_left_out(bad: float) -> None:
    """NaN, infinity and negative counts are no samples: the rest is read around them."""
    times, values = scraped(np.random.default_rng(6).poisson(150, 960).astype(float))
    broken = values.copy()
    broken[[100, 500]] = bad
    assert dispersion([(times, broken)]) == pytest.approx(dispersion([(times, values)]), rel=0.2)
