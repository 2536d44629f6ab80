"""Simulated load against closed forms, hand-made examples and vLLM's rules."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_engines import H100, chat, engine, linear, served

from catalog.errors import BadInput
from planner.intents import SLO
from planner.queueing import EngineRules
from planner.simulate import Burst, simulate, simulate_closed, simulate_static

#: One request at a time, whose only cost is its prompt: a plain queue. 1 ms a token.
SERVER = engine(linear(a=0.0, b=1e-3), max_num_seqs=1, max_num_batched_tokens=20_000)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_m_d_1(load: float) -> None:
    """Poisson arrivals at one server of fixed service S wait ρS / 2(1-ρ) on average (Pollaczek and Khinchine)."""
    n, service = 200_000, 0.1
    seen = simulate(SERVER, served(prompt=100, output=1), rate=load / service, n=n)
    expected = load * service / (2 * (1 - load))
    assert seen.queue_s[seen.steady].mean() == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_m_m_1(load: float) -> None:
    """With exponential services a request stays S / (1-ρ), and its stay is exponential: P90 = mean·ln 10."""
    n, service = 200_000, 0.4
    prompt = np.maximum(1, np.rint(-400 * np.log1p(-(np.arange(n) + 0.5) / n))).astype(np.int64)
    seen = simulate(SERVER, served(prompt=prompt, output=1), rate=load / service, n=n)
    stay = seen.quantiles(seen.e2e_s)
    assert stay.mean == pytest.approx(service / (1 - load), rel=0.07)
    assert stay.p90 == pytest.approx(service / (1 - load) * np.log(10), rel=0.07)


def test_littles_law() -> None:
    """Requests in the system over time are the arrival rate times the mean stay, and busy time is work."""
    requests = chat(20_000)
    seen = simulate(engine(H100), requests, rate=20.0)
    left = seen.sent_s + seen.e2e_s
    asked = np.random.default_rng(0).uniform(left[2000], seen.sent_s[-1], 4000)
    present = np.searchsorted(seen.sent_s, asked) - np.searchsorted(np.sort(left), asked)
    assert present.mean() == pytest.approx(20.0 * seen.e2e_s.mean(), rel=0.03)


def test_a_lonely_request_by_hand() -> None:
    """Prompt 100, output 3 on 10 ms + 0.1 ms a token: 20 ms, then two steps of 10.1 ms; the ends add their own."""
    predictor = linear(a=10e-3, b=1e-4, request_s=0.5, output_token_s=2e-3)
    seen = simulate_static(engine(predictor), batch=1, prompt=100, output=3)
    assert seen.ttft_s[0] == pytest.approx(0.5 + 0.020)
    assert seen.tpot_s[0] == pytest.approx(0.0101 + 2e-3)
    assert seen.e2e_s[0] == pytest.approx(0.5 + 0.020 + 2 * (0.0101 + 2e-3))
    assert seen.makespan_s == pytest.approx(seen.e2e_s[0])


def test_a_static_batch_by_hand() -> None:
    """Four prompts of 300 in chunks of at most 512 tokens: 512, 512, 176 tokens; all first tokens within 3 steps."""
    tight = engine(linear(a=10e-3, b=1e-4), max_num_batched_tokens=512)
    seen = simulate_static(tight, batch=4, prompt=300, output=1)
    ends = np.cumsum([10e-3 + 1e-4 * tokens for tokens in (512, 512, 176)])
    assert seen.ttft_s == pytest.approx([ends[0], ends[1], ends[1], ends[2]])
    assert seen.iterations == 3


def test_decodes_share_a_long_prompts_steps() -> None:
    """While 4,000 tokens are computed in chunks of 512 less the decodes, a decoding request gets a token each step."""
    tight = engine(linear(a=10e-3, b=1e-4), max_num_batched_tokens=512)
    requests = served(prompt=[10, 4000], output=[50, 2], arrival_s=np.array([0.0, 0.001]))
    seen = simulate(tight, requests, router="round_robin")
    # one step for the first prompt, one that was scheduled before the second came, and eight of 511 tokens for it
    # (8·511 = 4,088 >= 4,000)
    assert seen.ttft_s[1] == pytest.approx(0.011 - 0.001 + 0.0101 + 8 * 0.010 + (8 + 4000) * 1e-4)


def test_async_scheduling_decides_one_step_ahead() -> None:
    """A request that comes while a step runs waits for the next one too; an idle engine takes it at once."""
    for lookahead, waits in ((0, 0.008), (1, 0.018)):
        requests = served(prompt=[10, 10], output=[50, 2], arrival_s=np.array([0.0, 0.052]))
        seen = simulate(engine(linear(a=10e-3, b=0.0)), requests, rules=EngineRules(lookahead=lookahead))
        assert seen.queue_s == pytest.approx([0.0, waits])


def test_chunks_and_slots_are_vllms() -> None:
    """No more than max_num_seqs run, in order of arrival; the next one enters when one leaves."""
    narrow = engine(linear(a=10e-3, b=0.0), max_num_seqs=2)
    seen = simulate_static(narrow, batch=4, prompt=10, output=5)
    assert seen.queue_s == pytest.approx([0.0, 0.0, 0.05, 0.05])


def test_reserving_the_whole_prompt_holds_admissions_back() -> None:
    """Before vLLM 0.19 a prompt entered when its first chunk fitted, and was preempted later."""
    small = engine(H100, kv_tokens=4096, max_model_len=4096, max_num_batched_tokens=512)
    requests = served(prompt=1500, output=200)
    old, new = (
        simulate(small, requests, rate=3.0, n=400, rules=EngineRules(reserve_full_isl=reserve))
        for reserve in (False, True)
    )
    assert old.preemptions > new.preemptions


def test_refusals_and_cuts_are_vllms() -> None:
    """No room for one token within max_model_len, or none asked for, is refused; a longer answer ends there."""
    short = engine(H100, max_model_len=1000)
    requests = served(prompt=[999, 1000, 1500, 900, 10], output=[5, 5, 5, 500, 0], arrival_s=np.arange(5.0))
    seen = simulate(short, requests)
    assert seen.refused == 3
    assert seen.output.tolist() == [1, 0, 0, 100, 0]
    assert np.isnan(seen.ttft_s).tolist() == [False, True, True, False, True]
    assert np.isnan(seen.tpot_s[[0, 4]]).all()
    assert seen.engine.tolist() == [0, -1, -1, 0, -1]


def test_a_refused_request_meets_no_limit() -> None:
    """Attainment counts refusals as misses."""
    short = engine(H100, max_model_len=1000)
    seen = simulate(short, served(prompt=[10, 2000], output=2, arrival_s=np.array([0.0, 1.0])))
    assert seen.attained(SLO(ttft="9 s", tpot="9 s", e2e="99 s")) == (0.5, 0.5)


def test_nobody_served_is_not_an_error() -> None:
    """A load that vLLM refuses as a whole has no latency."""
    seen = simulate(engine(H100, max_model_len=100), served(prompt=500, output=2), n=10)
    assert seen.refused == 10
    assert np.isnan(seen.quantiles(seen.ttft_s).p99)
    assert np.isnan(seen.itl(0.5)[0])


def test_cached_prefixes_save_time_and_hold_space() -> None:
    """A prefix hit shortens TTFT, in whole blocks and never by the last token; its KV is held all the same."""
    runs = [
        simulate_static(engine(H100), batch=1, prompt=1600, output=2, cached=cached) for cached in (0, 15, 16, 1599)
    ]
    plain, less, block, most = (seen.ttft_s[0] for seen in runs)
    assert less == plain > block > most
    assert len({seen.kv_peak for seen in runs}) == 1
    assert most == pytest.approx(6.5e-3 + 16 * 2.7e-5 + 1.3e-9 * 16 * 1584, rel=1e-9)


def test_async_scheduling_hides_overhead() -> None:
    """The share of the step overhead that overlaps with the GPU vanishes from every step."""
    seen, hidden = (
        simulate_static(
            engine(linear(a=8e-3, b=1e-4)), batch=1, prompt=10, output=11, rules=EngineRules(overlap=overlap)
        )
        for overlap in (0.0, 0.5)
    )
    assert seen.e2e_s[0] - hidden.e2e_s[0] == pytest.approx(11 * 4e-3)


def test_a_closed_loop_keeps_its_clients_busy() -> None:
    """C requests at once at the start, then the next one when one is answered, 10·C in all."""
    requests = chat()
    seen = simulate_closed(engine(replace(H100, request_s=5e-3, output_token_s=1e-4)), requests, concurrency=16)
    assert len(seen.sent_s) == 160
    assert (seen.sent_s[:16] == 0).all()
    left = np.sort(seen.sent_s + seen.e2e_s)
    assert np.sort(seen.sent_s)[16:] == pytest.approx(left[:-16])
    # throughput times mean stay is the number of clients, but for filling and draining (Little)
    assert 160 / seen.makespan_s * seen.e2e_s.mean() == pytest.approx(16, rel=0.25)


def test_a_closed_loop_of_equals_by_hand() -> None:
    """Four clients of equal requests on two replicas: two each, in lockstep waves."""
    seen = simulate_closed(
        engine(linear(a=10e-3, b=0.0)), served(prompt=10, output=5), concurrency=4, num_prompts=12, replicas=2
    )
    assert seen.e2e_s == pytest.approx(np.full(12, 0.05))
    assert np.bincount(seen.engine).tolist() == [6, 6]
    assert seen.makespan_s == pytest.approx(0.15)


def test_routers_share_as_they_say() -> None:
    """Round robin deals in turn; least requests never leaves an engine idle beside a busy one; random is seeded."""
    requests = served(prompt=500, output=200)
    dealt = simulate(engine(H100), requests, rate=4.0, n=300, replicas=3, router="round_robin")
    assert dealt.engine.tolist() == [k % 3 for k in range(300)]
    least = simulate(engine(H100), requests, rate=0.5, n=60, replicas=3)
    for k in range(60):
        held = [
            int(((least.engine[:k] == e) & (least.sent_s[:k] + least.e2e_s[:k] > least.sent_s[k])).sum())
            for e in range(3)
        ]
        assert held[least.engine[k]] == min(held)
    one, two = (simulate(engine(H100), requests, rate=4.0, n=300, replicas=3, router="random", seed=s) for s in (1, 2))
    assert one.engine.tolist() != two.engine.tolist()


def test_batches_in_flight_are_engines_behind_the_router() -> None:
    """Two replicas of two engines each are four servers."""
    staged = engine(replace(H100, engines=2))
    seen = simulate(staged, chat(), rate=10.0, n=400, replicas=2, router="round_robin")
    assert seen.engines == 4
    assert seen.engine.tolist() == [k % 4 for k in range(400)]


@settings(max_examples=25)
@given(st.floats(0.1, 0.8), st.floats(1.02, 2.0), st.integers(0, 9))
def test_more_load_is_never_better(load: float, more: float, seed: int) -> None:
    """With common random numbers a higher rate never shortens the mean TTFT or TPOT."""
    requests = chat(1500)
    light, heavy = (simulate(engine(H100), requests, rate=50.0 * x, n=1500, seed=seed) for x in (load, load * more))
    assert np.nanmean(heavy.tpot_s) >= np.nanmean(light.tpot_s) * 0.999
    assert heavy.ttft_s.mean() >= light.ttft_s.mean() * 0.98


@settings(max_examples=15)
@given(st.integers(20_000, 60_000), st.integers(0, 40_000))
def test_more_memory_never_preempts_more(tokens: int, more: int) -> None:
    """KV space added never adds preemptions beyond chance, and never lengthens the run by more than 1 %."""
    requests = served(prompt=400, output=800)
    small, large = (
        simulate(engine(H100, kv_tokens=size, max_model_len=8192), requests, rate=8.0, n=300)
        for size in (tokens, tokens + more)
    )
    assert large.makespan_s <= small.makespan_s * 1.01


def test_bursts_lengthen_the_tail() -> None:
    """An MMPP of the same mean rate has a longer P99 TTFT than Poisson."""
    calm, stormy = (simulate(engine(H100), chat(8000), rate=30.0, burst=burst) for burst in (None, Burst()))
    assert stormy.quantiles(stormy.ttft_s).p99 > 1.3 * calm.quantiles(calm.ttft_s).p99


def test_the_time_between_tokens_has_quantiles() -> None:
    """A constant step gives constant gaps, to the 2 % of a bin."""
    seen = simulate_static(engine(linear(a=10e-3, b=0.0)), batch=4, prompt=10, output=50)
    assert seen.itl(0.01, 0.5, 0.99) == pytest.approx((0.01, 0.01, 0.01), rel=0.02)


@pytest.mark.parametrize(
    ("change", "said"), [({"replicas": 0}, "replicas"), ({"router": "fastest"}, "router"), ({"rate": -1.0}, "a second")]
)
def test_an_impossible_setting_is_refused(change: dict[str, object], said: str) -> None:
    """Zero replicas, an unknown router or a negative rate is bad input."""
    with pytest.raises(BadInput, match=said):
        simulate(engine(H100), chat(10), **change)


@pytest.mark.parametrize(("clients", "prompts"), [(0, None), (4, 0)])
def test_a_closed_loop_needs_clients_and_prompts(clients: int, prompts: int | None) -> None:
    """No client or no prompt is bad input."""
    with pytest.raises(BadInput, match="concurrency"):
        simulate_closed(engine(H100), chat(10), concurrency=clients, num_prompts=prompts)
