"""Workloads in numbers: declared lengths, traces, burstiness, prefix reuse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from catalog.errors import BadInput
from planner.workload import (
    Lengths,
    Trace,
    Workload,
    arrival_cv_of,
    burstiness,
    daily_profile,
    demand,
    lawful,
    prefix_hits,
    realize,
)
from planner.workload.arrivals import DAY_S


def trace_of(arrival, prompt=None, output=None, **kwargs) -> Trace:
    """A trace of requests of 100 tokens each way, where nothing else is said."""
    arrival = np.asarray(arrival, dtype=float)
    ones = np.full(len(arrival), 100, dtype=np.int64)
    lengths = {"prompt": ones if prompt is None else np.asarray(prompt), "output": ones if output is None else output}
    return Trace(arrival_s=arrival, source="test", **lengths, **kwargs)


def workload(**kwargs) -> Workload:
    """A chat workload, with changes."""
    base = {"rate": "4 /s", "prompt": Lengths(mean=1155, cv=0.96), "output": Lengths(mean=211, cv=0.77)}
    return Workload(**{**base, **kwargs})


@given(mean=st.floats(20, 5000), cv=st.floats(0, 1.5), seed=st.integers(0, 5))
@settings(max_examples=25, deadline=None)
def test_declared_moments_are_kept(mean, cv, seed):
    """A declared mean and cv come out of the sample: the mean within 3 % + rounding, the spread within 15 %."""
    drawn = realize(workload(prompt=Lengths(mean=mean, cv=cv)), seed=seed).prompt
    assert drawn.mean() == pytest.approx(mean, rel=0.03, abs=0.6)
    assert drawn.std() / drawn.mean() == pytest.approx(cv, rel=0.15, abs=0.03)


@given(n=st.integers(2, 400), seed=st.integers(0, 1000), longest=st.integers(2000, 9000))
@settings(max_examples=30, deadline=None)
def test_lengths_are_whole_tokens_within_bounds(n, seed, longest):
    """Every drawn length is at least 1 and at most `max`; cached stays below the prompt."""
    drawn = realize(workload(prompt=Lengths(mean=1155, cv=4, max=longest), prefix_hit_share=0.99), n=n, seed=seed)
    assert drawn.prompt.min() >= 1
    assert drawn.prompt.max() <= longest
    assert (drawn.cached < drawn.prompt).all()
    assert len(drawn.prompt) == len(drawn.output) == n


def test_same_seed_same_requests():
    """Realising twice gives the same numbers; another seed shuffles the same margins."""
    one, two, other = realize(workload()), realize(workload()), realize(workload(), seed=1)
    assert (one.prompt == two.prompt).all()
    assert (one.output == two.output).all()
    assert (one.prompt != other.prompt).any()
    assert (np.sort(one.prompt) == np.sort(other.prompt)).all()


def test_prompt_and_output_are_independent():
    """The joint sample carries no correlation that was not declared (below 3 % on ranks)."""
    drawn = realize(workload())
    ranks = [np.argsort(np.argsort(column, kind="stable")) for column in (drawn.prompt, drawn.output)]
    assert abs(np.corrcoef(*ranks)[0, 1]) < 0.03


def test_quantiles_are_met():
    """Declared quantiles are the sample's quantiles; between them the interpolation is monotone."""
    given_ = {0.5: 700.0, 0.9: 2400.0, 0.99: 7900.0}
    drawn = realize(workload(prompt=Lengths(quantiles=given_)), n=4096).prompt
    for share, tokens in given_.items():
        assert np.quantile(drawn, share) == pytest.approx(tokens, rel=0.02)


def test_one_quantile_has_no_spread():
    """A single quantile says nothing of the spread, so every length is that one."""
    assert set(realize(workload(prompt=Lengths(quantiles={0.5: 700.0}))).prompt.tolist()) == {700}


