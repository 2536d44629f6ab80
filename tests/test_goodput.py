"""Goodput and estimates: closed form, simulator, intervals."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_engines import H100, chat, engine, lognormal, served

from catalog.errors import BadInput
from planner.goodput import END, estimate, goodput, highest_within, probability
from planner.intents import SLO
from planner.queueing import Engine, capacity
from planner.queueing.queue import latencies_in, ready
from planner.simulate import Burst, simulate
from planner.strategies import Collocated, Configuration, Disaggregated, Pool
from planner.workload import Requests

HERE = Configuration(model="m", gpu="h100")
LIMITS = SLO(ttft="300 ms", tpot="20 ms")


def pool(replicas: int) -> Pool:
    """So many replicas."""
    return Pool(configuration=HERE, replicas=replicas, node_pool="p")


def together(replicas: int) -> Collocated:
    """A collocated strategy."""
    return Collocated(pool=pool(replicas))


def apart(prefill: int, decode: int, bandwidth: float = 25e9) -> Disaggregated:
    """A disaggregated strategy."""
    return Disaggregated(
        prefill=pool(prefill), decode=pool(decode), transfer_bandwidth=bandwidth, transfer_latency=1e-4
    )


def conversation(**more: float) -> Requests:
    """Long prompts, middling answers."""
    return served(prompt=lognormal(1155, 0.96, 4096), output=lognormal(211, 0.77, 4096, seed=1), **more)


def one() -> Engine:
    """An engine that knows its KV bytes."""
    return engine(H100, kv_bytes_per_token=131_072.0)


@pytest.mark.parametrize("replicas", [1, 4])
@pytest.mark.parametrize("cv", [1.0, 1.5])
def test_the_closed_form_is_near_the_simulator(replicas: int, cv: float) -> None:
    """Both methods find about the same goodput, and the simulator confirms its own."""
    requests = conversation(cv=cv)
    fast = goodput(one(), requests, LIMITS, replicas=replicas, router="round_robin")
    exact = goodput(one(), requests, LIMITS, replicas=replicas, router="round_robin", method="simulated", n=8000)
    assert fast.rate == pytest.approx(exact.rate, rel=0.12)
    assert fast.evaluations == 0 < exact.evaluations < 20
    below, above = (
        simulate(one(), requests, rate=exact.rate * x, replicas=replicas, router="round_robin", n=8000)
        for x in (0.97, 1.05)
    )
    assert below.holds(LIMITS)
    assert not above.holds(LIMITS)


def test_replicas_behind_a_router_are_worth_more_than_apart() -> None:
    """Bursty traffic: eight replicas behind least requests carry more than eight times one."""
    requests = conversation(cv=2.0)
    alone, eight = (goodput(one(), requests, LIMITS, replicas=r, method="simulated", n=8000).rate for r in (1, 8))
    assert eight / 8 > 1.1 * alone


def test_bursts_of_minutes_lower_goodput() -> None:
    """An MMPP's goodput is below Poisson's; the closed form is near it, on the safe side."""
    burst = Burst(ratio=2.5, high_s=5.0, low_s=15.0)
    calm = goodput(one(), chat(), LIMITS, method="simulated", n=4000)
    stormy = goodput(one(), chat(), LIMITS, method="simulated", n=8000, burst=burst)
    safe = goodput(one(), chat(), LIMITS, burst=burst)
    assert stormy.rate < 0.9 * calm.rate
    assert 0.6 * stormy.rate < safe.rate < 1.05 * stormy.rate


@pytest.mark.parametrize(("refused", "attainment"), [(0.05, 0.9), (0.05, 0.94), (0.15, 0.9)])
def test_refused_requests_miss_the_slo_in_both_methods(refused: float, attainment: float) -> None:
    """What vLLM refuses is missed by closed form and simulator alike; where too much is, no rate keeps the SLO."""
    small, count = engine(H100, max_model_len=8192), int(4000 * refused)
    prompt = np.concatenate([np.full(count, 9000), np.full(4000 - count, 800)])
    slo, load = LIMITS.model_copy(update={"attainment": attainment}), served(prompt=prompt, output=100)
    closed, simulated = (goodput(small, load, slo, method=method).rate for method in ("closed_form", "simulated"))
    if refused > 1 - attainment:
        assert closed == simulated == 0
    else:
        assert closed == pytest.approx(simulated, rel=0.12)


def test_phases_are_felt_as_long_as_a_stay() -> None:
    """Bursts against a stay: short ones are hardly felt, long ones as much as their rates weighed by their arrivals."""
    high, low = Burst(ratio=2.5, high_s=1e5, low_s=3e5), Burst(ratio=2.5, high_s=1e-4, low_s=3e-4)
    calm, queue = goodput(one(), chat(), LIMITS).rate, ready((one(),), chat())
    assert goodput(one(), chat(), LIMITS, burst=low).rate == pytest.approx(calm, rel=0.01)
    rate = goodput(one(), chat(), LIMITS, burst=high).rate
    met = [latencies_in(queue, rate * times, LIMITS).attainment for times in (2.5, 0.5)]
    assert 0.625 * met[0] + 0.375 * met[1] == pytest.approx(LIMITS.attainment, abs=0.01)


@given(st.floats(1.05, 3.5), st.floats(0.05, 1.0), st.floats(0.5, 60.0), st.booleans())
@settings(max_examples=25, deadline=None)
def test_burstier_and_stricter_never_carry_more(ratio: float, more: float, high_s: float, joint: bool) -> None:  # noqa: FBT001 - hypothesis
    """A higher peak never raises the closed form's goodput; looser limits never lower it, bursts or not."""
    mild, wild = (Burst(ratio=times, high_s=high_s, low_s=4.0 * high_s) for times in (ratio, ratio * (1 + 0.3 * more)))
    slo = LIMITS.model_copy(update={"joint": joint})
    loose = slo.model_copy(update={"ttft": slo.ttft * (1 + more), "tpot": slo.tpot * (1 + more)})
    rate = goodput(one(), chat(), slo, burst=mild).rate
    assert goodput(one(), chat(), slo, burst=wild).rate <= 1.02 * rate
    assert rate <= goodput(one(), chat(), loose, burst=mild).rate * (1 + 1e-9)
    assert rate <= 1.02 * goodput(one(), chat(), slo).rate


