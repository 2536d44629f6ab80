"""Queueing in closed form against the simulator, its limits and its laws."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_engines import H100, chat, engine, linear, lognormal, served

from catalog.errors import BadInput
from planner.intents import SLO
from planner.queueing import (
    Engine,
    EngineRules,
    Transfer,
    capacity,
    goodput,
    kv_aware_seqs,
    latencies,
    rules_for,
    with_replicas,
)
from planner.queueing.queue import FINE, capacity_of, goodput_in, latencies_in, ready, tail_in
from planner.queueing.side import LEAST_REQUESTS, RANDOM, ROUND_ROBIN, seen_ca2
from planner.queueing.summary import summarize
from planner.simulate import simulate, simulate_disaggregated
from planner.workload import Requests

A100 = linear(a=9.5e-3, b=9.3e-5, c=8.2e-8, q=4.2e-9)
LINK = Transfer(bandwidth=25e9, latency_s=1e-4, kv_bytes_per_token=131_072.0)


def conversation(n: int = 4096, **more: float) -> Requests:
    """Long prompts, middling answers."""
    return served(prompt=lognormal(1155, 0.96, n), output=lognormal(211, 0.77, n, seed=1), **more)


def saturation(one: Engine, requests: Requests) -> float:
    """Finished per second in the middle of a run in which everybody waits from the start."""
    n = len(requests.prompt)
    flood = replace(requests, arrival_s=np.zeros(n))
    ends = np.sort((seen := simulate(one, flood, n=n)).sent_s + seen.e2e_s)
    low, high = n // 4, 3 * n // 4
    return (high - low) / float(ends[high] - ends[low])


@pytest.mark.parametrize(
    ("limits", "binding"),
    [
        ({"max_num_seqs": 32}, "max_num_seqs"),
        ({"max_num_seqs": 128}, "max_num_seqs"),
        ({"max_num_seqs": 512, "max_num_batched_tokens": 512}, "max_num_batched_tokens"),
    ],
)
def test_capacity_is_the_saturation_rate(limits: dict[str, int], binding: str) -> None:
    """Off the KV limit the bound is what a flooded engine finishes, to 2 %."""
    one = engine(A100, **limits)
    bound = capacity(one, conversation(8000))
    assert bound.binding == binding
    assert bound.rate == pytest.approx(saturation(one, conversation(8000)), rel=0.02)


def test_capacity_by_kv_space_is_near() -> None:
    """Where KV space binds the bound is optimistic, by at most a quarter with whole prompts reserved."""
    small = engine(A100, kv_tokens=40_000, max_model_len=16_384)
    bound = capacity(small, conversation())
    assert bound.binding == "kv"
    assert 0.97 <= bound.rate / saturation(small, conversation()) <= 1.25


def test_replicas_add_capacity() -> None:
    """Capacity, unlike goodput, is additive in replicas and in a replica's engines."""
    one = capacity(engine(H100), chat()).rate
    assert capacity(engine(H100), chat(), replicas=3).rate == pytest.approx(3 * one)
    assert capacity(engine(replace(H100, engines=2)), chat()).rate == pytest.approx(2 * one)


def test_beyond_capacity_is_unstable_and_has_no_number() -> None:
    """A rate beyond the bound is said to be unstable; no latency is given."""
    found = latencies(engine(H100), chat(), rate=1.01 * capacity(engine(H100), chat()).rate)
    assert not found.stable
    assert math.isnan(found.ttft.p90)
    assert math.isnan(found.tpot.mean)


def test_an_unloaded_engine_by_hand() -> None:
    """Nearly alone, TTFT is the prompt's own step and TPOT a step of one."""
    alone = latencies(engine(linear(a=10e-3, b=1e-4)), served(prompt=100, output=101), rate=1e-4)
    assert alone.ttft.mean == pytest.approx(0.020, rel=0.01)
    assert alone.tpot.mean == pytest.approx(0.0101, rel=0.01)
    assert alone.e2e.p50 == pytest.approx(0.020 + 100 * 0.0101, rel=0.01)