@pytest.mark.parametrize(
    "wrong",
    [
        {"mean": 100, "quantiles": {0.5: 3.0}},
        {"quantiles": {0.5: 700.0, 0.9: 300.0}},
        {"quantiles": {1.5: 700.0}},
        {"quantiles": {}},
        {"mean": 100, "max": 50},
    ],
)
def test_impossible_lengths_are_refused(wrong):
    """Contradictory, falling, out-of-range or cut-off lengths are errors."""
    with pytest.raises(ValidationError):
        Lengths(**wrong)


@pytest.mark.parametrize("wrong", [(), (0.0, 0.0), (1.0, -1.0), (1e9,)])
def test_impossible_days_are_refused(wrong):
    """A day needs factors from 0 to 100, at least one above 0."""
    with pytest.raises(ValidationError):
        workload(diurnal=wrong)


def test_diurnal_peak_is_what_is_planned_for():
    """A declared day of half and double load demands the double."""
    assert demand(realize(workload(diurnal=(0.5, 2.0)))) == pytest.approx(8.0)


def test_trace_rows_are_the_sample():
    """A trace keeps its own rows, starts at 0 and comes faster by trace_scale."""
    trace = trace_of([10, 12, 16, 18], prompt=[5, 6, 7, 8])
    replay = realize(Workload(trace="t.csv", trace_scale=2.0), trace=trace)
    assert replay.prompt.tolist() == [5, 6, 7, 8]
    assert replay.arrival_s.tolist() == [0, 1, 3, 4]
    assert replay.rate == pytest.approx(3 / 4)
    assert demand(replay) == replay.rate


def test_declared_rate_stretches_a_trace():
    """A declared rate beside a trace wins: the arrivals keep their pattern at that mean."""
    replay = realize(Workload(trace="t.csv", rate="3 /s"), trace=trace_of([0, 2, 6, 8]))
    assert replay.arrival_s.tolist() == pytest.approx([0, 0.25, 0.75, 1.0])
    assert replay.rate == 3


def test_unread_trace_is_an_error():
    """A workload that names a trace cannot be realised without it."""
    with pytest.raises(BadInput, match="has not been read"):
        realize(Workload(trace="t.csv"))


def test_law_of_a_trace_keeps_rate_and_burstiness():
    """For the closed form a trace becomes a law with its mean rate and its measured gaps' cv."""
    rng = np.random.default_rng(3)
    replay = realize(Workload(trace="t"), trace=trace_of(np.cumsum(rng.gamma(0.25, 4.0, 9000))))
    law = lawful(replay, n=1000)
    assert law.arrival_s is None
    assert len(law.prompt) <= 1000
    assert law.rate == replay.rate
    assert law.arrival_cv == pytest.approx(2.0, rel=0.1)


def test_poisson_disperses_like_poisson():
    """Poisson arrivals have cv 1 and index of dispersion 1 on every scale (4 standard errors)."""
    rng = np.random.default_rng(0)
    found = burstiness(trace_of(np.cumsum(rng.exponential(0.1, 40_000))))
    assert found.cv == pytest.approx(1.0, abs=0.03)
    assert found.dispersion[1.0] == pytest.approx(1.0, abs=0.1)
    assert found.dispersion[60.0] == pytest.approx(1.0, abs=0.7)


def test_regular_arrivals_do_not_disperse():
    """One arrival every 0.125 s: cv 0, no dispersion, peak = mean."""
    found = burstiness(trace_of(np.arange(16_000) * 0.125))
    assert found.cv == pytest.approx(0.0, abs=1e-9)
    assert found.dispersion == {1.0: 0.0, 10.0: 0.0, 60.0: 0.0}
    assert found.peak_rate == pytest.approx(8.0)


def test_bursts_show_on_long_scales():
    """On-off load of 60 s each: gaps look nearly Poisson, counts per minute do not."""
    rng = np.random.default_rng(1)
    on = np.concatenate([120 * k + np.sort(rng.uniform(0, 60, 600)) for k in range(30)])
    found = burstiness(trace_of(on))
    assert found.dispersion[60.0] > 20 * found.dispersion[1.0]
    assert found.peak_rate == pytest.approx(10.0, rel=0.01)


