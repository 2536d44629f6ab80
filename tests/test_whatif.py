"""What-if sweeps: laws of cost along price, SLO, load, lengths and network."""

from __future__ import annotations

import polars as pl
import pytest
from hand_world import intent, world

from catalog.cluster import Cluster, Network, NodePool
from planner.intents import SLO
from planner.whatif import SCHEMA, Study, break_even, lengths, limits, loads, networks, prices, upgrade
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


def test_break_even_is_where_the_gain_turns_positive():
    """Worked by hand: from -2 at 10 to 6 at 50 the gain is zero at 20."""
    frame = pl.DataFrame({"value": [1.0, 10.0, 50.0], "gain": [None, -2.0, 6.0]})
    assert break_even(frame) == pytest.approx(20.0)
    assert break_even(pl.DataFrame({"value": [1.0, 2.0], "gain": [1.0, 2.0]})) is None


def test_an_upgrade_is_worth_what_it_saves():
    """The difference of two points of a sweep; nothing is said where one of them is not feasible."""
    frame = pl.DataFrame({"value": [1.0, 2.0, 3.0], "cost_per_hour": [None, 50.0, 42.0]})
    assert upgrade(frame, 2.0, 3.0) == pytest.approx(8.0)
    assert upgrade(frame, 1.0, 3.0) is None