@pytest.mark.parametrize("load", [0.4, 0.7])
@pytest.mark.parametrize("cv", [1.0, 1.5])
@pytest.mark.parametrize("predictor", [H100, A100], ids=["H100", "A100"])
def test_latencies_are_the_simulators(predictor: object, load: float, cv: float) -> None:
    """Mean TTFT and TPOT, and their P90, within a tenth (a fifth with bursts) of a long simulation."""
    one = engine(predictor)
    for requests in (chat(20_000, cv=cv), conversation(20_000, cv=cv)):
        rate = load * capacity(one, requests).rate
        found, seen = latencies(one, requests, rate=rate), simulate(one, requests, rate=rate)
        ttft, tpot = seen.quantiles(seen.ttft_s), seen.quantiles(seen.tpot_s)
        tolerance = 0.1 if cv == 1 else 0.2
        assert found.tpot.mean == pytest.approx(tpot.mean, rel=tolerance / 2)
        assert found.tpot.p90 == pytest.approx(tpot.p90, rel=tolerance)
        assert found.ttft.mean == pytest.approx(ttft.mean, rel=tolerance + 0.05)
        assert found.ttft.p90 == pytest.approx(ttft.p90, rel=tolerance + 0.1)
        assert found.e2e.p50 == pytest.approx(seen.quantiles(seen.e2e_s).p50, rel=0.1)


def test_a_pair_is_the_simulated_pair() -> None:
    """Prefill, link and decode side together give the simulated TTFT; TPOT is the decode side's alone."""
    both, requests = (engine(H100), engine(H100)), conversation(20_000)
    queue = ready(both, requests, replicas=(1, 1), transfer=LINK, quantiles=FINE)
    rate = 0.6 * capacity_of(queue).rate
    found, seen = latencies_in(queue, rate, None), simulate_disaggregated(*both, requests, transfer=LINK, rate=rate)
    assert found.ttft.mean == pytest.approx(seen.ttft_s[seen.steady].mean(), rel=0.15)
    assert found.tpot.p90 == pytest.approx(seen.quantiles(seen.tpot_s).p90, rel=0.05)


def test_a_slow_link_binds() -> None:
    """With little bandwidth the link is the limit of a disaggregated pair: 1 / mean transfer time."""
    slow = replace(LINK, bandwidth=0.5e9)
    queue = ready((engine(H100), engine(H100)), conversation(), replicas=(2, 2), transfer=slow)
    bound = capacity_of(queue)
    assert bound.binding == "link"
    moved = 1e-4 + conversation().prompt.mean() * 131_072 / 0.5e9
    assert bound.rate == pytest.approx(2 / moved, rel=0.01)


def test_a_pair_cannot_exceed_either_side() -> None:
    """The pair's capacity is the least of prefill side, decode side and link."""
    requests = conversation()
    pair = capacity_of(ready((engine(H100), engine(A100)), requests, replicas=(2, 3), transfer=LINK))
    prompts = capacity(engine(H100), replace(requests, output=np.ones_like(requests.output)), replicas=2).rate
    assert pair.rate <= prompts * 1.001


BURSTY = {cv: chat(cv=cv) for cv in (1.0, 1.5, 2.0, 3.0)}
SLOS = st.builds(
    lambda ttft, tpot: SLO(ttft=f"{ttft} ms", tpot=f"{tpot} ms"), st.integers(30, 3000), st.integers(8, 100)
)