@given(st.floats(0.05, 0.95), st.floats(0.5, 2.0))
def test_the_bracket_finds_a_root(root: float, off: float) -> None:
    """From a guess off by up to two, the rate found is the highest with a margin, to half a per cent."""
    rate, evaluations = highest_within(lambda x: root * 10.0 - x, min(root * 10.0 * off, 10.0), 10.0)
    assert rate == pytest.approx(root * 10.0, rel=0.005)
    assert evaluations <= 24


@given(st.integers(0, 2**32 - 1), st.floats(1.0, 14.0), st.floats(0.5, 14.0))
def test_a_given_rate_decides_for_itself(seed: int, rate: float, guess: float) -> None:
    """However uneven margins are, what is found covers a rate exactly if that rate's own margin does."""
    bends = np.random.default_rng(seed).normal(size=4)

    def margin(x: float) -> float:
        return 0.3 * (5.0 - x) + float(bends @ np.sin(x * np.array([1.0, 3.0, 7.0, 15.0])))

    found, _ = highest_within(margin, guess, 10.0, rate=rate)
    assert (found >= rate) == (margin(rate) >= 0)


def test_the_bracket_knows_when_there_is_none() -> None:
    """Where nothing holds the goodput is 0; where everything holds it ends at one and a half bounds."""
    assert highest_within(lambda _: -1.0, 5.0, 10.0)[0] == 0.0
    assert highest_within(lambda _: 1.0, 5.0, 10.0)[0] == pytest.approx(15.0, rel=0.1)


