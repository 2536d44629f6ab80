"""The search of strategies, against a judge whose answers can be worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import pytest
from hand_world import (
    ALONE,
    CLUSTER,
    GPUS,
    LAYER,
    MODEL,
    MOE_MODEL,
    PRICES,
    HandJudge,
    cheapest,
    found,
    intent,
    memory_of,
    predictor_of,
    quality_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.cluster import Cluster, NodePool
from planner.candidates import SHARES, screen, search
from planner.candidates.front import across_nodes, undominated
from planner.candidates.options import Facts, seqs_cap
from planner.candidates.sizing import lost_with_node, with_reserve
from planner.candidates.space import GRID, Place, hosts, link_domain, offered, split_refusal, splits
from planner.candidates.tally import Tally
from planner.candidates.verify import fewest
from planner.intents import SLO, Availability
from planner.queueing import Engine
from planner.strategies import Collocated, Configuration, Pool, Rejection
from planner.workload import realize


@given(st.integers(1, 60), st.integers(0, 15), st.integers(0, 40))
def test_replicas_grow_to_the_fewest_that_hold(least, short, beyond):
    """From too few, the first count that holds is found in few tries; where the most fall short, none is."""
    asked, true = [], least + short

    def kept(n):
        asked.append(n)
        return n >= true

    assert fewest(kept, least, true + beyond) == true
    assert len(asked) <= 10
    assert max(asked) <= true + beyond
    assert fewest(lambda n: n >= true, least, true - 1) is None or short == 0


def test_the_cheapest_is_found():
    """Against brute force over every option and replica count: no cheaper way to serve the whole rate exists."""
    wish = intent()
    requests, judge, best = realize(wish.workload, n=256), HandJudge(), math.inf
    price = {"big": 2.0, "small": 0.6}
    for name in ("big", "small"):
        for tp in (1, 2, 4, 8):
            for quantization, kv_dtype, (seqs, tokens) in product(("bf16", "fp8"), ("bf16", "fp8"), GRID):
                configuration = Configuration(
                    model="dense-8b", gpu=name, tp=tp, quantization=quantization, kv_dtype=kv_dtype,
                    max_num_seqs=seqs, max_num_batched_tokens=tokens, max_model_len=2560,
                )  # fmt: skip
                held = memory_of(configuration)
                if tp > {"big": 8, "small": 4}[name] or isinstance(held, Rejection):
                    continue
                engine = Engine(
                    predictor=predictor_of(configuration).pessimistic, kv_tokens=held.kv_tokens, max_num_seqs=seqs,
                    max_num_batched_tokens=tokens, max_model_len=2560,
                )  # fmt: skip
                for replicas in range(1, 33 // tp):
                    if judge.goodput((engine,), requests, wish.slo, replicas=(replicas,)) >= requests.rate:
                        best = min(best, price[name] * tp * replicas)
                        break
    assert cheapest(wish) <= best + 1e-9


@pytest.mark.parametrize("goal", [{}, {"goal": "min_latency"}])
def test_goodputs_that_are_not_asked_change_nothing(monkeypatch, goal):
    """The search ends with the same candidates when every option's goodput is asked before any is sized."""
    lazy, promise = found(intent(**goal)), screen._promise

    def hopeful(question, option, reached, *, settled):
        made = promise(question, option, reached, settled=settled)
        return made if settled else replace(made, share=1.0, bound=0.0, exact=0.0)

    monkeypatch.setattr(screen, "_promise", hopeful)
    eager = found(intent(**goal))
    assert lazy.candidates == eager.candidates
    assert lazy.judged < eager.judged


def test_replicas_are_the_fewest():
    """One replica less of the cheapest candidate would not carry the rate at the slow end."""
    wish = intent(rate=60.0)
    best = found(wish).candidates[0]
    requests, pool = realize(wish.workload, n=256), best.strategy.pool
    held = memory_of(pool.configuration)
    engine = Engine(
        predictor=predictor_of(pool.configuration).pessimistic, kv_tokens=held.kv_tokens,
        max_num_seqs=pool.configuration.max_num_seqs, max_model_len=2560,
    )  # fmt: skip
    assert best.share == 1.0
    assert best.estimate.goodput_low >= 60.0
    assert HandJudge().goodput((engine,), requests, wish.slo, replicas=(pool.replicas - 1,)) < 60.0


