"""`planner.placement.nearest`: what an intent lacks when only the fleet's limits keep it from being met."""

from __future__ import annotations

from small_fleets import candidate, fleet, intent, pool

from planner.intents import Team
from planner.placement import place
from planner.placement.nearest import nearest

PRICES = {"a": 2.0, "b": 3.0}


def found(wishes, offers):
    """Relaxations by intent of what was placed."""
    return nearest(wishes, place(wishes, offers), offers, prices=PRICES)


def test_missing_nodes_are_told_by_pool_cheapest_first():
    """By hand: 8 GPUs hold one intent of 8; the other lacks one node of a (16 USD/h) or one of b (24 USD/h)."""
    pools = [pool(nodes=1), pool("b", "h200", nodes=0)]
    wishes = fleet(pools, [intent("first", priority=0), intent("second")])
    offers = {
        "first": [candidate(of="first", replicas=8)],
        "second": [candidate(of="second", replicas=8), candidate("b", of="second", gpu="h200", replicas=3, cost=9.0)],
    }
    told = found(wishes, offers)
    assert list(told) == ["second"]
    assert [(r.dimension, r.from_value, r.to_value) for r in told["second"]] == [("nodes", 1, 2), ("nodes", 0, 1)]
    assert told["second"][0].text == "add 1 node of h100 to a (h100-tp1 x8)"


def test_the_relaxed_fleet_meets_the_intent():
    """With the nodes that were told added, the intent is met."""
    wishes = fleet([pool(nodes=1)], [intent("first", priority=0), intent("second")])
    offers = {name: [candidate(of=name, tp=4, replicas=2)] for name in ("first", "second")}
    (told,) = found(wishes, offers)["second"]
    larger = fleet([pool(nodes=int(told.to_value))], wishes.intents)
    assert place(larger, offers)["second"].status == "met"


def test_the_rate_that_is_served_is_feasible():
    """An intent served by half is told the rate that it gets."""
    wishes = fleet([pool(nodes=1)], [intent()])
    offers = {"chat": [candidate(replicas=16), candidate(replicas=8, share=0.5)]}
    rate, nodes = found(wishes, offers)["chat"]
    assert (rate.dimension, rate.from_value, rate.to_value) == ("rate", 1.0, 0.5)
    assert nodes.to_value == 2.0


def test_a_quota_that_binds_is_told():
    """Free GPUs, but the team's quota of the type is 4 and 6 are needed."""
    wishes = fleet([pool(nodes=1)], [intent(team="t")], teams=(Team(name="t", quota={"h100": 4}),))
    (told,) = found(wishes, {"chat": [candidate(replicas=6)]})["chat"]
    assert (told.dimension, told.from_value, told.to_value) == ("quota", 4.0, 6.0)


def test_a_quota_counts_parts_of_a_gpu_as_parts():
    """Seven quarters of a GPU are two GPUs of quota, not seven; five quarters of a mate leave three of two GPUs."""
    shared = pool(nodes=1, engines_per_gpu=4)
    wishes = fleet([shared], [intent(team="t")], teams=(Team(name="t", quota={"h100": 1}),))
    (told,) = found(wishes, {"chat": [candidate(replicas=7, engines_per_gpu=4)]})["chat"]
    assert (told.dimension, told.from_value, told.to_value) == ("quota", 1.0, 2.0)
    both = fleet(
        [shared],
        [intent("mate", team="t", priority=0), intent(team="t")],
        teams=(Team(name="t", quota={"h100": 2}),),
    )
    offers = {
        "mate": [candidate(of="mate", replicas=5, engines_per_gpu=4)],
        "chat": [candidate(replicas=7, engines_per_gpu=4)],
    }
    (told,) = found(both, offers)["chat"]
    assert (told.from_value, told.to_value) == (2.0, 3.0)


def test_a_team_budget_that_binds_is_told_with_what_others_spend():
    """The mate spends 4 of 10 USD/h; 12 are needed: 16."""
    wishes = fleet(
        [pool(nodes=2)],
        [intent("mate", team="t", priority=0), intent(team="t")],
        teams=(Team(name="t", budget="10 USD/h"),),
    )
    offers = {"mate": [candidate(of="mate", replicas=2)], "chat": [candidate(replicas=6)]}
    (told,) = found(wishes, offers)["chat"]
    assert (told.dimension, told.to_value) == ("budget", 16.0)


def test_who_is_met_or_has_no_whole_candidate_is_not_told_anything():
    """Relaxations of a search that finds nothing are the search's own."""
    wishes = fleet([pool(nodes=1)], [intent("met"), intent("none")])
    assert found(wishes, {"met": [candidate(of="met")], "none": []}) == {}