def test_an_estimate_holds_together() -> None:
    """Quantiles ascend, the slow end is slower and carries less, and the SLO's probability follows the goodputs."""
    found = estimate(together(2), (one(),), conversation(rate=24.0), LIMITS)
    for latency in (found.ttft, found.tpot, found.e2e):
        assert latency.p50 < latency.p90 < latency.p99
    assert found.ttft_high > found.ttft.p90
    assert found.tpot_high > found.tpot.p90
    assert found.goodput_low < found.goodput < capacity(one(), conversation(), replicas=2).rate
    assert 0 < found.utilisation < 1
    assert 0 < found.kv_utilisation < 1
    assert found.method == "closed_form"
    assert found.source == "measured"
    assert found.notes == ()


def test_the_simulated_estimate_agrees() -> None:
    """Latencies, goodput and probability of both methods are near each other."""
    fast, exact = (
        estimate(together(2), (one(),), conversation(rate=20.0), LIMITS, method=method)
        for method in ("closed_form", "simulated")
    )
    assert exact.method == "simulated"
    assert fast.tpot.p90 == pytest.approx(exact.tpot.p90, rel=0.1)
    assert fast.ttft.mean == pytest.approx(exact.ttft.mean, rel=0.25)
    assert fast.goodput == pytest.approx(exact.goodput, rel=0.1)
    assert fast.slo_probability == pytest.approx(exact.slo_probability, abs=0.2)


def test_measured_arrivals_are_replayed() -> None:
    """Requests that carry their arrivals are replayed at the workload's rate, and the estimate says so."""
    times = np.cumsum(np.random.default_rng(0).exponential(0.1, 3000))
    requests = served(
        prompt=lognormal(500, 1.0, 3000), output=lognormal(100, 1.0, 3000, seed=1), rate=10.0, arrival_s=times
    )
    found = estimate(together(1), (one(),), requests, LIMITS, method="simulated")
    assert found.method == "replayed"
    assert found.goodput > 10.0


def test_a_disaggregated_estimate() -> None:
    """A pair is estimated like a pool, by both methods; its TPOT is below the collocated one's."""
    requests = conversation(rate=12.0)
    fast, exact = (
        estimate(apart(1, 1), (one(), one()), requests, LIMITS, method=method)
        for method in ("closed_form", "simulated")
    )
    assert fast.goodput == pytest.approx(exact.goodput, rel=0.15)
    assert fast.tpot.p90 == pytest.approx(exact.tpot.p90, rel=0.05)
    assert fast.tpot.p90 < estimate(together(2), (one(),), requests, LIMITS).tpot.p90


def test_beyond_capacity_there_is_no_latency() -> None:
    """An unstable strategy has infinite latencies, attains nothing, and says that it is unstable."""
    found = estimate(together(1), (one(),), conversation(rate=100.0), LIMITS)
    assert found.ttft.p50 == math.inf
    assert found.tpot_high == math.inf
    assert found.attainment == 0.0
    assert found.utilisation == 1.0
    assert found.slo_probability <= 0.05 + 1e-9
    assert "unstable at this load" in found.notes[0]


def test_without_an_slo_goodput_is_the_capacity() -> None:
    """What is merely stable counts where no limit is given."""
    found = estimate(together(1), (one(),), conversation(rate=1.0), None)
    assert found.goodput == pytest.approx(capacity(one(), conversation()).rate)
    assert found.attainment == 1.0


def test_a_peak_counts() -> None:
    """A workload whose busiest window has twice the rate is judged there; its goodput is told as a mean."""
    flat, peaked = conversation(rate=4.0), conversation(rate=4.0, peak_rate=8.0)
    calm, busy = (estimate(together(1), (one(),), each, LIMITS) for each in (flat, peaked))
    assert busy.goodput == pytest.approx(calm.goodput / 2, rel=1e-6)
    assert busy.ttft.p90 > calm.ttft.p90


