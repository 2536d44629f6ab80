"""`planner.placement.size`: node counts against brute force, and what is said of them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from small_fleets import SEEDS, candidate, dice, fleet, intent, pool

from planner.intents import Availability, Team
from planner.placement import place, validate
from planner.placement.size import opened, size

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def draw(seed):
    """Two or three intents with candidates on two pools of small nodes, priced by node."""
    random = dice(seed)
    pools = [
        pool("a", "h100", nodes=3, gpus_per_node=4, price="2 USD/GPU/h"),
        pool(
            "b", "h200", nodes=3, gpus_per_node=random.choice([2, 4]), price=f"{random.uniform(1.0, 4.0):.2f} USD/GPU/h"
        ),
    ]
    prices = {one.name: one.price for one in pools}
    names = [f"i{n}" for n in range(random.randint(1, 3))]
    offers = {
        name: [
            candidate(where, of=name, gpu=gpu, replicas=replicas, tp=tp, cost=prices[where] * replicas * tp)
            for where, gpu in (("a", "h100"), ("b", "h200"))
            for tp, replicas in [(random.choice([1, 2]), random.randint(1, 3))]
        ]
        for name in names
    }
    return fleet(pools, [intent(name) for name in names]), offers, prices


def brute(wishes, offers, prices):
    """Least rent over every choice of candidates, nodes filled as tightly as their slots pack."""
    nodes = {one.name: one for one in wishes.cluster.pools}
    best = None
    for choice in itertools.product(*offers.values()):
        cost = 0.0
        for name, one in nodes.items():
            sizes = [c.strategy.pool.configuration.gpus for c in choice if c.strategy.pool.node_pool == name
                     for _ in range(c.strategy.pool.replicas)]  # fmt: skip
            used = first_fit(sorted(sizes, reverse=True), one.gpus_per_node)
            if used > one.nodes:
                break
            cost += used * one.gpus_per_node * prices[name]
        else:
            best = cost if best is None else min(best, cost)
    return best


def first_fit(sizes, room):
    """Bins of `room` that sizes 1 and 2 need, largest first: exact for powers of two."""
    bins = []
    for each in sizes:
        at = next((i for i, free in enumerate(bins) if free >= each), None)
        if at is None:
            bins.append(room)
            at = len(bins) - 1
        bins[at] -= each
    return len(bins)


@QUICK
@given(SEEDS)
def test_no_fleet_is_cheaper(seed):
    """Rent equals that of the best of all choices of candidates and counts; the bound never exceeds it."""
    wishes, offers, prices = draw(seed)
    least = brute(wishes, offers, prices)
    found = size(wishes, offers, prices=prices)
    if least is None:
        assert found.short
        return
    assert found.short == ()
    assert found.cost_per_hour == pytest.approx(least)
    assert found.bound <= least + 1e-6
    assert found.gap <= 1e-3
    assert validate(found.placed, _on(wishes, found.nodes), candidates=offers) == []


def _on(wishes, nodes):
    pools = tuple(one.model_copy(update={"nodes": nodes[one.name]}) for one in wishes.cluster.pools)
    return wishes.model_copy(update={"cluster": wishes.cluster.model_copy(update={"pools": pools})})


def test_whole_nodes_are_paid_for():
    """By hand: 5 GPUs at 2 USD cost two nodes of 4, 16 USD/h, where one of 8 at 1.50 USD would cost 12."""
    pools = [pool("a", nodes=4, gpus_per_node=4), pool("b", "h200", nodes=1, gpus_per_node=8, price="1.5 USD/GPU/h")]
    offers = {"chat": [candidate(replicas=5), candidate("b", gpu="h200", replicas=5, cost=7.5)]}
    found = size(fleet(pools, [intent()]), offers, prices={"a": 2.0, "b": 1.5})
    assert found.nodes == {"a": 0, "b": 1}
    assert found.cost_per_hour == 12.0
    only = size(fleet(pools[:1], [intent()]), {"chat": offers["chat"][:1]}, prices={"a": 2.0})
    assert only.nodes == {"a": 2}
    assert only.cost_per_hour == 16.0


def test_intents_share_a_node():
    """Two intents of half a node each need one node together."""
    offers = {name: [candidate(of=name, replicas=4)] for name in ("one", "two")}
    found = size(fleet([pool(nodes=3)], [intent("one"), intent("two")]), offers, prices={"a": 2.0})
    assert found.nodes == {"a": 1}


def test_spares_are_added_to_pools_in_use_and_priced():
    """One spare node of the used pool: 16 USD/h more; none of the pool that stays empty."""
    pools = [pool(nodes=2), pool("b", "h200", nodes=2)]
    found = size(fleet(pools, [intent()]), {"chat": [candidate()]}, prices={"a": 2.0, "b": 2.0}, spare=1)
    assert found.spares == {"a": 1}
    assert found.cost_per_hour == 32.0
    assert found.gap == 0.0


def test_energy_of_owned_hardware_decides_between_equals():
    """At equal rent the candidate that draws less is chosen, and its energy is stated."""
    pools = [pool(nodes=2), pool("b", "h200", nodes=2)]
    offers = {"chat": [candidate(cost=3.0), candidate("b", gpu="h200", cost=2.5)]}
    found = size(fleet(pools, [intent()]), offers, prices={"a": 2.0, "b": 2.0})
    assert found.nodes == {"a": 0, "b": 1}
    assert found.energy_per_hour == pytest.approx(0.5)
    assert found.cost_per_hour == pytest.approx(16.5)


def test_who_wants_to_be_fast_is_told_that_cost_decided():
    """The cheapest fleet holds an intent to its limits and its budget; that it could be faster is said by name."""
    offers = {"chat": [candidate(cost=2.0)]}
    for goal, told in (("min_latency", True), ("min_cost", False)):
        found = size(fleet([pool(nodes=1)], [intent(goal=goal)]), offers, prices={"a": 2.0})
        assert any("at least cost: chat keep" in note for note in found.notes) == told


def test_energy_beside_shared_gpus_is_not_eaten_by_their_rent():
    """A quarter of a GPU at 2 USD/h rents for 0.50: of a cost of 0.80 energy is 0.30."""
    wishes = fleet([pool(nodes=1, engines_per_gpu=4)], [intent()])
    found = size(wishes, {"chat": [candidate(engines_per_gpu=4, cost=0.8)]}, prices={"a": 2.0})
    assert found.energy_per_hour == pytest.approx(0.3)


def test_a_limit_that_is_too_small_is_an_answer():
    """Two intents, room for one: the one of higher priority is served, the other is named."""
    wishes = fleet([pool(nodes=1)], [intent("one", priority=5), intent("two", priority=0)])
    offers = {name: [candidate(of=name, replicas=8)] for name in ("one", "two")}
    found = size(wishes, offers, prices={"a": 2.0})
    assert found.short == ("one",)
    assert found.nodes == {"a": 1}


def test_a_survivor_forces_a_second_node():
    """An intent that must survive the loss of a node is never sized onto one."""
    wish = intent(availability=Availability(survive="node", share=0.5))
    found = size(fleet([pool(nodes=4)], [wish]), {"chat": [candidate(replicas=4)]}, prices={"a": 2.0})
    assert found.short == ()
    assert found.nodes["a"] >= 2


def test_quotas_and_budgets_hold():
    """A team's quota rules out the cheaper pool."""
    pools = [pool(nodes=2), pool("b", "h200", nodes=2)]
    wishes = fleet(pools, [intent(team="t")], teams=(Team(name="t", quota={"h100": 1}),))
    offers = {"chat": [candidate(replicas=2), candidate("b", gpu="h200", replicas=2)]}
    found = size(wishes, offers, prices={"a": 2.0, "b": 9.0})
    assert found.nodes == {"a": 0, "b": 1}