def test_every_share_and_pool_is_covered():
    """Placement needs parts of the rate, and alternatives on every pool that can serve."""
    candidates = found(intent(rate=200.0)).candidates
    assert {c.share for c in candidates} == set(SHARES)
    assert {c.gpus[0][0] for c in candidates if c.share == 1.0} == {"big-a", "small-a"}


@given(rate=st.floats(1, 150), factor=st.floats(1.0, 2.0))
@settings(max_examples=10, deadline=None)
def test_more_load_is_never_cheaper(rate, factor):
    """The cheapest whole candidate of a higher rate costs at least as much."""
    plain = {"disaggregated": "forbidden"}
    more, less = intent(rate=rate * factor, **plain), intent(rate=rate, **plain)
    assert cheapest(more, cluster=ALONE) >= cheapest(less, cluster=ALONE) - 1e-9


@given(ttft=st.floats(60, 800), tpot=st.floats(12, 60), factor=st.floats(1.0, 2.0))
@settings(max_examples=10, deadline=None)
def test_a_looser_slo_never_costs_more(ttft, tpot, factor):
    """Relaxing either limit leaves every strategy that met it."""
    tight = intent(slo=SLO(ttft=f"{ttft} ms", tpot=f"{tpot} ms"))
    loose = intent(slo=SLO(ttft=f"{ttft * factor} ms", tpot=f"{tpot * factor} ms"))
    assert cheapest(loose, cluster=ALONE) <= cheapest(tight, cluster=ALONE) + 1e-9


def test_same_question_same_answer():
    """Searching twice gives equal candidates and rejections, in the same order."""
    one, two = found(intent()), found(intent())
    assert one == two


def test_counts_are_exact():
    """Every strategy of the space is judged or rejected once; static reasons are counted by the whole grid."""
    cluster = Cluster(pools=(NodePool(name="big-a", gpu="big", gpus_per_node=8, nodes=4),))
    small = replace(MODEL, layers=((replace(LAYER, num_heads=12, num_kv_heads=4, intermediate_size=3072), 32),))
    result = found(intent(quality=0.992, disaggregated="forbidden"), cluster=cluster, model=small)
    counts = {(r.strategy, r.reason): r.count for r in result.rejections}
    # fp8 keeps 0.99 and fp8 with fp8 KV 0.985: four splits each below the floor
    assert counts["fp8", "quality_below_floor"] == 4 * len(GRID)
    assert counts["fp8-kv8", "quality_below_floor"] == 4 * len(GRID)
    # 12 heads do not divide by 8, in bf16 with either KV format
    assert counts["big-tp8", "does_not_divide"] == 2 * len(GRID)
    static = sum(r.count for r in result.rejections if r.reason in {"quality_below_floor", "does_not_divide"})
    capped = sum(r.count for r in result.rejections if r.strategy.endswith("max_num_seqs"))
    dearer = sum(r.count for r in result.rejections if r.strategy.startswith("big-tp") and r.reason == "dominated")
    assert static == 10 * len(GRID)
    # some cost more than others even if they served all that they can carry: their goodput is not asked
    unasked = result.strategies - (result.judged + static + capped)
    assert 0 < unasked < dearer


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"gpus": ("big",)}, "forbidden_by_intent"),
        ({"forbidden_pools": ("small-a",)}, "forbidden_by_intent"),
        ({"quantizations": ("fp8",)}, "forbidden_by_intent"),
        ({"kv_dtypes": ("bf16",)}, "forbidden_by_intent"),
        ({"quality": 0.999}, "quality_below_floor"),
        ({"max_model_len": 200_000}, "context_too_long"),
        ({"slo": SLO(ttft="1 ms")}, "ttft_above_slo"),
        ({"slo": SLO(tpot="1 ms")}, "tpot_above_slo"),
        ({"rate": 2000.0}, "unstable_at_this_load"),
        ({"budget": "0.5 USD/h"}, "over_budget"),
    ],
)
def test_what_the_intent_rules_out_is_counted(change, reason):
    """Each wish that excludes strategies shows as its own reason, with the numbers beside it."""
    rejections = [r for r in found(intent(**change)).rejections if r.reason == reason]
    assert sum(r.count for r in rejections) > 0
    assert all(r.intent == "chat" for r in rejections)