@settings(max_examples=40)
@given(st.floats(0.5, 30.0), st.floats(1.0, 1.5), st.booleans())
def test_more_load_is_never_better(rate: float, more: float, joint: bool) -> None:  # noqa: FBT001 - hypothesis
    """Attainment and probability never rise with the rate."""
    slo = SLO(ttft="300 ms", tpot="20 ms", joint=joint)
    light, heavy = (estimate(together(2), (one(),), conversation(rate=rate * x), slo) for x in (1.0, more))
    assert heavy.attainment <= light.attainment + 2e-3  # the closed form bends where next to nothing is missed
    assert heavy.slo_probability <= light.slo_probability + 1e-9


def test_probability_reads_between_the_ends() -> None:
    """Half at the middle's goodput, 95 % at the slow end's, 5 % at the fast end's; no number beyond them."""
    found = {-END: 12.0, 0.0: 10.0, END: 8.0}
    assert probability(found, 10.0) == pytest.approx(0.5)
    assert probability(found, 8.0) == pytest.approx(0.95)
    assert probability(found, 12.0) == pytest.approx(0.05)
    assert probability(found, 1.0) == pytest.approx(0.95)
    assert probability(found, 99.0) == pytest.approx(0.05)
    assert 0.5 < probability({0.0: 10.0, END: 0.0}, 9.0) < 0.95


def test_a_pessimistic_interval_widens_the_ends() -> None:
    """A wider interval lowers the slow end and leaves the middle."""
    wide = replace(one(), predictor=replace(H100, decode_interval=(0.7, 1.5), prefill_interval=(0.6, 1.7)))
    narrow, wider = (estimate(together(1), (each,), conversation(rate=8.0), LIMITS) for each in (one(), wide))
    assert wider.goodput == pytest.approx(narrow.goodput)
    assert wider.goodput_low < narrow.goodput_low


@pytest.mark.parametrize("method", ["closed_form", "simulated"])
def test_the_slow_end_of_ttft_is_its_own_intervals(method: str) -> None:
    """A fitted interval of TTFT as a whole widens its slow end, and lowers the slow goodput where TTFT decides."""
    whole = engine(replace(H100, ttft_interval=(0.5, 2.0)))
    tight, requests = SLO(ttft="200 ms", tpot="40 ms"), conversation(rate=6.0)
    plain, wide = (estimate(together(1), (e,), requests, tight, method=method) for e in (one(), whole))
    assert wide.goodput == plain.goodput
    assert wide.goodput_low < 0.9 * plain.goodput_low
    assert wide.ttft_high > 1.3 * plain.ttft_high
    assert wide.tpot_high == plain.tpot_high
    loose = SLO(ttft="30 s", tpot="20 ms")
    plain, wide = (estimate(together(1), (e,), requests, loose, method=method) for e in (one(), whole))
    assert wide.goodput_low == plain.goodput_low


def test_an_engine_at_its_slow_end_is_estimated_there() -> None:
    """The middle of an engine that is at its slow end already is that slow end, TTFT's own interval included."""
    whole = engine(replace(H100, ttft_interval=(0.5, 2.0)))
    slo, requests = SLO(ttft="250 ms", tpot="40 ms"), conversation(rate=6.0)
    for method in ("closed_form", "simulated"):
        middle, slow = (estimate(together(1), (e,), requests, slo, method=method) for e in (whole, whole.slowest()))
        assert slow.goodput_low == pytest.approx(middle.goodput_low, rel=0.03)
        assert slow.ttft_high == pytest.approx(middle.ttft_high, rel=0.03)


def test_engines_must_match_the_pools() -> None:
    """Another number of engines, or a pair that does not know its KV bytes, is bad input."""
    with pytest.raises(BadInput, match="pools"):
        estimate(together(1), (one(), one()), conversation(), LIMITS)
    with pytest.raises(BadInput, match="kv_bytes_per_token"):
        estimate(apart(1, 1), (engine(H100), engine(H100)), conversation(), LIMITS)


def test_estimates_are_deterministic() -> None:
    """The same strategy, requests and seed give the same estimate, simulated or not."""
    for method in ("closed_form", "simulated"):
        first, second = (estimate(together(1), (one(),), chat(rate=10.0), LIMITS, method=method) for _ in range(2))
        assert first == second
