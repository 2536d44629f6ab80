"""Overheads of serving come out of the difference between a served run and the engine's own steps."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.fitted import load_constants
from planner.fit.blocks import fit_blocks
from planner.fit.learned import learned
from planner.fit.served import ServedRun, overheads
from planner.predict import step_time
from tests.test_fit_blocks import CONFIGURATION, fingerprint

ENGINE = fit_blocks(fingerprint((("request", 0.0),)), CONFIGURATION, learned(load_constants(), "async"))


def _run(concurrency, *, step, sequence, request, prompt=128, output=64):
    extra = step + concurrency * sequence
    tpot = float(step_time(ENGINE, decodes=concurrency, context=prompt + output / 2)) + extra
    ttft = float(step_time(ENGINE, chunks=concurrency, chunk=prompt)) + extra + request
    return ServedRun(concurrency=concurrency, prompt=prompt, output=output, ttft_s=ttft, tpot_s=tpot)


@settings(max_examples=30)
@given(step=st.floats(0, 5e-3), sequence=st.floats(0, 1e-3), request=st.floats(0, 5e-2))
def test_known_overheads_are_found_again(step, sequence, request):
    """Runs made with given overheads give those overheads back."""
    found = overheads(ENGINE, [_run(c, step=step, sequence=sequence, request=request) for c in (1, 8)])
    assert found["step"] == pytest.approx(step, abs=1e-7)
    assert found["sequence"] == pytest.approx(sequence, abs=1e-7)
    assert found["request"] == pytest.approx(request, abs=1e-6)


@pytest.mark.parametrize("disturbed", [0, 1])
def test_tokens_that_came_all_at_once_change_nothing(disturbed):
    """A loop whose client once saw the first token late and the rest at once tells the same as without that run."""
    runs = [_run(c, step=2e-3, sequence=1e-4, request=1e-2) for c in (1, 8)]
    seen = runs[disturbed]
    burst = replace(seen, ttft_s=seen.ttft_s + seen.tpot_s * (seen.output - 1), tpot_s=0.0)
    assert overheads(ENGINE, [*runs, burst]) == pytest.approx(overheads(ENGINE, runs))


@settings(max_examples=30)
@given(late=st.floats(0, 0.5), sequence=st.floats(0, 1e-3))
def test_requests_that_come_in_one_by_one_cancel(late, sequence):
    """A loop of two lengths of answers, both as late as their prompts came in: that is no overhead of a step."""
    alone = _run(1, step=2e-3, sequence=sequence, request=1e-2)
    many = [_run(8, step=2e-3, sequence=sequence, request=1e-2, output=output) for output in (8, 24)]
    held_up = [replace(run, ttft_s=run.ttft_s + late / 3, tpot_s=run.tpot_s + late / (run.output - 1)) for run in many]
    found = overheads(ENGINE, [alone, *held_up])
    assert found["sequence"] == pytest.approx(sequence, abs=1e-5)
    assert found["step"] == pytest.approx(2e-3, abs=1e-4)


@settings(max_examples=30)
@given(tpots=st.lists(st.floats(1e-4, 0.1), min_size=1, max_size=4))
def test_noise_never_makes_an_overhead_negative(tpots):
    """Whatever the runs say, no overhead is below zero."""
    runs = [ServedRun(concurrency=2**i, prompt=64, output=32, ttft_s=tpot, tpot_s=tpot) for i, tpot in enumerate(tpots)]
    assert min(overheads(ENGINE, runs).values()) >= 0


def test_no_run_is_an_error():
    """Overheads cannot be learned from nothing."""
    with pytest.raises(ValueError, match="no served run"):
        overheads(ENGINE, [])