def test_a_pool_without_a_price_is_not_used():
    """No price, no candidate: a missing price is never zero."""
    result = found(intent(), prices={"big-a": 2.0})
    assert {c.gpus[0][0] for c in result.candidates} == {"big-a"}
    assert any(r.reason == "no_price" for r in result.rejections)


def test_missing_predictors_are_counted():
    """Where the catalog has no predictor the whole grid of the shape is rejected with its words."""
    no_data = Rejection(intent="", strategy="", reason="no_data", detail="no fingerprint")
    wish = intent(gpus=("big",))
    facts = Facts(predictor_of=lambda c: no_data if c.tp > 1 else predictor_of(c), memory_of=memory_of)
    result = found(wish, facts=facts)
    missing = [r for r in result.rejections if r.reason == "no_data"]
    assert sum(r.count for r in missing) == 3 * 2 * 2 * len(GRID)


def test_latency_goals_get_more_replicas():
    """Where latency is the goal, more replicas than needed are offered while they help, within the budget."""
    result = found(intent(goal="min_latency", budget="40 USD/h"))
    whole = [c for c in result.candidates if c.share == 1.0]
    assert min(c.estimate.e2e.p90 for c in whole) < 0.97 * result.candidates[0].estimate.e2e.p90
    assert max(c.cost_per_hour for c in whole) <= 40


def test_without_slo_it_is_stable():
    """No SLO: the cheapest that is stable, utilisation at most 0.9 at the slow end."""
    best = found(intent(slo=None, rate=100.0)).candidates[0]
    assert best.estimate.utilisation <= 0.9 / 1.1 + 1e-9


def test_spares_and_survivors():
    """Spares come on top of what the load needs; a lost node leaves the share that must survive."""
    pool = NodePool(name="p", gpu="big", gpus_per_node=8, nodes=3)
    assert with_reserve(4, 4, pool, Availability(spares=2)) == 6
    total = with_reserve(10, 8, pool, Availability(survive="node", share=0.8))
    assert total - lost_with_node(total, 3) >= 8
    assert total - 1 - lost_with_node(total - 1, 3) < 8
    plain = [c for c in found(intent()).candidates if c.share == 1.0]
    spare = [c for c in found(intent(availability=Availability(spares=1))).candidates if c.share == 1.0]
    assert spare[0].strategy.pool.replicas == 1 + plain[0].strategy.pool.replicas


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tp": 3}, "32 attention heads do not divide by tp 3"),
        ({"tp": 8, "quantization": "fp8_block"}, ""),
        ({"pp": 64}, "32 layers are fewer than 64 stages"),
    ],
)
def test_split_rules_dense(change, said):
    """VLLM's divisibility rules, worked out by hand on Llama-3.1-8B's shape: 14336 / 8 = 1792 = 14 x 128."""
    refusal = split_refusal(MODEL, Configuration(model="m", gpu="big", **change))
    assert ("" if refusal is None else refusal.detail) == said


def test_split_rules_experts():
    """768 wide experts: tp 4 leaves 192 rows, which cuts a 128 block; spread whole they fit, up to 128 ranks."""
    block = {"model": "m", "gpu": "big", "quantization": "fp8_block"}
    refusal = split_refusal(MOE_MODEL, Configuration(tp=4, **block))
    assert refusal is not None
    assert "cuts through fp8_block" in refusal.detail
    assert split_refusal(MOE_MODEL, Configuration(tp=2, **block)) is None
    assert split_refusal(MOE_MODEL, Configuration(tp=4, expert_parallel=True, **block)) is None
    assert split_refusal(MOE_MODEL, Configuration(tp=1, dp=256, expert_parallel=True, **block)) is not None


def test_experts_are_spread_over_ranks():
    """Data-parallel attention appears with expert parallelism alone, and for mixtures of experts alone."""
    place = Place(gpu=GPUS["big"], pools=CLUSTER.pools[:1])
    assert {split[1:] for split in splits(place, MODEL)} == {(1, False)}
    several = list(splits(place, MOE_MODEL))
    assert (1, 8, True) in several
    assert all(expert_parallel for _, dp, expert_parallel in several if dp > 1)
    assert len(several) == len(set(several))


