"""The command that refits the constants: schedules by hand, conformal intervals, what the shipped constants cite."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.refit import main
from benchmarks.refit.conditions import digests, load
from benchmarks.refit.schedule import closed_loop, static_batch
from benchmarks.refit.validate import conformal
from catalog.fitted import load_constants

DATA = Path(__file__).parents[1] / "../shared/data/e2e"


def test_one_client_by_hand():
    """One client, two requests of 10 in and 3 out: prefill, two decodes, one step that misses the next, and again."""
    schedule = closed_loop(concurrency=1, prompt=10, output=3, spread=1.0, budget=64, per_slot=2)
    assert [(s.steps, s.decodes, s.chunks) for s in schedule.segments] == [
        (1, 0, [(10, 0)]), (2, 1, []), (1, 0, []), (1, 0, [(10, 0)]), (2, 1, []),
    ]  # fmt: skip
    # The first decode's row attends to its prompt and itself, the second to one more: 11 and 12 on average.
    assert schedule.segments[1].context == pytest.approx(11.5)


def test_a_static_batch_computes_its_prompts_first():
    """Two prompts of 10 in steps of 10 tokens; the first decodes while the second is prefilled."""
    schedule = static_batch(batch=2, prompt=10, output=2, budget=10)
    assert [s.chunks for s in schedule.segments if s.chunks] == [[(10, 0)], [(9, 0)], [(1, 9)]]
    assert len(schedule.requests) == 2


@settings(max_examples=40)
@given(st.integers(1, 12), st.integers(1, 400), st.integers(2, 60), st.sampled_from([0.5, 0.8, 1.0]),
       st.integers(16, 512))  # fmt: skip
def test_every_token_is_computed_once(concurrency, prompt, output, spread, budget):
    """All prompts are prefilled whole, every output token but the first is one decode, no step exceeds its budget."""
    schedule = closed_loop(concurrency=concurrency, prompt=prompt, output=output, spread=spread, budget=budget,
                           per_slot=3)  # fmt: skip
    requests = schedule.requests
    assert len(requests) == 3 * concurrency
    assert sum(n for s in schedule.segments for n, _ in s.chunks) == sum(r.prompt for r in requests)
    assert sum(s.steps * s.decodes for s in schedule.segments) == sum(r.output - 1 for r in requests)
    assert all(s.decodes + sum(n for n, _ in s.chunks) <= max(budget, concurrency) for s in schedule.segments)
    assert all(0 <= r.sent < r.first < r.done for r in requests)


@given(st.integers(20, 300), st.integers(0, 10_000))
def test_conformal_intervals_cover_their_sample(size, seed):
    """At least nine of ten of the errors that made an interval lie in it, and it holds the prediction itself."""
    errors = np.random.default_rng(seed).normal(0.05, 0.1, size)
    low, high = conformal(errors)
    assert low <= 1.0 <= high
    assert np.mean((np.exp(-errors) >= low - 1e-12) & (np.exp(-errors) <= high + 1e-12)) >= 0.9


def test_the_shipped_constants_say_where_they_come_from():
    """Command, tables, digests of the data and residuals at every distance stand beside the constants."""
    constants = load_constants()
    assert str(constants["provenance.command"]).startswith("python -m benchmarks refit")
    cited = dict(constants.within("provenance.sha256"))
    assert len(cited) == 6
    medians = {name: constants.number(f"residuals.{name}.all.median") for name in
               ("fitted", "same", "new_tp", "new_model", "new_gpu", "no_table", "roofline")}  # fmt: skip
    assert medians["fitted"] <= medians["new_model"] < medians["roofline"]
    if DATA.is_dir():
        assert cited == digests(DATA)


@pytest.mark.skipif(not DATA.is_dir(), reason="the calibration sets are absent")
def test_only_the_three_sets_are_read():
    """The conditions come from the three named sets, each with a metric to fit, and the request log is none of them."""
    conditions, left_out = load(DATA)
    assert {condition.origin for condition in conditions} == {"inferencex_h200", "mlenergy_h100", "argonne_a100"}
    assert len(conditions) + len(left_out) == 60 + 27 + 215
    assert all(c.tpot_s or c.latency_s for c in conditions)


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="the calibration sets are absent")
def test_a_refit_reproduces_the_shipped_file(tmp_path):
    """The command writes the bytes that ship."""
    main(False, ["--data", str(DATA), "--out", str(tmp_path / "fitted.yaml")])
    shipped = Path(__file__).parents[1] / "catalog" / "fitted.yaml"
    digest = {hashlib.sha256(path.read_bytes()).hexdigest() for path in (shipped, tmp_path / "fitted.yaml")}
    assert len(digest) == 1
