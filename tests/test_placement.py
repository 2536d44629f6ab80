"""Placement as a whole: right on small instances, valid on all, honest when a solver is not."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_fleets import SEEDS, brute_force, candidate, dice, fleet, gpus_by_node, intent, pair, pool

from catalog.errors import BadInput
from catalog.gpus import GPU
from planner.intents import Availability, Team
from planner.placement import Rules, place, validate

EXACT = Rules(gap=0.0)
QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def offer(name, random, pools):
    """A few options at a few shares, replicas rounded up as a search would."""
    found = []
    for _ in range(random.randint(1, 4)):
        where = random.choice(pools)
        tp = random.choice((1, 2, 4, 8))
        goodput = tp**0.9 * random.uniform(0.5, 1.5)
        demand = random.uniform(0.5, 12.0)
        price = random.uniform(1.0, 4.0)
        seqs = random.choice((64, 128, 256))
        found += [
            candidate(
                where.name,
                of=name,
                gpu=where.gpu,
                tp=tp,
                max_num_seqs=seqs,
                replicas=replicas,
                share=min(1.0, replicas * goodput / demand),
                cost=round(price * tp * replicas, 3),
            )
            for replicas in sorted({math.ceil(share * demand / goodput) for share in (1.0, 0.75, 0.5, 0.25)})
        ]
    return found


def instance(seed, *, most=3):
    """A fleet of two pools and a few intents, and its candidates."""
    random = dice(seed)
    pools = [pool("a", "h100", nodes=random.randint(1, 3)), pool("b", "l40s", nodes=random.randint(0, 3))]
    names = [f"i{n}" for n in range(random.randint(1, most))]
    intents = [intent(name, priority=random.randint(0, 2)) for name in names]
    return fleet(pools, intents), {name: offer(name, random, pools) for name in names}


@QUICK
@given(SEEDS)
def test_small_instances_equal_brute_force(seed):
    """Where everything fits, the cost is the least over all choices of one or two candidates per intent."""
    wishes, candidates = instance(seed)
    expected = brute_force(wishes.cluster.pools, candidates)
    placed = place(wishes, candidates, rules=EXACT)
    served = all(one.status == "met" for one in placed.served)
    assert served == (expected is not None)
    if expected is not None:
        assert placed.cost_per_hour == pytest.approx(expected, rel=1e-6)
        loose = place(wishes, candidates, rules=Rules(gap=0.05)).solved
        assert loose.bound is not None
        assert loose.bound <= expected * (1 + 1e-9)
        assert loose.gap <= 0.05 + 1e-9


@QUICK
@given(SEEDS)
def test_never_over_allocates(seed):
    """No node holds more than its GPUs, and the validator agrees with whatever placement says."""
    wishes, candidates = instance(seed, most=6)
    placed = place(wishes, candidates)
    assert all(gpus <= 8 for gpus in gpus_by_node(placed).values())
    assert validate(placed, wishes, candidates=candidates) == []


@QUICK
@given(SEEDS)
def test_a_node_more_never_costs_more(seed):
    """With one more node the same intents are served at no higher cost, or more of them are."""
    wishes, candidates = instance(seed)
    grown = wishes.model_copy(
        update={
            "cluster": wishes.cluster.model_copy(
                update={"pools": tuple(p.model_copy(update={"nodes": p.nodes + 1}) for p in wishes.cluster.pools)}
            )
        }
    )
    before, after = place(wishes, candidates, rules=EXACT), place(grown, candidates, rules=EXACT)
    if [one.share for one in before.served] == [one.share for one in after.served]:
        assert after.cost_per_hour <= before.cost_per_hour + 1e-6
    served = [sum(one.status == "met" for one in placed.served) for placed in (before, after)]
    if served[0] == len(wishes.intents):
        assert served[1] == served[0]


@QUICK
@given(SEEDS, st.floats(1.0, 30.0))
def test_dropping_a_budget_is_never_worse(seed, budget):
    """An intent without its budget is served at least as much, or as cheaply with the same service."""
    wishes, candidates = instance(seed)
    first, *rest = wishes.intents
    tight = wishes.model_copy(update={"intents": (first.model_copy(update={"budget": budget}), *rest)})
    with_budget, without = place(tight, candidates, rules=EXACT), place(wishes, candidates, rules=EXACT)
    if with_budget.solved.status == "proven" and all(one.status == "met" for one in with_budget.served):
        assert all(one.status == "met" for one in without.served)
        assert without.cost_per_hour <= with_budget.cost_per_hour + 1e-6


@QUICK
@given(SEEDS)
def test_equal_inputs_give_equal_placements(seed):
    """The order of the candidates' mapping does not matter, and twice the same is the same."""
    wishes, candidates = instance(seed)
    turned = dict(reversed(list(candidates.items())))
    assert place(wishes, candidates) == place(wishes, turned)


