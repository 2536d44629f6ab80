"""The event-jumping simulator against its plain twin, event for event."""

from __future__ import annotations

import numpy as np
import pytest
from made_engines import Case, random_case

from planner.simulate import Simulation, simulate, simulate_closed


def serve(case: Case, *, closed: bool, plain: bool) -> Simulation:
    """One case under open or closed load."""
    shared = {"replicas": case.replicas, "router": case.router, "rules": case.rules, "plain": plain}
    if closed:
        return simulate_closed(case.engine, case.requests, concurrency=case.concurrency, num_prompts=case.n, **shared)
    return simulate(case.engine, case.requests, rate=case.rate, n=case.n, **shared)


def agree(case: Case, *, closed: bool) -> int:
    """Compare every event of both versions; returns the preemptions seen."""
    fast, plain = (serve(case, closed=closed, plain=each) for each in (False, True))
    for one, other in ((fast.ttft_s, plain.ttft_s), (fast.e2e_s, plain.e2e_s), (fast.queue_s, plain.queue_s)):
        assert np.abs(one - other).max() <= 1e-9 * plain.makespan_s
    assert np.array_equal(fast.engine, plain.engine)
    counted = (fast.preemptions, fast.iterations, fast.kv_peak, fast.refused)
    assert counted == (plain.preemptions, plain.iterations, plain.kv_peak, plain.refused)
    assert fast.itl_counts.sum() == pytest.approx(plain.itl_counts.sum(), abs=0.5)
    return fast.preemptions


def all_agree(cases: int, seed: int) -> None:
    """Random engines under random loads; some of them must preempt, or the test proves little."""
    rng = np.random.default_rng(seed)
    seen = sum(agree(random_case(rng), closed=bool(rng.integers(0, 3) == 2)) for _ in range(cases))
    assert seen > 10 * cases


def test_both_versions_agree_on_200_random_cases() -> None:
    """Routers, closed loops, preemption, prefix hits, watermarks: times to 1e-9, counters exactly."""
    all_agree(200, seed=1)


@pytest.mark.slow
def test_both_versions_agree_on_1500_random_cases() -> None:
    """The same at length."""
    all_agree(1500, seed=2)


def test_a_run_obeys_the_laws_of_conservation() -> None:
    """Every request taken is finished once, in causal order, with its tokens counted and no clock running backwards."""
    rng = np.random.default_rng(3)
    for _ in range(30):
        case = random_case(rng)
        seen = serve(case, closed=False, plain=False)
        assert np.isfinite(seen.e2e_s).all()
        assert (seen.queue_s >= 0).all()
        assert (seen.ttft_s >= seen.queue_s).all()
        assert (seen.e2e_s >= seen.ttft_s - 1e-12).all()
        assert 0 < seen.kv_peak <= 1
        assert seen.busy_s <= seen.engines * seen.makespan_s * (1 + 1e-9)
        # each decode of each request is one gap between tokens
        assert seen.itl_counts.sum() == pytest.approx((seen.output - 1).sum(), abs=0.5)


def test_the_same_seed_is_the_same_run() -> None:
    """Two runs give the same bytes; another seed gives others."""
    case = random_case(np.random.default_rng(4))
    first, second = (simulate(case.engine, case.requests, rate=2.0, n=200, seed=9) for _ in range(2))
    other = simulate(case.engine, case.requests, rate=2.0, n=200, seed=10)
    assert first.e2e_s.tobytes() == second.e2e_s.tobytes() != other.e2e_s.tobytes()
