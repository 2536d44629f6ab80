"""Prefill and decode apart: the path of one request, links, both sides' limits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_engines import H100, chat, engine, linear, lognormal, random_case, served

from planner.queueing import Transfer
from planner.queueing.queue import capacity_of, ready
from planner.simulate import simulate, simulate_closed_disaggregated, simulate_disaggregated
from planner.simulate.disaggregated import transfer_times

NVLINK = Transfer(bandwidth=200e9, latency_s=20e-6, kv_bytes_per_token=131_072.0)
ETHERNET = Transfer(bandwidth=1.25e9, latency_s=1e-3, kv_bytes_per_token=131_072.0)


def test_one_request_by_hand() -> None:
    """Prompt step, transfer, and the decode side's first step make the TTFT; the other tokens follow there."""
    side = engine(linear(a=10e-3, b=1e-4))
    seen = simulate_disaggregated(side, side, served(prompt=1000, output=3), transfer=ETHERNET, rate=0.001, n=1)
    moved = 1e-3 + 1000 * 131_072 / 1.25e9
    assert seen.ttft_s[0] == pytest.approx(0.110 + moved + 0.0101)
    assert seen.tpot_s[0] == pytest.approx(0.0101)


def test_a_link_moves_one_prompt_after_another() -> None:
    """Three prompts ready at once on one replica queue for its link; another replica's link is its own."""
    arrived = transfer_times(
        np.array([1.0, 1.0, 1.0, 1.0]), np.array([0, 0, 1, 0]), np.array([100, 200, 50, 10]),
        Transfer(bandwidth=100.0, latency_s=0.5, kv_bytes_per_token=1.0),
    )  # fmt: skip
    assert arrived == pytest.approx([2.5, 5.0, 2.0, 5.6])


def test_both_versions_agree_apart_too() -> None:
    """The event-jumping and the plain simulator agree on both sides, preemption on the decode side included."""
    rng = np.random.default_rng(8)
    seen = 0
    for _ in range(40):
        case = random_case(rng)
        shared = {"transfer": ETHERNET, "rate": case.rate, "replicas": (case.replicas, 1), "router": case.router,
                  "n": case.n,
                  "rules": case.rules}  # fmt: skip
        fast, plain = (
            simulate_disaggregated(case.engine, case.engine, case.requests, **shared, plain=each)
            for each in (False, True)
        )
        assert np.abs(fast.e2e_s - plain.e2e_s).max() <= 1e-9 * plain.makespan_s
        assert np.abs(fast.ttft_s - plain.ttft_s).max() <= 1e-9 * plain.makespan_s
        assert (fast.preemptions, fast.iterations) == (plain.preemptions, plain.iterations)
        seen += fast.preemptions
    assert seen > 100


def test_prompts_no_longer_stall_answers() -> None:
    """Apart, long prompts do not lengthen the time per token of requests that decode."""
    requests = served(prompt=lognormal(3000, 0.8, 3000), output=lognormal(200, 0.7, 3000, seed=1))
    together = simulate(engine(H100), requests, rate=4.0, replicas=2)
    apart = simulate_disaggregated(engine(H100), engine(H100), requests, transfer=NVLINK, rate=4.0)
    assert apart.quantiles(apart.tpot_s).p90 < together.quantiles(together.tpot_s).p90


def test_a_slower_network_is_never_better() -> None:
    """Less bandwidth lengthens TTFT and leaves the time per token alone."""
    shared = {"rate": 3.0, "n": 2000}
    fast, slow = (
        simulate_disaggregated(engine(H100), engine(H100), chat(), transfer=link, **shared)
        for link in (NVLINK, ETHERNET)
    )
    assert (slow.ttft_s.mean() - fast.ttft_s.mean()) > 0.01
    assert np.nanmean(slow.tpot_s) == pytest.approx(np.nanmean(fast.tpot_s), rel=0.02)


@settings(max_examples=10)
@given(st.integers(1, 3), st.integers(1, 3), st.sampled_from([NVLINK, ETHERNET]))
def test_throughput_is_at_most_that_of_either_side(prefill: int, decode: int, link: Transfer) -> None:
    """Flooded, xPyD finishes no more requests per second than its prefill side, link or decode side alone could."""
    requests = served(prompt=lognormal(1500, 0.8, 1500), output=lognormal(100, 0.7, 1500, seed=1))
    seen = simulate_disaggregated(
        engine(H100), engine(H100), requests, transfer=link, rate=1e4, replicas=(prefill, decode), n=1500
    )
    bound = capacity_of(ready((engine(H100), engine(H100)), requests, replicas=(prefill, decode), transfer=link)).rate
    assert 1500 / seen.makespan_s <= 1.08 * bound


def test_what_one_side_cannot_take_is_refused() -> None:
    """A prompt beyond either side's max_model_len is refused; an answer ends at the decode side's."""
    short = engine(H100, max_model_len=600)
    requests = served(prompt=[100, 700, 590], output=[5, 5, 50], arrival_s=np.arange(3.0))
    seen = simulate_disaggregated(engine(H100), short, requests, transfer=NVLINK)
    assert seen.refused == 1
    assert seen.output.tolist() == [5, 0, 10]


@pytest.mark.parametrize(("clients", "prompts"), [(1, 6), (4, 40), (13, 90)])
def test_a_closed_loop_apart_keeps_its_clients_busy(clients: int, prompts: int) -> None:
    """Every request beyond the first ones is sent when an earlier answer ends, and never more than the clients run."""
    side = engine(linear(a=5e-3, b=2e-5))
    requests = served(prompt=lognormal(900, 0.7, 200), output=lognormal(60, 0.8, 200, seed=1))
    seen = simulate_closed_disaggregated(
        side, side, requests, transfer=ETHERNET, concurrency=clients, num_prompts=prompts, replicas=(1, 2)
    )
    ended = seen.sent_s + seen.e2e_s
    assert seen.sent_s[:clients] == pytest.approx(0.0)
    assert seen.sent_s[clients:] == pytest.approx(np.sort(ended)[: prompts - clients], abs=1e-6)
    running = [int(((seen.sent_s <= at) & (ended > at + 1e-6)).sum()) for at in seen.sent_s]
    assert max(running) <= clients


def test_one_client_apart_waits_for_nobody() -> None:
    """With one client each request takes what it takes alone."""
    side = engine(linear(a=10e-3, b=1e-4))
    requests = served(prompt=1000, output=3)
    seen = simulate_closed_disaggregated(
        side, side, requests, transfer=ETHERNET, concurrency=1, num_prompts=5
    )  # fmt: skip
    alone = simulate_disaggregated(side, side, requests, transfer=ETHERNET, rate=0.001, n=1)
    assert seen.e2e_s == pytest.approx(float(alone.e2e_s[0]))
    assert seen.makespan_s == pytest.approx(5 * float(alone.e2e_s[0]))
