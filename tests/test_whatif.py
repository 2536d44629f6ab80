"""What-if sweeps: laws of cost along price, SLO, load, lengths and network."""

from __future__ import annotations

import polars as pl
import pytest
from hand_world import intent, world

from catalog.cluster import Cluster, Network, NodePool
from planner.intents import SLO
from planner.whatif import (
    NETWORK,
    SCHEMA,
    Study,
    break_even,
    jitters,
    latencies,
    lengths,
    limits,
    loads,
    networks,
    prices,
    upgraded,
)
from planner.workload import realize


def study(**changes) -> Study:
    """The hand-made world as a study."""
    wish = changes.pop("wish", intent())
    return Study(intent=wish, **world(wish, **changes))


def test_cost_is_linear_in_a_common_price():
    """With every price doubled the best strategy stays and its cost doubles."""
    frame = prices(study(), [1.0, 2.0])
    assert frame.schema == SCHEMA
    assert frame["cost_per_hour"][1] == pytest.approx(2 * frame["cost_per_hour"][0])
    assert frame["strategy"][0] == frame["strategy"][1]


def test_cost_never_falls_when_one_price_rises():
    """A dearer pool is replaced, or paid for."""
    frame = prices(study(), [0.1, 1.0, 3.0, 10.0], pools=["small-a"])
    costs = frame["cost_per_hour"].to_list()
    assert costs == sorted(costs)
    assert frame["node_pools"][0] == "small-a"
    assert frame["node_pools"][3] == "big-a"


def test_cost_never_falls_with_load():
    """More requests never cost less; beyond the cluster nothing is feasible and the row says so."""
    frame = loads(study(), [0.5, 1.0, 4.0, 1000.0])
    costs = frame["cost_per_hour"].to_list()[:3]
    assert costs == sorted(costs)
    assert frame["feasible"].to_list() == [True, True, True, False]
    assert frame["cost_per_hour"][3] is None


def test_cost_never_rises_with_a_looser_limit():
    """Loosening TTFT or TPOT never costs more."""
    for limit, values in (("ttft", [0.05, 0.2, 1.0]), ("tpot", [0.012, 0.03, 0.1])):
        costs = [cost if cost is not None else float("inf") for cost in limits(study(), limit, values)["cost_per_hour"]]
        assert costs == sorted(costs, reverse=True)


def test_cost_never_falls_with_length():
    """Longer prompts and longer outputs are more work."""
    for side in ("prompt", "output"):
        frame = lengths(study(), side, [0.5, 1.0, 3.0])
        costs = frame["cost_per_hour"].to_list()
        assert costs == sorted(costs)
        mean = float(getattr(realize(intent().workload, n=256), side).mean())
        assert frame["value"][1] == pytest.approx(mean)


def test_faster_networks_help_pairs_and_leave_the_rest():
    """Disaggregated cost falls with bandwidth, collocated cost does not move, and the break-even lies between."""
    pool = NodePool(name="big-a", gpu="big", gpus_per_node=8, nodes=4, network=Network(kind="infiniband"))
    wish = intent(rate=120.0, slo=SLO(ttft="300 ms", tpot="13 ms"))
    frame = networks(study(wish=wish, cluster=Cluster(pools=(pool,))), [1e7, 1e8, 1e9, 1e10])
    collocated = frame["collocated_cost"].to_list()
    apart = [cost if cost is not None else float("inf") for cost in frame["disaggregated_cost"]]
    assert len(set(collocated)) == 1
    assert apart == sorted(apart, reverse=True)
    assert apart[-1] < float("inf")


def test_latency_and_jitter_hurt_pairs_alone():
    """A slower or shakier network never makes disaggregation cheaper, and collocated strategies do not notice."""
    pool = NodePool(name="big-a", gpu="big", gpus_per_node=8, nodes=4, network=Network(kind="infiniband"))
    asked = study(wish=intent(rate=120.0, slo=SLO(ttft="300 ms", tpot="13 ms")), cluster=Cluster(pools=(pool,)))
    for frame in (latencies(asked, [1e-5, 5e-2, 0.4]), jitters(asked, [0.0, 0.025, 0.2])):
        apart = [cost if cost is not None else float("inf") for cost in frame["disaggregated_cost"]]
        assert apart == sorted(apart)
        assert apart[0] < apart[-1]
        assert len(set(frame["collocated_cost"].to_list())) == 1
    assert list(frame.schema) == list(NETWORK)


def test_break_even_is_where_the_gain_changes_sign():
    """Worked by hand: it starts to pay between 10 and 50; what is not feasible does not pay; always is no break."""
    frame = pl.DataFrame({"value": [1.0, 10.0, 50.0], "gain": [None, -2.0, 6.0]})
    assert break_even(frame) == (10.0, 50.0)
    assert break_even(pl.DataFrame({"value": [3.0, 1.0, 2.0], "gain": [None, 5.0, 1.0]})) == (2.0, 3.0)
    assert break_even(pl.DataFrame({"value": [1.0, 2.0], "gain": [1.0, 2.0]})) is None


def test_an_upgrade_is_worth_what_it_saves():
    """It gains what it is worth less its price on the GPUs in use, and nothing where a collocated strategy stays."""
    slow = Network(kind="infiniband", bandwidth="1 GB/s")
    pool = NodePool(name="big-a", gpu="big", gpus_per_node=8, nodes=4, network=slow)
    wish = intent(rate=120.0, slo=SLO(ttft="300 ms", tpot="13 ms"), disaggregated="required")
    asked = study(wish=wish, cluster=Cluster(pools=(pool,)))
    free, dear = (upgraded(asked, 5e10, price_per_gpu_hour=price) for price in (0.0, 0.5))
    frame = networks(asked, [5e10])
    assert free.worth == free.gain == pytest.approx(free.cost_now - frame["cost_per_hour"][0])
    used = frame["gpus"][0] if frame["kind"][0] == "disaggregated" else 0
    assert dear.gain == pytest.approx(free.worth - 0.5 * used)
    assert (dear.strategy is None) == (used == 0)
