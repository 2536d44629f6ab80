"""Relaxations: the nearest change of one wish that makes an unmet intent feasible."""

from __future__ import annotations

import pytest
from hand_world import cheapest, intent, memory_of, predictor_of, world

from planner.candidates import nearest_relaxations
from planner.intents import SLO


def relaxed(wish):
    """Relaxations by dimension."""
    given = world(wish)
    given.pop("facts")
    found = nearest_relaxations(wish, predictor_of=predictor_of, memory_of=memory_of, **given)
    return {relaxation.dimension: relaxation for relaxation in found}


def with_limit(wish, limit, value):
    """The wish with one limit of its SLO changed."""
    return wish.model_copy(update={"slo": wish.slo.model_copy(update={limit: value})})


@pytest.mark.parametrize(("limit", "value"), [("ttft", "500 us"), ("tpot", "900 us")])
def test_a_limit_out_of_reach_is_loosened_until_it_holds(limit, value):
    """The value said makes the intent feasible, and one well below it does not."""
    wish = intent(slo=SLO(**{"ttft": "400 ms", "tpot": "50 ms", limit: value}))
    assert cheapest(wish) == float("inf")
    answer = relaxed(wish)[limit]
    assert answer.from_value == getattr(wish.slo, limit)
    assert cheapest(with_limit(wish, limit, answer.to_value)) < float("inf")
    assert cheapest(with_limit(wish, limit, 0.7 * answer.to_value)) == float("inf")


def test_a_rate_out_of_reach_names_what_can_be_served():
    """The rate said can be served, one a tenth higher cannot, and the nodes said make the whole rate feasible."""
    wish = intent(rate=3000.0)
    answers = relaxed(wish)
    assert cheapest(intent(rate=answers["rate"].to_value)) < float("inf")
    assert cheapest(intent(rate=1.1 * answers["rate"].to_value)) == float("inf")
    assert answers["nodes"].to_value > answers["nodes"].from_value
    larger = world(wish)["cluster"]
    name = answers["nodes"].text.split(" to ")[1].split(" (")[0]
    pools = tuple(
        pool.model_copy(update={"nodes": int(answers["nodes"].to_value)}) if pool.name == name else pool
        for pool in larger.pools
    )
    assert cheapest(wish, cluster=larger.model_copy(update={"pools": pools})) < float("inf")


def test_a_small_budget_names_the_price():
    """The budget said is the price of the cheapest strategy without one."""
    wish = intent(budget="0.5 USD/h")
    assert relaxed(wish)["budget"].to_value == pytest.approx(cheapest(intent()), abs=0.01)


def test_a_high_floor_names_the_quality_left():
    """The best quality below the floor that carries the whole rate; with it as the floor the intent is feasible."""
    wish = intent(rate=3000.0, quality=0.999, gpus=("big",))
    answer = relaxed(intent(quality=1.0, quantizations=("fp8",)))["quality"]
    assert answer.to_value == pytest.approx(0.99)
    assert cheapest(intent(quality=answer.to_value, quantizations=("fp8",))) < float("inf")
    assert wish.quality == 0.999


def test_a_feasible_intent_needs_no_relaxation():
    """Where something serves the whole rate nothing is to be relaxed."""
    assert relaxed(intent()) == {}


APART = ({"slo": SLO(ttft="2 ms", tpot="50 ms")}, {"slo": SLO(ttft="400 ms", tpot="900 us")}, {"rate": 3000.0})


@pytest.mark.parametrize("change", APART)
def test_what_only_pairs_may_serve_is_relaxed_by_pairs(change):
    """An intent that requires prefill and decode apart is told what a pair reaches, and that much is feasible."""
    wish = intent(disaggregated="required", **change)
    assert cheapest(wish) == float("inf")
    answers = relaxed(wish)
    (limit,) = answers.keys() & {"ttft", "tpot", "rate"}
    answer = answers[limit]
    if limit == "rate":
        assert cheapest(intent(disaggregated="required", rate=answer.to_value)) < float("inf")
        assert cheapest(intent(disaggregated="required", rate=1.25 * answer.to_value)) == float("inf")
        assert "D " in answers["nodes"].text
    else:
        assert "P" in answer.text.split("(")[1]
        assert cheapest(with_limit(wish, limit, answer.to_value)) < float("inf")
        assert cheapest(with_limit(wish, limit, 0.7 * answer.to_value)) == float("inf")


@pytest.mark.parametrize("change", APART)
def test_the_nearest_is_the_nearest_of_both_kinds(change):
    """Whoever allows both kinds is told nothing farther than who allows one of them alone."""
    both, one, other = (relaxed(intent(disaggregated=kind, **change)) for kind in ("allowed", "forbidden", "required"))
    limits = both.keys() & {"ttft", "tpot", "rate"}
    assert limits
    for limit in limits:
        alone = [answers[limit].to_value for answers in (one, other) if limit in answers]
        assert both[limit].to_value == pytest.approx(max(alone) if limit == "rate" else min(alone))