@settings(max_examples=60)
@given(SLOS, st.floats(1.0, 3.0), st.sampled_from([1.0, 1.5, 2.0, 3.0]), st.booleans())
def test_a_looser_slo_never_lowers_goodput(slo: SLO, looser: float, cv: float, joint: bool) -> None:  # noqa: FBT001 - hypothesis
    """Longer limits or a lower attainment never lower the highest rate that meets them, nor exceed the capacity.

    Exactly, also under bursts at limits near the unloaded latency, where attainment itself bends along the rate.
    """
    requests = BURSTY[cv]
    slo = slo.model_copy(update={"joint": joint})
    longer = slo.model_copy(update={"ttft": slo.ttft * looser, "tpot": slo.tpot * looser})
    base = goodput(engine(H100), requests, slo)
    assert goodput(engine(H100), requests, longer) >= base
    assert goodput(engine(H100), requests, slo.model_copy(update={"attainment": 0.8})) >= base
    assert base <= capacity(engine(H100), requests).rate


@settings(max_examples=30)
@given(SLOS, st.sampled_from(["a", "b", "q"]), st.floats(1.0, 1.5))
def test_a_slower_engine_never_has_more_goodput(slo: SLO, which: str, slower: float) -> None:
    """More overhead, more time per token or more attention never raises goodput."""
    times = {"a": 6.5e-3, "b": 2.7e-5, "c": 4.9e-8, "q": 1.3e-9}
    fast, slow = (linear(**(times | {which: times[which] * x})) for x in (1.0, slower))
    assert goodput(engine(slow), conversation(), slo) <= goodput(engine(fast), conversation(), slo) * 1.005


def test_goodput_solves_its_attainment() -> None:
    """At the goodput the attainment is what was asked for; a little above it is less."""
    slo, requests = SLO(ttft="200 ms", tpot="20 ms"), conversation()
    queue = ready((engine(H100),), requests)
    rate = goodput_in(queue, slo)
    assert latencies_in(queue, rate, slo).attainment == pytest.approx(0.9, abs=0.002)
    assert latencies_in(queue, 1.03 * rate, slo).attainment < 0.9


def test_joint_attainment_is_no_more_than_marginal() -> None:
    """Meeting all limits at once is harder than each by itself."""
    limits = {"ttft": "200 ms", "tpot": "20 ms"}
    marginal, joint = (goodput(engine(H100), conversation(), SLO(**limits, joint=joint)) for joint in (False, True))
    assert 0 < joint < marginal


def test_an_impossible_slo_has_no_goodput() -> None:
    """A limit below one step is met at no rate."""
    assert goodput(engine(H100), chat(), SLO(tpot="1 ms")) == 0.0


def test_kv_space_caps_the_sequences() -> None:
    """Below the preemption cliff: 0.9 of what the space holds on average; not where it holds few, or more than run."""
    requests = served(prompt=lognormal(500, 1.0, 4096), output=lognormal(2000, 1.0, 4096, seed=1))
    tight = engine(A100, kv_tokens=150_000, max_num_seqs=512)
    held = requests.prompt + (requests.output - 1) / 2  # a resident's mean, weighted by its time there
    slots = 150_000 / float((held * requests.output).sum() / requests.output.sum())
    assert kv_aware_seqs(tight, requests) == pytest.approx(0.9 * slots, rel=0.02)
    assert kv_aware_seqs(engine(A100, max_num_seqs=16), requests) == 16
    assert kv_aware_seqs(engine(A100, kv_tokens=16_384, max_model_len=16_384), requests) == 256


def test_the_cap_removes_preemption() -> None:
    """With the cap a reasoning workload hardly preempts, and more requests finish per second."""
    requests = served(prompt=lognormal(500, 1.0, 2000), output=lognormal(2000, 1.0, 2000, seed=1))
    free = engine(A100, kv_tokens=150_000, max_num_seqs=512)
    capped = engine(A100, kv_tokens=150_000, max_num_seqs=kv_aware_seqs(free, requests))
    flood = replace(requests, arrival_s=np.zeros(2000))
    assert simulate(capped, flood).preemptions < 0.2 * simulate(free, flood).preemptions
    assert saturation(capped, requests) > saturation(free, requests)