def test_bench_burstiness_is_a_gamma_shape():
    """`--burstiness 0.25` is a coefficient of variation of 2; 0 is refused."""
    assert arrival_cv_of(0.25) == 2.0
    with pytest.raises(BadInput):
        arrival_cv_of(0.0)


def test_daily_profile_is_relative_to_the_mean():
    """Twice as many requests from noon on, over two days: 2/3 and 4/3 of the mean."""
    half = DAY_S / 2
    arrival = np.concatenate(
        [d * DAY_S + np.concatenate([np.arange(0, half, 60), half + np.arange(0, half, 30)]) for d in (0, 1)]
    )
    profile = daily_profile(trace_of(arrival, day_offset_s=0.0), windows=2)
    assert profile == pytest.approx((2 / 3, 4 / 3), rel=0.01)


def test_no_time_of_day_no_profile():
    """A trace in seconds since its start does not say when the day begins."""
    with pytest.raises(BadInput, match="time of day"):
        daily_profile(trace_of([0.0, 1.0]))


def test_prefix_hits_by_hand():
    """Known leading blocks count, 512 tokens each, at most prompt - 1; a gap in the chain ends the hit."""
    hits = prefix_hits([[1, 2, 3], [1, 2, 4], [5, 2], [1, 2, 3]], [1536, 1536, 1024, 1536])
    assert hits.tolist() == [0, 1024, 0, 1535]


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=5), min_size=1, max_size=30), st.integers(1, 12))
@settings(max_examples=50, deadline=None)
def test_a_larger_cache_never_hits_less(chains, capacity):
    """LRU is a stack algorithm: more blocks never lose a hit, and no bound is best of all."""
    chains = [sorted(set(chain)) for chain in chains]
    prompt = [512 * len(chain) + 1 for chain in chains]
    small = prefix_hits(chains, prompt, capacity_blocks=capacity)
    large = prefix_hits(chains, prompt, capacity_blocks=capacity + 1)
    assert (small <= large).all()
    assert (large <= prefix_hits(chains, prompt)).all()


@pytest.mark.parametrize(
    ("wrong", "row"),
    [
        ({"arrival": [0.0, 2.0, 1.0]}, "row 3"),
        ({"arrival": [0.0, np.nan, 1.0]}, "row 2"),
        ({"arrival": [0.0, 1.0], "prompt": [0, 5]}, "row 1"),
        ({"arrival": [0.0, 1.0], "output": np.array([5, -1])}, "row 2"),
        ({"arrival": [0.0, 1.0], "cached": np.array([0, 100])}, "row 2"),
    ],
)
def test_impossible_traces_name_the_row(wrong, row):
    """Unsorted, NaN, empty or over-cached rows are refused by number."""
    with pytest.raises(BadInput, match=row):
        trace_of(**wrong)


def test_answers_without_a_token_are_left_out_and_counted():
    """As max_tokens 0 is refused, such rows load nothing, and the rest keeps its times and its own mean rate."""
    trace = trace_of([0.0, 1.0, 2.0, 4.0], output=np.array([0, 5, 0, 7]), cached=np.array([1, 2, 3, 4]))
    found = realize(Workload(trace="t"), trace=trace)
    assert (found.silent, found.output.tolist(), found.cached.tolist()) == (2, [5, 7], [2, 4])
    assert found.arrival_s.tolist() == [0.0, 3.0]
    assert found.rate == pytest.approx(1 / 3)
    declared = realize(Workload(trace="t", output=Lengths(mean=9)), trace=trace)
    assert (declared.silent, declared.output.tolist()) == (0, [9, 9, 9, 9])


def test_a_trace_of_answers_without_tokens_is_refused():
    """Where nothing was answered there is nothing to plan for."""
    with pytest.raises(BadInput, match="no request of the trace has an output token"):
        realize(Workload(trace="t"), trace=trace_of([0.0, 1.0], output=np.array([0, 0])))


def test_all_at_once_has_no_rate():
    """Requests that all arrive at one instant have no rate, which is said."""
    with pytest.raises(BadInput, match="at once"):
        realize(Workload(trace="t"), trace=trace_of([1.0, 1.0, 1.0]))