@QUICK
@given(SEEDS)
def test_the_second_night_is_valid_and_calm(seed):
    """After a change of candidates the placement keeps every promise, waves included; without one nothing moves."""
    wishes, candidates = instance(seed)
    first = place(wishes, candidates)
    same = place(wishes, candidates, incumbent=first)
    assert same.starts == 0
    assert same.waves == ()
    random = dice(seed + 1)
    changed = {name: offer(name, random, list(wishes.cluster.pools)) for name in candidates}
    second = place(wishes, changed, incumbent=first)
    assert validate(second, wishes, candidates=changed, incumbent=first) == []


ONE = fleet([pool(nodes=1)], [intent("chat"), intent("code")])
TWO = {"chat": [candidate(tp=4)], "code": [candidate(of="code", tp=2), candidate(of="code", tp=1, replicas=3)]}


def test_overload_serves_priority_first_and_says_what_is_missing():
    """8 GPUs for wishes of 8 + 8: priority 0 gets all, the other nothing, and 8 GPUs are missing."""
    wishes = fleet([pool(nodes=1)], [intent("low", priority=2), intent("high", priority=0)])
    offers = {name: [candidate(of=name, tp=8)] for name in ("low", "high")}
    placed = place(wishes, offers)
    assert [one.status for one in placed.served] == ["unmet", "met"]
    assert placed.missing_gpus == {"a": 8}
    assert "capacity: node pool a is short by 8 of 8 GPUs" in placed["low"].reason
    assert validate(placed, wishes, candidates=offers) == []


def test_a_shortage_is_shared_within_a_priority():
    """12 GPUs for 8 + 8 at one priority: both get 75 % rather than one all and one half."""
    wishes = fleet([pool(nodes=3, gpus_per_node=4)], [intent("x"), intent("y")])
    offers = {name: [candidate(of=name, tp=1, replicas=n, share=n / 8) for n in (2, 4, 6, 8)] for name in ("x", "y")}
    placed = place(wishes, offers)
    assert [one.share for one in placed.served] == [0.75, 0.75]


def test_a_top_priority_is_never_cut_by_a_cheaper_stage():
    """A stage whose optimum is zero fixes its columns: half of a top priority is never traded for money."""
    wishes = fleet([pool(nodes=1)], [intent("top", priority=0), intent("rest", priority=1)])
    offers = {
        "top": [candidate(of="top", tp=4, cost=1000.0), candidate(of="top", tp=2, share=0.5, cost=0.1)],
        "rest": [candidate(of="rest", tp=8, cost=1.0), candidate(of="rest", tp=4, share=0.9, cost=1.0)],
    }
    placed = place(wishes, offers)
    assert placed["top"].share == 1.0
    assert placed["rest"].share == 0.9


def test_an_intent_without_candidates_is_unmet_and_hurts_nobody():
    """No candidates at all is a reason, not an error."""
    placed = place(ONE, {"chat": TWO["chat"]})
    assert placed["code"].status == "unmet"
    assert placed["code"].share == 0.0
    assert "No candidate" in placed["code"].reason
    assert placed["chat"].status == "met"


def test_min_latency_is_the_fastest_within_the_budget():
    """min_latency takes the fastest that its budget allows, min_cost the cheapest, cost_target as min_latency."""
    offers = [
        candidate(tp=1, cost=2.0, latency=3.0),
        candidate(tp=2, cost=4.0, latency=2.0),
        candidate(tp=4, cost=8.0, latency=1.0),
    ]
    for goal, budget, expected in (
        ("min_latency", None, 8.0),
        ("min_latency", 5.0, 4.0),
        ("cost_target", 5.0, 4.0),
        ("min_cost", None, 2.0),
    ):
        wish = intent("chat", goal=goal, budget=None if budget is None else f"{budget} USD/h")
        placed = place(fleet([pool()], [wish]), {"chat": offers})
        assert placed.cost_per_hour == expected


def test_the_latency_goal_does_not_pay_for_nothing():
    """Latency counts in steps of 1 %: half a percent faster at twice the price is not bought."""
    offers = [candidate(tp=2, cost=4.0, latency=1.004), candidate(tp=4, cost=8.0, latency=1.0)]
    placed = place(fleet([pool()], [intent(goal="min_latency")]), {"chat": offers})
    assert placed.cost_per_hour == 4.0


