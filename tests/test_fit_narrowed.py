"""Laws of narrowing: what measured conditions do to a prediction and to its interval."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.fitted import load_constants
from catalog.gpus import load_gpus
from catalog.models import find_model
from catalog.predictors import Predictor
from planner.fit import bound, fit
from planner.fit.narrowed import Z90, Correction, corrected, correction, not_below
from planner.strategies import Configuration

INTERVAL = (0.8, 1.25)
ratios = st.floats(0.85, 1.18)
scatters = st.floats(0.006, 0.1)


def test_without_measurements_nothing_changes():
    """No point: factor 1 and the interval as it was."""
    assert correction([], interval=INTERVAL, scatter=0.05) == Correction(factor=1.0, interval=INTERVAL, points=0)


def test_one_point_by_hand():
    """Prior sd 0.1 whole, scatter 0.06, so 0.08 shared: weight 0.64 of what was measured; sd left 0.0768."""
    interval = (math.exp(-Z90 * 0.1), math.exp(Z90 * 0.1))
    found = correction([math.exp(0.1)], interval=interval, scatter=0.06)
    assert math.log(found.factor) == pytest.approx(0.064)
    assert math.log(found.interval[1]) == pytest.approx(Z90 * math.sqrt(0.08**2 * 0.36 + 0.06**2))
    assert found.interval[0] == pytest.approx(1 / found.interval[1])


@given(ratios, scatters)
def test_the_factor_shrinks_towards_one(ratio, scatter):
    """A correction lies between no correction and the measured ratio."""
    found = correction([ratio], interval=INTERVAL, scatter=scatter)
    assert min(1.0, ratio) - 1e-12 <= found.factor <= max(1.0, ratio) + 1e-12


@given(ratios, scatters, st.integers(1, 6))
def test_more_agreeing_points_narrow(ratio, scatter, n):
    """An interval with one more point of the same ratio lies within the one before, and the factor nears the ratio."""
    fewer, more = (correction([ratio] * k, interval=INTERVAL, scatter=scatter) for k in (n, n + 1))
    assert fewer.interval[0] <= more.interval[0] + 1e-12
    assert more.interval[1] <= fewer.interval[1] + 1e-12
    assert abs(math.log(more.factor / ratio)) <= abs(math.log(fewer.factor / ratio)) + 1e-12
    assert max(INTERVAL[0], fewer.interval[0]) == fewer.interval[0]


@given(st.lists(ratios, min_size=1, max_size=5), scatters)
def test_the_interval_never_beats_the_scatter(measured, scatter):
    """However many points agree, a further condition is off by 0.8 of the scatter at least (it weighs 10)."""
    low, high = correction(measured, interval=INTERVAL, scatter=scatter).interval
    assert low < 1.0 < high
    assert math.log(high) >= Z90 * scatter * 0.8


def test_a_contradiction_widens():
    """A point at twice the prediction moves the factor most of the way and leaves a wider interval than agreement."""
    far, near = (correction([ratio], interval=INTERVAL, scatter=0.05) for ratio in (2.0, 1.0))
    assert far.factor > 1.7
    assert far.interval[1] >= near.interval[1]


def test_drawn_groups_are_covered():
    """Conditions drawn from the model itself lie in nine of ten intervals, after 1, 2 and 3 points (within 3 %)."""
    rng = np.random.default_rng(5)
    interval = (math.exp(-Z90 * 0.1), math.exp(Z90 * 0.1))
    for points in (1, 2, 3):
        inside = []
        for _ in range(3000):
            logs = rng.normal(0, 0.08) + rng.normal(0, 0.06, points + 1)
            found = correction(np.exp(logs[:points]).tolist(), interval=interval, scatter=0.06)
            inside.append(found.interval[0] <= math.exp(logs[points]) / found.factor <= found.interval[1])
        assert 0.87 <= np.mean(inside) <= 0.95


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_impossible_ratios_are_refused(bad):
    """Zero, negative, NaN and infinite ratios are no measurement."""
    with pytest.raises(ValueError, match="positive"):
        correction([1.0, bad], interval=INTERVAL, scatter=0.05)


def predictor() -> Predictor:
    """A predictor of round numbers."""
    one, grid = np.array([1.0, 2.0]), np.array([[1.0, 2.0], [3.0, 4.0]])
    return Predictor(
        tokens=one, token_s=one, sequences=one, sequence_s=one, decode_batch=one, decode_context=one, decode_s=grid,
        chunk=one, prior=one, prefill_s=grid, decode_overhead_s=1.0, mixed_overhead_s=2.0, request_s=0.5,
        decode_interval=INTERVAL, prefill_interval=(0.6, 1.6), source="reference",
    )  # fmt: skip


def test_a_predictor_is_scaled_and_narrowed():
    """Times are multiplied, intervals are those of the corrections, the note says so; without points it is itself."""
    before, none = predictor(), Correction(factor=1.0, interval=(0.6, 1.6), points=0)
    assert corrected(before, decode=none, prefill=none) is before
    after = corrected(before, decode=Correction(factor=1.1, interval=(0.9, 1.1), points=2), prefill=none)
    assert after.decode_s == pytest.approx(before.decode_s * 1.1)
    assert (after.decode_interval, after.prefill_interval) == ((0.9, 1.1), (0.6, 1.6))
    tight = Correction(factor=1.2, interval=(0.8, 1.3), points=1)
    assert corrected(before, decode=none, prefill=tight).ttft_ends == (0.8, 1.3)
    assert "2 measured runs" in after.notes[-1]


@pytest.mark.parametrize("factor", [0.05, 0.6, 1.0, 1.4])
def test_no_correction_is_faster_than_the_roofline(factor):
    """However fast the measured runs, every table stays at its bound or above; a plausible one is left as it was."""
    model, gpu = find_model("llama-3.1-8b"), load_gpus()["h100_sxm"]
    shape = Configuration(model=model.name, gpu=gpu.name, tp=2)
    made = fit(model, gpu, shape, fingerprint=None, gpus=load_gpus(), constants=load_constants())
    least = bound(model, gpu, shape)
    found = not_below(made.scaled(decode=factor, prefill=factor), least)
    for name in ("token_s", "sequence_s", "decode_s", "prefill_s"):
        assert (getattr(found, name) >= getattr(least, name)).all()
    assert any("roofline allows" in note for note in found.notes) == (factor < 1.0)