def test_where_replicas_stand():
    """Tp stays within a link domain; what is larger than a node takes whole nodes; PCIe cards share their node."""
    pool = NodePool(name="p", gpu="big", gpus_per_node=8, nodes=2, link_domain=4)
    assert link_domain(pool, GPUS["big"]) == 4
    assert link_domain(CLUSTER.pools[1], GPUS["small"]) == 4
    assert not hosts(pool, GPUS["big"], Configuration(model="m", gpu="big", tp=8))
    assert hosts(pool, GPUS["big"], Configuration(model="m", gpu="big", tp=4, pp=4))
    assert not hosts(pool, GPUS["big"], Configuration(model="m", gpu="big", tp=4, pp=3))
    assert not hosts(pool, GPUS["big"], Configuration(model="m", gpu="big", tp=4, pp=8))


def test_offered_formats():
    """The checkpoint's own, published ones, and fp8 on the fly from bf16 alone."""
    assert offered(MODEL) == ("bf16", "fp8")
    assert offered(replace(MODEL, native="mxfp4")) == ("mxfp4",)
    assert offered(replace(MODEL, native="fp8_block", checkpoints=(("int4", "org/x-AWQ"),))) == ("fp8_block", "int4")


def test_cap_on_sequences():
    """Nine tenths of what KV space holds on average; few sequences are not capped below twice what is held."""
    assert seqs_cap(100.0, 1024) == 90
    assert seqs_cap(5000.0, 1024) == 1024
    assert seqs_cap(10.0, 1024) == 32
    assert seqs_cap(math.inf, 512) == 512


def test_tally_keeps_the_nearest_miss():
    """Of one family and reason the counts add up and the closest numbers stay."""
    tally = Tally(intent="x")
    tally.reject("a", "ttft_above_slo", "far", nearest={"ttft_s": 2.0, "ttft_s_limit": 0.5}, count=3)
    tally.reject("a", "ttft_above_slo", "near", nearest={"ttft_s": 0.6, "ttft_s_limit": 0.5})
    (rejection,) = tally.rejections
    assert (rejection.count, rejection.detail, rejection.nearest["ttft_s"]) == (4, "near", 0.6)
    assert tally.strategies == tally.rejected == 4


def test_front_holds_no_beaten_candidate():
    """No candidate of the front is beaten in cost, latency and quality by another of its share and pool."""
    candidates = found(intent()).candidates
    for share in (1.0, 0.5):
        for pool in ("big-a", "small-a"):
            group = [c for c in candidates if c.share == share and c.gpus[0][0] == pool]
            assert set(map(id, undominated(group))) == set(map(id, group))


def test_progress_is_told():
    """Every stage reports, counts never fall, and the last report of a stage is its end."""
    told: list[tuple[str, int, int]] = []
    found(intent(), progress=lambda *step: told.append(step))
    for stage in ("configurations", "screened", "verified"):
        counts = [(done, total) for name, done, total in told if name == stage]
        assert [done for done, _ in counts] == sorted(done for done, _ in counts)
        assert counts[-1][0] == counts[-1][1]


def test_replicas_over_several_nodes_say_what_is_left_out():
    """One hop of 8192 tokens x 4096 x 2 B over tp 8 at 12.5 GB/s takes 0.67 ms, and 10 us to start; a node has none."""
    pool = NodePool(name="big-a", gpu="big", gpus_per_node=8, nodes=4)
    question = SimpleNamespace(wish=SimpleNamespace(model=MODEL))

    def notes(**shape):
        configuration = Configuration(model="m", gpu="big", max_num_batched_tokens=8192, **shape)
        strategy = Collocated(pool=Pool(configuration=configuration, replicas=1, node_pool="big-a"))
        return list(across_nodes(question, strategy, {"big-a": pool}))

    assert notes(tp=8) == []
    assert "spans 2 nodes of big-a" in notes(tp=8, pp=2)[0]
    assert "0.68 ms" in notes(tp=8, pp=2)[0]
    assert "experts is not priced" in notes(tp=1, dp=16, expert_parallel=True)[0]


def test_search_returns_candidates_and_rejections():
    """The short form gives the same as `explore`."""
    wish = intent()
    candidates, rejections = search(
        wish, cluster=CLUSTER, gpus=GPUS, model=MODEL, requests=realize(wish.workload, n=256), prices=PRICES,
        predictor_of=predictor_of, memory_of=memory_of, quality_of=quality_of, judge=HandJudge(),
    )  # fmt: skip
    assert (candidates, rejections) == (found(wish).candidates, found(wish).rejections)
