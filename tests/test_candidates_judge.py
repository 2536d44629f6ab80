"""The judge of real searches: what it remembers must be what queueing and simulation would say anew."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hand_world import ALONE, CLUSTER, PRICES, found, intent, memory_of, predictor_of

from catalog.power import load_power
from planner.candidates.judge import Queueing
from planner.goodput import estimate
from planner.intents import SLO
from planner.queueing import Engine, Transfer, capacity, goodput, rules_for
from planner.queueing.queue import goodput_in, ready
from planner.strategies import Collocated, Configuration, Disaggregated, Pool
from planner.workload import realize

WISH = intent()
REQUESTS = realize(WISH.workload, n=512)


def engine(**changes) -> Engine:
    """One engine of the hand-made world."""
    configuration = Configuration(model="dense-8b", gpu="big", max_num_seqs=128, max_model_len=4096, **changes)
    held = memory_of(configuration)
    return Engine(
        predictor=predictor_of(configuration),
        kv_tokens=held.kv_tokens,
        max_num_seqs=128,
        max_model_len=4096,
        kv_bytes_per_token=held.kv_bytes_per_token,
    )


@pytest.mark.parametrize("replicas", [1, 3, 17])
def test_other_replica_counts_equal_a_fresh_measurement(replicas):
    """One replica is measured; the goodput of any number of them is exactly what measuring them anew gives."""
    judge, one = Queueing(), engine()
    expected = goodput(one, REQUESTS, WISH.slo, replicas=replicas)
    assert judge.goodput((one,), REQUESTS, WISH.slo, replicas=(replicas,)) == expected
    assert judge.capacity((one,), REQUESTS) == capacity(one, REQUESTS).rate


def test_pairs_equal_a_fresh_measurement():
    """The same for prefill and decode replicas and their links."""
    judge, sides = Queueing(), (engine(tp=2), engine(tp=4))
    transfer = Transfer(bandwidth=5e9, latency_s=1e-4, kv_bytes_per_token=131072.0)
    queue = ready(sides, REQUESTS, replicas=(3, 2), transfer=transfer)
    assert judge.goodput(sides, REQUESTS, WISH.slo, replicas=(3, 2), transfer=transfer) == goodput_in(queue, WISH.slo)
    prompts, tokens = judge.sides(sides, REQUESTS, transfer)
    assert judge.capacity(sides, REQUESTS, transfer=transfer) == pytest.approx(min(prompts, tokens))


def test_one_simulation_agrees_with_the_bracket():
    """An SLO holds well below the simulated goodput and breaks well above it."""
    judge, one = Queueing(), engine()
    pool = Pool(configuration=Configuration(model="dense-8b", gpu="big"), replicas=2, node_pool="big-a")
    best = estimate(Collocated(pool=pool), (one,), REQUESTS, WISH.slo, method="simulated").goodput
    for factor, expected in ((0.85, True), (1.15, False)):
        at = type(REQUESTS)(
            rate=factor * best,
            prompt=REQUESTS.prompt,
            output=REQUESTS.output,
            cached=REQUESTS.cached,
            arrival_cv=REQUESTS.arrival_cv,
        )
        assert judge.holds((one,), at, WISH.slo, replicas=(2,)) is expected


@pytest.mark.parametrize("factor", [0.9, 0.98, 1.0, 1.02, 1.1])
@pytest.mark.parametrize(("cv", "ttft_interval"), [(1.0, None), (2.0, None), (1.0, (0.5, 2.0))])
def test_one_simulation_says_whether_an_estimate_covers_its_rate(factor, cv, ttft_interval):
    """It is the very one that an estimate makes of its slow end there, so the two never disagree."""
    judge, base = Queueing(), engine()
    one = base.paced(replace(base.predictor, decode_interval=(0.8, 1.2), ttft_interval=ttft_interval))
    load = replace(REQUESTS, arrival_cv=cv)
    near = factor * judge.goodput((one.slowest(),), load, WISH.slo, replicas=(2,))
    load = replace(load, rate=near)
    pool = Pool(configuration=Configuration(model="dense-8b", gpu="big"), replicas=2, node_pool="big-a")
    low = judge.estimate(Collocated(pool=pool), (one,), load, WISH.slo, method="simulated").goodput_low
    assert judge.holds((one.slowest(),), load, WISH.slo, replicas=(2,)) == (low >= near * (1 - 1e-9))


def test_one_simulation_of_a_pair_agrees_with_the_bracket():
    """The same for prefill and decode replicas with their links."""
    judge, sides = Queueing(), (engine(tp=2), engine(tp=4))
    sides = tuple(replace(side, kv_bytes_per_token=131072.0) for side in sides)
    transfer = Transfer(bandwidth=5e9, latency_s=1e-4, kv_bytes_per_token=131072.0)
    here = Configuration(model="dense-8b", gpu="big")
    pools = {
        name: Pool(configuration=here, replicas=n, node_pool="big-a") for name, n in (("prefill", 2), ("decode", 1))
    }
    pair = Disaggregated(**pools, transfer_bandwidth=5e9, transfer_latency=1e-4)
    best = estimate(pair, sides, REQUESTS, WISH.slo, method="simulated").goodput
    for factor, expected in ((0.85, True), (1.15, False)):
        at = replace(REQUESTS, rate=factor * best)
        assert judge.holds(sides, at, WISH.slo, replicas=(2, 1), transfer=transfer) is expected


def test_the_rules_of_the_version_reach_every_method():
    """A vLLM that schedules no step ahead answers sooner: in closed form, in simulation, and in one simulation."""
    ahead, behind = (Queueing(rules=rules_for(version)) for version in ("0.32.0", "0.12.0"))
    one, pool = engine(), Pool(configuration=Configuration(model="dense-8b", gpu="big"), replicas=1, node_pool="big-a")
    strategy, load = Collocated(pool=pool), replace(REQUESTS, rate=5.0)
    for method in ("closed_form", "simulated"):
        late, soon = (judge.estimate(strategy, (one,), load, WISH.slo, method=method) for judge in (ahead, behind))
        assert soon.ttft.mean < late.ttft.mean - 2e-3
    idle = [judge.latency(one, load, WISH.slo, rate=1.0, replicas=1)["ttft"] for judge in (ahead, behind)]
    assert idle[1] < idle[0]
    between = SLO(ttft=f"{(late.ttft.p90 + soon.ttft.p90) / 2} s")
    assert [judge.holds((one,), load, between, replicas=(1,)) for judge in (ahead, behind)] == [False, True]


def test_the_slow_end_of_ttft_reaches_every_answer():
    """An engine at its slow end whose TTFT has an interval of its own: latency, goodput and one simulation know it."""
    judge, base = Queueing(), engine()
    whole = base.paced(replace(base.predictor, ttft_interval=(0.5, 2.0)))
    plain, wide = base.slowest(), whole.slowest()
    load, slo = replace(REQUESTS, rate=5.0), SLO(ttft="120 ms", tpot="50 ms")
    before, after = (judge.latency(each, load, slo, rate=1.0, replicas=1) for each in (plain, wide))
    assert after["ttft"] > 1.3 * before["ttft"]
    assert after["tpot"] == before["tpot"]
    before, after = (judge.goodput((each,), load, slo, replicas=(1,)) for each in (plain, wide))
    assert after < before
    at = replace(REQUESTS, rate=0.5 * (before + after))
    assert judge.holds((plain,), at, slo, replicas=(1,))
    assert not judge.holds((wide,), at, slo, replicas=(1,))


def test_a_judge_keeps_what_it_measured_last(monkeypatch):
    """Its memory is bounded, and what it forgot it measures again."""
    monkeypatch.setattr("planner.candidates.judge.KEPT", 2)
    judge, engines = Queueing(), [engine() for _ in range(5)]
    found = [judge.capacity((each,), REQUESTS) for each in engines]
    assert len(judge.queues) <= 2
    assert len(set(found)) == 1


def test_a_real_search_is_simulated_and_repeatable():
    """With queueing as the judge whole candidates are simulated, cover the rate, and come out the same twice."""
    one, two = (found(WISH, cluster=ALONE, judge=None, simulated=3) for _ in range(2))
    assert one == two
    whole = [candidate for candidate in one.candidates if candidate.share == 1.0]
    assert whole
    assert all(candidate.estimate.method == "simulated" for candidate in whole)
    assert all(candidate.estimate.goodput_low >= 20.0 for candidate in whole)


def test_owned_hardware_pays_for_its_power():
    """Where the cluster prices power, watts of an owned pool are added to its price, facility included."""
    pools = tuple(pool.model_copy(update={"tier": "owned"}) for pool in CLUSTER.pools)
    owned = CLUSTER.model_copy(update={"pools": pools, "power_price": 0.3, "power_overhead": 1.5})
    best = found(WISH, cluster=owned, watts=load_power()).candidates[0]
    pool = best.strategy.pools[0]
    watts = best.estimate.watts_per_gpu
    assert 100.0 < watts <= 700.0
    assert best.cost_per_hour == pytest.approx(pool.gpus * (PRICES[pool.node_pool] + 1.5 * 0.3 * watts / 1000))