def test_a_mix_adds_up():
    """Two candidates of 75 % and 25 % serve an intent together where that is cheaper than one alone."""
    wishes = fleet([pool("a"), pool("b", "l40s")], [intent()])
    offers = {
        "chat": [
            candidate("a", tp=8, replicas=2, cost=32.0),
            candidate("a", tp=8, replicas=1, share=0.75, cost=16.0),
            candidate("b", gpu="l40s", tp=1, share=0.25, cost=2.0),
        ]
    }
    placed = place(wishes, offers)
    assert placed.cost_per_hour == 18.0
    assert placed["chat"].share == 1.0
    assert len(placed["chat"].candidates) == 2
    assert validate(placed, wishes, candidates=offers) == []


def test_quotas_and_budgets_of_teams_hold():
    """A team's quota of 4 H100 and budget of 5 USD/h push its intents to other GPUs or out."""
    team = Team(name="t", quota={"h100": 4}, budget="9 USD/h")
    wishes = fleet(
        [pool("a"), pool("b", "l40s")],
        [intent("x", team="t"), intent("y", team="t"), intent("z", team="t")],
        teams=(team,),
    )
    offers = {
        name: [candidate("a", of=name, tp=4, cost=3.0), candidate("b", of=name, gpu="l40s", tp=4, cost=4.0)]
        for name in ("x", "y", "z")
    }
    placed = place(wishes, offers)
    assert validate(placed, wishes, candidates=offers) == []
    assert sum(one.status == "met" for one in placed.served) == 2
    assert placed.cost_per_hour == 7.0
    unmet = next(one for one in placed.served if one.status == "unmet")
    assert "budget: team t is short by" in unmet.reason


@pytest.mark.parametrize("cost", [0.0, -1.0, math.nan, math.inf])
def test_a_price_that_is_none_never_wins(cost):
    """A candidate without a real price is refused with a reason, never chosen as free."""
    placed = place(fleet([pool()], [intent()]), {"chat": [candidate(cost=cost)]})
    assert placed["chat"].status == "unmet"
    assert "missing, zero or not a number" in placed["chat"].reason


def test_wishes_of_the_intent_are_kept():
    """Forbidden pools, GPUs, formats, quality floors and replica limits rule candidates out, each by name."""
    cheap = candidate("a", tp=1, cost=1.0, quantization="fp8", quality=0.9)
    dear = candidate("b", gpu="l40s", tp=1, replicas=2, cost=9.0)
    for wish in (
        {"forbidden_pools": ("a",)},
        {"pools": ("b",)},
        {"forbidden_gpus": ("h100",)},
        {"gpus": ("l40s",)},
        {"quantizations": ("bf16",)},
        {"quality": 0.95},
        {"min_replicas": 2},
    ):
        wishes = fleet([pool("a"), pool("b", "l40s")], [intent(**wish)])
        placed = place(wishes, {"chat": [cheap, dear]})
        assert placed["chat"].candidates == (dear,), wish
    wishes = fleet([pool("a"), pool("b", "l40s")], [intent(max_replicas=1, min_replicas=1)])
    assert place(wishes, {"chat": [dear]})["chat"].status == "unmet"


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"team": "tema"}, "did you mean 'team'"),
        ({"pools": ("aa",)}, "node pool 'aa'"),
        ({"gpus": ("h1000",)}, "did you mean 'h100'"),
    ],
)
def test_names_of_nothing_are_bad_input(more, match):
    """A team, pool or GPU that does not exist is an error with near names, so that no limit is silently off."""
    wishes = fleet([pool()], [intent(**more)], teams=(Team(name="team"),))
    with pytest.raises(BadInput, match=match):
        place(wishes, {"chat": [candidate()]})


def test_lost_nodes_and_foreign_gpus_are_not_there():
    """Two nodes, one lost, four GPUs of the other reserved: 4 GPUs are left, and 8 in one piece are not."""
    wishes = fleet([pool(nodes=2, lost=1, reserved_gpus=4)], [intent("x"), intent("y")])
    offers = {"x": [candidate(of="x", tp=4)], "y": [candidate(of="y", tp=8)]}
    placed = place(wishes, offers)
    assert [one.status for one in placed.served] == ["met", "unmet"]
    assert gpus_by_node(placed) == {"a-0": 4}


def test_a_pool_with_no_nodes_serves_nobody():
    """Zero nodes are a reason, not an error."""
    placed = place(fleet([pool(nodes=0)], [intent()]), {"chat": [candidate()]})
    assert placed["chat"].status == "unmet"
    assert "0 stand" in placed["chat"].reason


