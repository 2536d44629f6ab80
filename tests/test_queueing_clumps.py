"""Crowding of gamma arrivals against scipy, limits and a long stream."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from planner.queueing.clumps import around, clumps, lower_gamma


@given(st.floats(0.05, 200), st.floats(1e-6, 400))
def test_the_incomplete_gamma_function_is_scipys(a: float, z: float) -> None:
    """Series and continued fraction agree with scipy on both sides of their seam."""
    assert lower_gamma(a, z) == pytest.approx(float(special.gammainc(a, z)), abs=1e-9)


def test_poisson_does_not_crowd() -> None:
    """A Poisson stream has no memory: nothing is extra."""
    assert np.abs(clumps(1.0).extra).max() < 1e-6


@pytest.mark.parametrize("ca2", [0.0625, 0.25, 2.25, 4.0, 9.0])
def test_in_the_long_run_half_of_the_excess_remains(ca2: float) -> None:
    """Expected arrivals after an arrival exceed the rate by (c² - 1)/2 in the end."""
    assert around.py_func(clumps(ca2).extra, 100.0) == pytest.approx((ca2 - 1) / 2, abs=0.01)


@pytest.mark.parametrize("ca2", [0.25, 4.0])
def test_extra_arrivals_are_counted_in_a_long_stream(ca2: float) -> None:
    """What is tabulated is what a stream of a million gaps shows after each of its arrivals."""
    shape = 1 / ca2
    times = np.cumsum(np.random.default_rng(0).gamma(shape, ca2, 1_000_000))
    first = times[:-1000]
    for window in (0.05, 0.5, 2.0):
        later = np.searchsorted(times, first + window, side="right") - np.arange(len(first)) - 1
        assert later.mean() - window == pytest.approx(around.py_func(clumps(ca2).extra, window), abs=0.02)
        assert (later > 0).mean() == pytest.approx(around.py_func(clumps(ca2).soon, window), abs=0.01)


def test_the_mean_extra_is_the_mean_of_extra() -> None:
    """The integral over a window agrees with quadrature of the same table."""
    near = clumps(4.0)
    x = np.linspace(1e-4, 2.0, 20_001)
    assert np.mean([around.py_func(near.extra, each) for each in x]) == pytest.approx(
        around.py_func(near.mean_extra, 2.0), rel=0.02
    )
