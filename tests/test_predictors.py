"""Laws of predictors: scaling moves times and interval against each other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.predictors import Predictor

ONE = np.array([1.0, 2.0])
PREDICTOR = Predictor(
    tokens=ONE,
    token_s=1e-3 * ONE,
    sequences=ONE,
    sequence_s=1e-5 * ONE,
    decode_batch=ONE,
    decode_context=ONE,
    decode_s=1e-4 * np.outer(ONE, ONE),
    chunk=ONE,
    prior=ONE,
    prefill_s=1e-4 * np.outer(ONE, ONE),
    decode_overhead_s=1e-3,
    mixed_overhead_s=2e-3,
    request_s=5e-3,
    decode_interval=(0.8, 1.25),
    prefill_interval=(0.7, 1.5),
    source="reference",
)
factors = st.floats(0.2, 5.0)


@given(decode=factors, prefill=factors)
def test_scaling_there_and_back_changes_nothing(decode: float, prefill: float) -> None:
    """Times by f and then by 1/f are what they were, and so is the interval."""
    back = PREDICTOR.scaled(decode=decode, prefill=prefill).scaled(decode=1 / decode, prefill=1 / prefill)
    np.testing.assert_allclose(back.decode_s, PREDICTOR.decode_s)
    np.testing.assert_allclose(back.prefill_s, PREDICTOR.prefill_s)
    assert back.request_s == pytest.approx(PREDICTOR.request_s)
    assert back.decode_interval == pytest.approx(PREDICTOR.decode_interval)


def test_the_ends_of_the_interval() -> None:
    """The slow end is the middle times the upper end, whose own upper end is 1; the fast end likewise."""
    slow, fast = PREDICTOR.pessimistic, PREDICTOR.optimistic
    np.testing.assert_allclose(slow.decode_s, 1.25 * PREDICTOR.decode_s)
    np.testing.assert_allclose(fast.prefill_s, 0.7 * PREDICTOR.prefill_s)
    assert slow.decode_interval[1] == pytest.approx(1.0)
    assert fast.prefill_interval[0] == pytest.approx(1.0)
    assert fast.decode_overhead_s < PREDICTOR.decode_overhead_s < slow.decode_overhead_s