def test_prefill_and_decode_need_one_fabric():
    """Two pools may pair only where both name the same fabric."""
    joined = [pool("a", network={"fabric": "f"}), pool("b", "l40s", network={"fabric": "f"})]
    apart = [pool("a", network={"fabric": "f"}), pool("b", "l40s")]
    offers = {"chat": [pair("a", "b", gpus=("h100", "l40s"))]}
    assert place(fleet(joined, [intent()]), offers)["chat"].status == "met"
    placed = place(fleet(apart, [intent()]), offers)
    assert placed["chat"].status == "unmet"
    assert "share no fabric" in placed["chat"].reason


def test_shadow_price_of_a_node_is_what_it_saves():
    """One more node of 8 saves 8 x the price difference, where a cheaper pool is full."""
    wishes = fleet([pool("a", nodes=1), pool("b", "l40s", nodes=9)], [intent(f"i{n}") for n in range(20)])
    offers = {
        f"i{n}": [candidate("a", of=f"i{n}", cost=1.0), candidate("b", of=f"i{n}", gpu="l40s", cost=3.0)]
        for n in range(20)
    }
    placed = place(wishes, offers)
    assert placed.shadow_prices == {"a": pytest.approx(2.0), "b": pytest.approx(0.0)}
    other = next(one for one in placed.served if one.candidates[0].gpus[0][0] == "b")
    assert "node pool a" in other.binding
    assert other.runner_up[0].gpus[0][0] == "a"


def test_aliases_of_gpus_are_the_same_gpu():
    """A pool that spells its GPU by an alias holds the candidates of the catalog's name."""
    gpu = GPU(
        name="h100",
        aliases=("H100-SXM",),
        vendor="nvidia",
        compute_capability=90,
        peak={"bf16": "989 TFLOP/s"},
        memory="80 GB",
        bandwidth="3.35 TB/s",
        link="nvlink",
        link_bandwidth="450 GB/s",
        link_latency="2 us",
        link_domain=8,
        power="700 W",
        sources=dict.fromkeys(
            (
                "compute_capability",
                "peak",
                "memory",
                "bandwidth",
                "link_bandwidth",
                "link_latency",
                "link_domain",
                "power",
            ),
            "made up",
        ),
    )
    team = Team(name="t", quota={"H100-SXM": 4})
    wishes = fleet([pool("a", "H100-SXM")], [intent(team="t")], teams=(team,))
    assert place(wishes, {"chat": [candidate(tp=4)]}, gpus={"h100": gpu})["chat"].status == "met"
    assert place(wishes, {"chat": [candidate(tp=8)]}, gpus={"h100": gpu})["chat"].status == "unmet"


def test_survival_of_a_failure_domain_needs_two():
    """80 % after the loss of a domain takes strategies in two domains, each serving that much."""
    pools = [pool("a", failure_domain="east"), pool("b", failure_domain="west")]
    wish = intent(availability=Availability(survive="failure_domain", share=0.75))
    offers = {
        "chat": [candidate(where, replicas=n, share=n / 4, cost=float(n)) for where in ("a", "b") for n in (1, 2, 3, 4)]
    }
    placed = place(fleet(pools, [wish]), offers)
    assert sorted(c.gpus for c in placed["chat"].candidates) == [(("a", 3),), (("b", 3),)]
    assert validate(placed, fleet(pools, [wish]), candidates=offers) == []


def test_the_validator_refuses_what_is_broken():
    """Each promise, broken by hand, is named."""
    placed = place(ONE, TWO)
    first, second = placed.served
    seats = first.seats[0]
    crowded = dataclasses.replace(seats, nodes=((("a-0", 8),),))
    away = dataclasses.replace(seats, nodes=((("a-7", 4),),))
    for broken, words in (
        (dataclasses.replace(first, seats=(crowded,)), "a-0 holds"),
        (dataclasses.replace(first, seats=(away,)), "standing nodes"),
        (dataclasses.replace(first, share=0.5), "its candidates serve"),
        (dataclasses.replace(first, status="unmet"), "counts as unmet"),
        (dataclasses.replace(first, cost_per_hour=1.0), "costs"),
        (dataclasses.replace(first, seats=()), "seats are not those"),
        (dataclasses.replace(first, candidates=(), seats=(), share=0.0, cost_per_hour=0.0), "counts as met"),
    ):
        said = validate(dataclasses.replace(placed, served=(broken, second)), ONE, candidates=TWO)
        assert any(words in text for text in said), words
    assert validate(dataclasses.replace(placed, cost_per_hour=1.0), ONE) != []
    assert validate(dataclasses.replace(placed, served=(second, first)), ONE) != []
    assert validate(placed, ONE, candidates={}) != []
