"""Arrivals and lengths: laws, common random numbers, and rows that are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_engines import served

from catalog.errors import BadInput
from planner.simulate.arrivals import Burst, arrival_times, burst_arrivals, check_lengths, gaps, lengths, strata


@given(st.integers(1, 400), st.integers(0, 50))
def test_strata_fill_every_part_once(n: int, seed: int) -> None:
    """Each n-th of the unit interval holds one number."""
    drawn = strata(n, np.random.default_rng(seed))
    assert sorted((drawn * n).astype(int)) == list(range(n))


@pytest.mark.parametrize("cv", [0.0, 0.5, 1.0, 2.0])
def test_gaps_have_their_moments(cv: float) -> None:
    """Gamma gaps have mean 1 exactly and their coefficient of variation closely."""
    drawn = gaps(20_000, cv, 3)
    assert drawn.mean() == pytest.approx(1.0, rel=1e-12)
    assert drawn.std() == pytest.approx(cv, abs=0.06 * cv + 1e-12)


def test_two_rates_see_the_same_traffic() -> None:
    """Twice the rate halves every arrival time: common random numbers."""
    requests = served(prompt=10, output=10, cv=1.5)
    slow, fast = (arrival_times(requests, 500, rate=rate, seed=1) for rate in (2.0, 4.0))
    assert slow == pytest.approx(2 * fast, rel=1e-12)


def test_a_burst_keeps_its_mean_rate() -> None:
    """An MMPP has its mean rate over the run, and its share of arrivals in the busy phases."""
    burst = Burst(ratio=2.5, high_s=20.0, low_s=60.0)
    times = burst_arrivals(40_000, 10.0, burst, 0)
    assert len(times) / times[-1] == pytest.approx(10.0, rel=1e-9)
    counts = np.histogram(times, bins=np.arange(0, times[-1], 5.0))[0] / 5.0
    assert counts.var() > 3 * counts.mean() / 5.0  # far burstier than Poisson
    assert burst.low_share == pytest.approx(0.5)


def test_a_burst_that_exceeds_the_mean_is_refused() -> None:
    """High phases alone must not carry more than all arrivals."""
    with pytest.raises(BadInput, match="burst"):
        Burst(ratio=5.0, high_s=20.0, low_s=60.0)


def test_measured_arrivals_are_replayed() -> None:
    """Without a rate timestamps stay as they are; with one they are sped up to it, gaps in proportion."""
    times = np.array([5.0, 6.0, 9.0, 9.0, 14.0])
    requests = served(prompt=10, output=2, arrival_s=times)
    assert arrival_times(requests, 5, rate=None, seed=0).tolist() == [0.0, 1.0, 4.0, 4.0, 9.0]
    faster = arrival_times(requests, 5, rate=4 / 4.5, seed=0)
    assert faster.tolist() == pytest.approx([0.0, 0.5, 2.0, 2.0, 4.5])


@pytest.mark.parametrize(
    ("times", "said"),
    [
        ([], "no arrivals"),
        ([0.0, np.nan], "row 1"),
        ([0.0, 2.0, 1.0], "row 2"),
        ([-1.0, 0.0], "row 0"),
        ([0.0, np.inf], "row 1"),
    ],
)
def test_broken_arrivals_are_refused_by_row(times: list[float], said: str) -> None:
    """Absent, NaN, infinite, negative or unsorted timestamps name their row."""
    requests = served(prompt=10, output=2, arrival_s=np.array(times))
    with pytest.raises(BadInput, match=said):
        arrival_times(requests, 5, rate=None, seed=0)


@pytest.mark.parametrize(("rate", "n"), [(0.0, 5), (-1.0, 5), (np.nan, 5), (np.inf, 5), (1.0, 0)])
def test_an_impossible_rate_is_refused(rate: float, n: int) -> None:
    """A rate or a number of requests that is not above 0 is no load."""
    with pytest.raises(BadInput, match="a second"):
        arrival_times(served(prompt=10, output=2), n, rate=rate, seed=0)


@pytest.mark.parametrize(
    ("prompt", "output", "said"),
    [([5, 0], [1, 1], "prompt.*0"), ([5, -3], [1, 1], "row 1"), ([5, 5], [1, -1], "output"), ([], [], "0 prompts")],
)
def test_broken_lengths_are_refused_by_row(prompt: list[int], output: list[int], said: str) -> None:
    """No request, an empty prompt or a negative length names its row."""
    requests = served(prompt=5, output=5)
    broken = type(requests)(
        rate=1.0, prompt=np.array(prompt, np.int64), output=np.array(output, np.int64),
        cached=np.zeros(len(prompt), np.int64), arrival_cv=1.0,
    )  # fmt: skip
    with pytest.raises(BadInput, match=said):
        check_lengths(broken)


def test_a_sample_is_drawn_as_a_whole() -> None:
    """As many requests as the sample has are the sample itself, shuffled; prompt and output stay together."""
    requests = served(prompt=np.arange(1, 101), output=np.arange(101, 201))
    prompt, output, _ = lengths(requests, 100, seed=2)
    assert sorted(prompt) == list(range(1, 101))
    assert (output - prompt == 100).all()
    assert prompt.tolist() != sorted(prompt)


def test_a_trace_keeps_its_order() -> None:
    """Rows of a trace are served as they came."""
    requests = served(prompt=np.arange(1, 11), output=3, arrival_s=np.arange(10.0))
    assert lengths(requests, 10, seed=0)[0].tolist() == list(range(1, 11))
