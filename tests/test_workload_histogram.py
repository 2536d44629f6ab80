"""`planner.workload.histogram`: what buckets say exactly is exact, and what they leave open is bounded."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from benchmarks.observe import TOKENS
from planner.workload.histogram import Histogram, lengths_of
from planner.workload.requests import lengths_at

HALVES = (np.arange(4096) + 0.5) / 4096


def bucketed(values, edges=TOKENS) -> Histogram:
    """The histogram that Prometheus would show of these values."""
    counts = {edge: float((np.asarray(values) <= edge).sum()) for edge in edges}
    found = Histogram.of({**counts, math.inf: float(len(values))}, float(np.sum(values)))
    assert found is not None
    return found


def test_shares_and_quantiles_by_hand() -> None:
    """10 values up to 1 s, 30 up to 2 s, 40 in all: the median lies in the second bucket, 75 % are within 2 s."""
    histogram = Histogram(edges=(1.0, 2.0), counts=(10.0, 30.0), total=40.0, sum=60.0)
    assert histogram.mean == 1.5
    assert histogram.share_within(2.0) == (0.75, 0.75, 0.75)
    assert histogram.share_within(1.5) == (0.25, 0.5, 0.75)
    assert histogram.share_within(9.0) == (0.75, 0.875, 1.0)
    low, middle, high = histogram.quantile(0.5)
    assert (low, high) == (1.0, 2.0)
    assert middle == pytest.approx(2**0.5)
    assert histogram.quantile(0.9) == (2.0, 2.0, math.inf)


@given(st.lists(st.floats(0.5, 5e4), min_size=1, max_size=200), st.floats(0.01, 0.99), st.floats(1, 4e4))
def test_bounds_hold_the_truth(values: list[float], share: float, limit: float) -> None:
    """The true quantile and the true share lie within the bounds that the buckets give."""
    histogram = bucketed(values)
    low, middle, high = histogram.quantile(share)
    truth = float(np.quantile(values, share, method="inverted_cdf"))
    assert low <= truth <= high
    assert low <= middle <= high
    below, between, above = histogram.share_within(limit)
    assert below - 1e-12 <= np.mean(np.asarray(values) <= limit) <= above + 1e-12
    assert below <= between <= above


@pytest.mark.parametrize(("mean", "cv"), [(1155.0, 0.96), (211.0, 0.77), (40.0, 0.3), (6000.0, 1.5)])
def test_lengths_come_back_from_their_buckets(mean: float, cv: float) -> None:
    """A lognormal seen through vLLM's 1-2-5 buckets keeps its mean within 6 % and its P90 within 8 %."""
    spread = np.log1p(cv * cv)
    true = np.exp(np.random.default_rng(1).normal(np.log(mean) - spread / 2, np.sqrt(spread), 100_000)).clip(1, 50_000)
    lengths = lengths_of(bucketed(np.round(true)))
    assert lengths is not None
    drawn = lengths_at(HALVES, lengths)
    assert drawn.mean() == pytest.approx(true.mean(), rel=0.06)
    assert np.quantile(drawn, 0.9) == pytest.approx(np.quantile(true, 0.9), rel=0.08)
    assert drawn.max() <= (lengths.max or 0)


def test_equal_lengths_keep_their_mean() -> None:
    """All prompts of 700 tokens lie in one bucket: the mean is exact, the spread at most that of the bucket."""
    lengths = lengths_of(bucketed(np.full(500, 700.0)))
    assert lengths is not None
    assert lengths.mean == 700.0
    assert 0 < lengths.cv <= 0.5
    assert lengths.max == 1000


def test_a_bucket_that_falls_by_a_hair_is_lifted() -> None:
    """Rates of buckets are interpolated apart: 10.2 then 10.1 is read as 10.2 twice."""
    histogram = Histogram.of({1.0: 10.2, 2.0: 10.1, math.inf: 20.0})
    assert histogram is not None
    assert histogram.counts == (10.2, 10.2)


@pytest.mark.parametrize(
    "buckets",
    [{}, {1.0: 3.0}, {math.inf: 0.0}, {math.inf: math.nan}, {1.0: math.nan, math.inf: 3.0}, {math.inf: math.inf}],
)
def test_what_is_no_histogram_is_none(buckets: dict[float, float]) -> None:
    """Nothing counted, no last bucket, or numbers that are none: there is no histogram, and no guess."""
    assert Histogram.of(buckets) is None


def test_counts_that_fall_are_refused() -> None:
    """A histogram made by hand must be cumulative."""
    with pytest.raises(ValidationError, match="must not fall"):
        Histogram(edges=(1.0, 2.0), counts=(5.0, 3.0), total=6.0)
    with pytest.raises(ValidationError, match="edges must rise"):
        Histogram(edges=(2.0, 1.0), counts=(1.0, 3.0), total=6.0)


def test_an_empty_tail_says_no_longest() -> None:
    """Where values lie beyond the last edge the longest is not known, and lengths are not cut."""
    lengths = lengths_of(Histogram(edges=(10.0, 20.0), counts=(3.0, 6.0), total=10.0, sum=400.0))
    assert lengths is not None
    assert lengths.max is None
    assert lengths.quantiles == {0.3: 10.0, 0.6: 20.0}
