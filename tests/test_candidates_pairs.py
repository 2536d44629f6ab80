"""Disaggregated pairs: what may be joined, how counts are found, when they are worth it."""

from __future__ import annotations

import math

import pytest
from hand_world import GPUS, PRICES, HandJudge, found, intent, world
from hypothesis import given
from hypothesis import strategies as st

from catalog.cluster import Cluster, Network, NodePool
from planner.candidates.asking import ask
from planner.candidates.options import options
from planner.candidates.pairs import goodput, pairs, refusal, size, transfer
from planner.candidates.verify import MOST_REPLICAS, thinned
from planner.intents import SLO
from planner.strategies import Disaggregated


def cluster(bandwidth: str = "400 Gbit/s", *, fabric: str | None = None) -> Cluster:
    """The two pools with a network, joined where a fabric is named."""
    network = Network(kind="infiniband", bandwidth=bandwidth, latency="10 us", fabric=fabric)
    return Cluster(
        pools=(
            NodePool(name="big-a", gpu="big", gpus_per_node=8, nodes=4, network=network),
            NodePool(name="small-a", gpu="small", gpus_per_node=4, nodes=8, network=network),
        )
    )


def asked(wish, **changes):
    """The question and its options."""
    question = ask(wish, **world(wish, **changes))
    return question, tuple(options(question))


def test_pairs_share_a_format_and_decode_is_no_narrower():
    """Both sides load one checkpoint with one KV format, and decode's tp is at least prefill's."""
    made = list(pairs(*asked(intent(), cluster=cluster(fabric="ib"))))
    assert made
    for pair in made:
        one, other = pair.prefill.configuration, pair.decode.configuration
        assert (one.quantization, one.kv_dtype) == (other.quantization, other.kv_dtype)
        assert other.tp >= one.tp
        assert one.pp == other.pp == 1


def test_pools_without_a_common_fabric_are_never_paired():
    """Blocks travel inside one pool, or between pools that name the same fabric."""
    apart = {tuple(pool.name for pool in pair.pools) for pair in pairs(*asked(intent(), cluster=cluster()))}
    joined = {tuple(pool.name for pool in pair.pools) for pair in pairs(*asked(intent(), cluster=cluster(fabric="ib")))}
    assert apart == {("big-a", "big-a"), ("small-a", "small-a")}
    assert ("big-a", "small-a") in joined


def test_generations_are_not_paired():
    """GPU generations choose different attention backends, which the handshake refuses."""
    question, made = asked(intent())
    big = next(option for option in made if option.configuration.gpu == "big")
    small = next(option for option in made if option.configuration.gpu == "small")
    assert refusal(big, small) == ""
    older = small.place.gpu.model_copy(update={"compute_capability": 80})
    place = type(small.place)(gpu=older, pools=small.place.pools)
    moved = type(small)(**{name: getattr(small, name) for name in small.__slots__} | {"place": place})
    assert "attention backends" in refusal(big, moved)
    assert question.tally.strategies >= 0


def test_counts_carry_the_rate_and_none_can_be_left_out():
    """The counts found reach the rate at the slow end; with one replica less of either side they do not."""
    question, made = asked(intent(rate=60.0), cluster=cluster())
    sized = [(pair, counts) for pair in pairs(question, made) if (counts := size(question, pair, 60.0)) is not None]
    assert sized
    for pair, counts in sized:
        assert goodput(question, pair, counts) >= 60.0
        for less in ((counts[0] - 1, counts[1]), (counts[0], counts[1] - 1)):
            assert min(less) < 1 or goodput(question, pair, less) < 60.0


def test_throughput_is_bounded_by_both_sides():
    """A pair never carries more than its prefill side, its links or its decode side."""
    question, made = asked(intent(), cluster=cluster("1 Gbit/s"))
    for pair in pairs(question, made):
        sides = HandJudge().sides((pair.prefill.slow, pair.decode.slow), question.requests, pair.transfer)
        assert goodput(question, pair, (3, 2)) <= min(3 * sides[0], 2 * sides[1]) + 1e-9


def test_the_network_of_the_narrower_side_counts():
    """Every GPU of the smaller replica sends at its pool's rate."""
    question, made = asked(intent(), cluster=cluster("400 Gbit/s"))
    by_tp = {option.configuration.tp: option for option in made if option.configuration.gpu == "big"}
    pools = (question.places[0].pools[0],) * 2
    assert transfer(by_tp[2], by_tp[4], pools).bandwidth == pytest.approx(2 * 50e9)


def test_required_means_nothing_else():
    """An intent that requires prefill and decode apart gets nothing collocated, one that forbids it nothing apart."""
    only = found(intent(disaggregated="required"), cluster=cluster()).candidates
    assert only
    assert all(isinstance(candidate.strategy, Disaggregated) for candidate in only)
    never = found(intent(disaggregated="forbidden"), cluster=cluster()).candidates
    assert not any(isinstance(candidate.strategy, Disaggregated) for candidate in never)


def test_a_slow_network_is_not_worth_it():
    """When a prompt's blocks take longer than TTFT allows, no pair is offered, and it is counted why."""
    result = found(intent(slo=SLO(ttft="120 ms", tpot="50 ms")), cluster=cluster("10 Mbit/s"))
    assert not any(isinstance(candidate.strategy, Disaggregated) for candidate in result.candidates)
    assert any(" / " in r.strategy and r.reason == "goodput_below_rate" for r in result.rejections)


def test_both_sides_are_paid_for():
    """The cost is that of all GPUs of both pools."""
    candidates = found(intent(disaggregated="required"), cluster=cluster(fabric="ib")).candidates
    for candidate in candidates:
        cost = math.fsum(PRICES[pool.node_pool] * pool.gpus for pool in candidate.strategy.pools)
        assert candidate.cost_per_hour == pytest.approx(cost)
        assert sum(count for _, count in candidate.gpus) == sum(pool.gpus for pool in candidate.strategy.pools)
    assert set(GPUS) == {"big", "small"}


def test_a_wide_prefill_shape_finds_decode_shapes_as_wide():
    """Where TTFT needs wide prefill replicas, decode shapes as wide are paired, though narrow ones are cheaper."""
    made = list(pairs(*asked(intent(slo=SLO(ttft="3.6 ms", tpot="50 ms")), cluster=cluster())))
    assert made
    assert min(pair.prefill.configuration.tp for pair in made) >= 4


@given(st.integers(1, 200), st.integers(1, 200))
def test_no_side_is_simulated_with_more_than_its_part(prompts: int, tokens: int):
    """A part of the load never meets more than that part of either side, so what it keeps the whole keeps."""
    fewer, part = thinned((prompts, tokens))
    assert 0 < part <= 1
    for few, n in zip(fewer, (prompts, tokens), strict=True):
        assert 1 <= few <= n * part + 1e-9
    assert sum(fewer) <= max(MOST_REPLICAS, 1 + max(prompts, tokens) / min(prompts, tokens))


def test_hardware_that_costs_nothing_is_sized_all_the_same():
    """Pools at a price of 0 (bought and written off) are no division by it: counts grow by goodput alone."""
    wish = intent(rate=200.0, disaggregated="required")
    whole = [one for one in found(wish, cluster=cluster(fabric="ib"), prices=dict.fromkeys(PRICES, 0.0)).candidates
             if one.share == 1.0]  # fmt: skip
    assert whole
    assert {one.cost_per_hour for one in whole} == {0.0}