def test_routers_smooth_arrivals() -> None:
    """Random thinning nears Poisson, round robin and least requests near a clock."""
    assert seen_ca2(4.0, 4, RANDOM) == 1.75
    assert seen_ca2(4.0, 4, ROUND_ROBIN) == seen_ca2(4.0, 4, LEAST_REQUESTS) == 1.0
    assert seen_ca2(2.0, 1, ROUND_ROBIN) == 2.0


@pytest.mark.parametrize("router", ["least_requests", "round_robin", "random"])
def test_other_replica_counts_need_no_new_measurement(router: str) -> None:
    """A queue regrouped is the queue that would be made anew, for pools, ranks and pairs."""
    requests, slo = conversation(cv=1.5), SLO(ttft="400 ms", tpot="25 ms")
    ranks = engine(replace(H100, engines=2))
    one = ready((ranks,), requests, router=router)
    assert goodput_in(with_replicas(one, (3,)), slo) == goodput_in(
        ready((ranks,), requests, replicas=(3,), router=router), slo
    )
    pair = ready((ranks, engine(A100)), requests, replicas=(1, 1), transfer=LINK, router=router)
    anew = ready((ranks, engine(A100)), requests, replicas=(2, 5), transfer=LINK, router=router)
    assert goodput_in(with_replicas(pair, (2, 5)), slo) == goodput_in(anew, slo)


TTFT_ALONE = replace(H100, ttft_interval=(0.6, 1.8))


def test_the_slow_end_of_ttft_has_an_interval_of_its_own() -> None:
    """At the slow end TTFT is at least its own interval's end times the middle's; TPOT is the slow steps'."""
    whole, plain = engine(TTFT_ALONE).slowest(), engine(H100).slowest()
    rate = 0.3 * capacity(engine(H100), conversation()).rate
    slo = SLO(ttft="400 ms", tpot="25 ms")
    middle, slow, steps = (tail_in(ready((e,), conversation()), rate, slo) for e in (engine(H100), whole, plain))
    assert slow[0] == pytest.approx(1.8 * middle[0])
    assert steps[0] < 1.3 * middle[0]
    assert slow[1] == steps[1] > middle[1]


@pytest.mark.parametrize("joint", [False, True])
def test_the_slow_goodput_keeps_both(joint: bool) -> None:  # noqa: FBT001 - a parameter
    """Where TTFT decides, its interval lowers the slow end's goodput; where TPOT does, the slow steps alone do."""
    whole, plain = engine(TTFT_ALONE).slowest(), engine(H100).slowest()
    tight, loose = (SLO(ttft=ttft, tpot="40 ms", joint=joint) for ttft in ("250 ms", "20 s"))
    assert goodput(whole, conversation(), tight) < 0.9 * goodput(plain, conversation(), tight)
    assert goodput(whole, conversation(), loose) == goodput(plain, conversation(), loose)
    eased = SLO(ttft=f"{0.25 / 1.8} s", tpot=f"{0.04 / 1.1} s" if joint else None, joint=joint)
    both = min(goodput(engine(H100), conversation(), eased), goodput(plain, conversation(), tight))
    assert goodput(whole, conversation(), tight) == pytest.approx(both, rel=0.01)


def test_bursts_lower_goodput_and_replicas_win_it_back() -> None:
    """Goodput falls with the arrivals' variation; per replica it rises with replicas behind a router that deals."""
    slo = SLO(ttft="400 ms", tpot="25 ms")
    calm, bursty = (goodput(engine(H100), conversation(cv=cv), slo) for cv in (1.0, 2.0))
    assert bursty < calm
    assert goodput(engine(H100), conversation(cv=2.0), slo, replicas=8) / 8 > bursty


def test_summaries_keep_the_moments() -> None:
    """Bins carry all requests and the means of the sample, as the engine takes it."""
    requests = conversation()
    small = summarize(requests)
    assert small.share.sum() == pytest.approx(1.0)
    assert small.share @ small.prompt == pytest.approx(requests.prompt.mean(), rel=0.002)
    assert small.d1 == pytest.approx((requests.output - 1).mean())
    cut = summarize(requests, 16, 1000)
    assert cut.prompt.max() < 1000