def test_a_pool_without_a_price_is_never_asked_for():
    """No price, no node: the dearer pool is taken."""
    pools = [pool(nodes=2), pool("b", "h200", nodes=2)]
    offers = {"chat": [candidate(), candidate("b", gpu="h200")]}
    found = size(fleet(pools, [intent()]), offers, prices={"b": 9.0})
    assert found.nodes == {"a": 0, "b": 1}


def test_counts_are_opened_by_the_pool_the_flag_and_the_default():
    """A named limit wins, then the pool's own, then the default for all unless more are there; lost nodes are back."""
    pools = [
        pool("a", nodes=2, lost=1),
        pool("b", nodes=3, at_most=9),
        pool("c", nodes=7),
        pool("d", nodes={"at_most": 5}),
    ]
    wishes = fleet(pools, [intent()])
    found = opened(wishes, limits={"a": 4}, everywhere=6)
    assert [(one.nodes, one.lost) for one in found.cluster.pools] == [(4, 0), (9, 0), (7, 0), (5, 0)]
    assert [one.nodes for one in opened(wishes).cluster.pools] == [2, 9, 7, 5]


def test_a_solver_that_fails_leaves_every_pool_at_its_most():
    """No counts from the solver: nothing is proven, and the note says so."""
    from planner.placement.solve import Answer  # noqa: PLC0415 - this test alone

    found = size(
        fleet([pool(nodes=2)], [intent()]),
        {"chat": [candidate()]},
        prices={"a": 2.0},
        solver=lambda _: Answer(outcome="crashed", note="it fell"),
    )
    assert found.nodes == {"a": 2}
    assert found.bound is None
    assert any("unproven" in note for note in found.notes)
    assert place(fleet([pool(nodes=2)], [intent()]), {"chat": [candidate()]}).cost_per_hour == 2.0