def test_what_vllm_refuses_loads_nothing() -> None:
    """Requests without output, and prompts that leave no room, take no part in the closed form."""
    mixed = summarize(served(prompt=[100, 100, 5000], output=[20, 0, 20]), 16, 4096)
    alone = summarize(served(prompt=[100], output=[20]), 16, 4096)
    assert mixed[-6:-1] == alone[-6:-1]
    assert (mixed.taken, alone.taken) == (1 / 3, 1.0)


def test_nothing_that_fits_is_bad_input() -> None:
    """A workload that the engine refuses as a whole has no queue."""
    with pytest.raises(BadInput, match="max_model_len"):
        capacity(engine(H100, max_model_len=100), served(prompt=500, output=5))


@pytest.mark.parametrize("change", [{"max_num_seqs": 0}, {"kv_tokens": 0}, {"kv_tokens": 1000, "max_model_len": 2000}])
def test_engines_that_vllm_would_not_start_are_refused(change: dict[str, int]) -> None:
    """No sequences, no KV space, or less than one longest request."""
    with pytest.raises(BadInput, match=r"engine|max_model_len"):
        engine(H100, **change)


def test_rules_follow_the_version() -> None:
    """`scheduler_reserve_full_isl` is on from 0.19; shares out of range and other names are refused."""
    assert not rules_for("0.18.1").reserve_full_isl
    assert rules_for("0.19.0").reserve_full_isl
    assert rules_for("0.32.0") == EngineRules()
    for broken in (lambda: rules_for("new"), lambda: EngineRules(watermark=1.5), lambda: EngineRules(overlap=-0.1)):
        with pytest.raises(BadInput):
            broken()


@pytest.mark.parametrize("replicas", [(0,), (1, 1)])
def test_replicas_must_match_the_engines(replicas: tuple[int, ...]) -> None:
    """Each engine has at least one replica, a pair its transfer."""
    with pytest.raises(BadInput, match="replicas"):
        ready((engine(H100),), chat(), replicas=replicas)


@pytest.mark.parametrize(("cv", "bandwidth"), [(0.5, 1e9), (0.5, 25e9), (1.0, 1.5e9), (2.0, 1.5e9)])
def test_more_replicas_of_either_side_never_lower_goodput(cv: float, bandwidth: float) -> None:
    """Prefill or decode replicas added to a pair never lower its goodput (to the chord's thousandth)."""
    requests = served(prompt=lognormal(2700, 0.8, 800), output=lognormal(140, 0.7, 800, seed=1), cv=cv)
    link = Transfer(bandwidth=bandwidth, latency_s=1e-3, kv_bytes_per_token=131_072.0)
    pair = ready((engine(H100), engine(H100)), requests, replicas=(1, 1), transfer=link)
    slo, counts = SLO(ttft="1.9 s", tpot="23 ms", attainment=0.99), [(x, y) for x in (1, 2, 4) for y in (1, 2, 4)]
    found = {each: goodput_in(with_replicas(pair, each), slo) for each in counts}
    for (x, y), rate in found.items():
        for (more_x, more_y), more in found.items():
            if more_x >= x and more_y >= y:
                assert more >= rate * (1 - 1e-3)


def test_bursts_wait_for_the_link() -> None:
    """Where the link is the limit, prompts that come in clumps wait longer for it than prompts that come evenly."""
    link = Transfer(bandwidth=1.5e9, latency_s=1e-3, kv_bytes_per_token=131_072.0)
    ttft = []
    for cv in (0.5, 1.0, 2.0):
        requests = served(prompt=lognormal(2700, 0.8, 800), output=lognormal(140, 0.7, 800, seed=1), cv=cv)
        pair = ready((engine(H100), engine(H100)), requests, replicas=(1, 1), transfer=link)
        ttft.append(latencies_in(pair, 0.6 * capacity_of(pair).rate, None).ttft.p90)
    assert ttft[0] < ttft[1] < ttft[2]
