"""Change: what runs is kept, starts must pay, and the way there never serves less than it must."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from small_fleets import SEEDS, candidate, dice, fleet, intent, pool

from planner.placement import Rules, place, validate
from planner.plan import NodeShare, Plan, Provenance, ReplicaGroup, Solved

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
GOODPUT = {1: 1.0, 2: 2.2, 4: 4.8}


def options(name, demand, prices):
    """Candidates of tp 1, 2 and 4 at the shares that a search gives, each worth its replicas times its goodput."""
    return [
        candidate(of=name, tp=tp, replicas=n, share=min(1.0, n * good / demand), cost=prices[tp] * n)
        for tp, good in GOODPUT.items()
        for n in sorted({math.ceil(share * demand / good) for share in (1.0, 0.75, 0.5, 0.25)})
    ]


def two_nights(seed):
    """A fleet that is nearly full, so that a change of prices or demand has little room to happen in."""
    random = dice(seed)
    names = [f"i{n}" for n in range(random.randint(1, 4))]
    wishes = fleet([pool(nodes=random.randint(1, 3))], [intent(name) for name in names], movement=1.0)
    nights = []
    for _ in range(2):
        demands = {name: random.uniform(1.0, 9.0) for name in names}
        prices = {tp: tp * random.uniform(1.0, 3.0) for tp in GOODPUT}
        nights.append((demands, {name: options(name, demands[name], prices) for name in names}))
    return wishes, nights


@QUICK
@given(SEEDS)
def test_waves_never_serve_less_than_before_and_after(seed):
    """Between any two steps each intent is served the lesser of before and after, or the wave owns up to the dip."""
    wishes, ((_, first_offers), (demand, offers)) = two_nights(seed)
    first = place(wishes, first_offers)
    rules = Rules(start_gpu_hours=0.0)
    second = place(wishes, offers, incumbent=first, rules=rules)
    assert validate(second, wishes, candidates=offers, incumbent=first, rules=rules) == []

    present = {
        one.intent: Counter({seats.pool.configuration.tp: len(seats.nodes) for seats in one.seats})
        for one in first.served
    }

    def share(name):
        return min(1.0, sum(GOODPUT[tp] * n for tp, n in present[name].items()) / demand[name])

    floor = {one.intent: min(share(one.intent), one.share) for one in second.served}
    dips = 0
    for wave in second.waves:
        steps = [(wave.starts, 1), (wave.stops, -1)]
        told = dict(wave.dips)
        for moves, sign in reversed(steps) if wave.stops_first else steps:
            for move in moves:
                present[move.intent][move.pool.configuration.tp] += sign
            for name, least in floor.items():
                if share(name) < least - 1e-6:
                    dips += 1
                    assert told[name] <= share(name) + 1e-6
    assert all(share(one.intent) == pytest.approx(one.share) for one in second.served)
    free = 8 * wishes.cluster.pools[0].nodes - max(
        sum(s.pool.gpus for o in p.served for s in o.seats) for p in (first, second)
    )
    if free >= 8:
        assert dips == 0


def test_a_full_fleet_that_must_swap_owns_up_to_its_dip():
    """One node, all of it in use, and the same intent on another configuration: something must stop first."""
    wishes = fleet([pool(nodes=1)], [intent()], movement=1.0)
    first = place(wishes, {"chat": [candidate(tp=4, replicas=2, cost=9.0)]})
    placed = place(wishes, {"chat": [candidate(tp=8, cost=1.0)]}, incumbent=first, rules=Rules(start_gpu_hours=0.0))
    (wave,) = placed.waves
    assert wave.stops_first
    assert wave.dips == (("chat", 0.0),)
    assert validate(placed, wishes, incumbent=first) == []


def test_surge_comes_before_drain():
    """With room for it the new replicas start in the first wave and the old ones stop in the same wave, after them."""
    wishes = fleet([pool(nodes=2)], [intent()], movement=1.0)
    first = place(wishes, {"chat": [candidate(tp=4, replicas=2, cost=9.0)]})
    placed = place(
        wishes,
        {"chat": [candidate(tp=8, cost=1.0)]},
        incumbent=first,
        rules=Rules(start_gpu_hours=0.0, wave_share=1.0),
    )
    (wave,) = placed.waves
    assert not wave.stops_first
    assert (len(wave.starts), len(wave.stops)) == (1, 2)
    assert wave.dips == ()


def test_a_wave_starts_no_more_than_its_share():
    """20 single GPUs move at most a tenth of the GPUs in use at a time."""
    wishes = fleet([pool(nodes=8)], [intent()], movement=1.0)
    first = place(wishes, {"chat": [candidate(replicas=20, cost=20.0)]})
    placed = place(
        wishes,
        {"chat": [candidate(replicas=20, cost=1.0, max_num_seqs=8)]},
        incumbent=first,
        rules=Rules(start_gpu_hours=0.0),
    )
    assert len(placed.waves) == 10
    assert {len(wave.starts) for wave in placed.waves} == {2}


def test_what_covers_97_percent_is_kept():
    """2 % more demand than what runs covers moves nothing; 5 % more starts one replica beside what runs."""
    wishes = fleet([pool(nodes=4)], [intent()])
    first = place(wishes, {"chat": [candidate(replicas=10)]})
    grown = [candidate(replicas=11), candidate(replicas=10, share=0.98)]
    kept = place(wishes, {"chat": grown}, incumbent=first)
    assert (kept.starts, kept["chat"].status, kept["chat"].share) == (0, "margin_consumed", 0.98)
    more = [candidate(replicas=11), candidate(replicas=10, share=0.95)]
    assert place(wishes, {"chat": more}, incumbent=first).starts == 1


def test_a_gain_below_the_start_cost_moves_nothing():
    """A configuration 1 % cheaper is not worth its starts; one at half the price is."""
    wishes = fleet([pool(nodes=4)], [intent()], movement=1.0)
    runs = candidate(tp=4, replicas=2, cost=16.0)
    first = place(wishes, {"chat": [runs]})
    for cost, starts in ((15.84, 0), (8.0, 1)):
        offers = {"chat": [runs, candidate(tp=8, cost=cost)]}
        assert place(wishes, offers, incumbent=first).starts == starts


def test_a_gain_within_the_doubt_moves_nothing_however_cheap_starts_are():
    """What never ran must be cheaper by more than the doubt of its own cost; without doubt any gain would do."""
    wishes = fleet([pool(nodes=4)], [intent()], movement=1.0)
    runs = candidate(tp=4, replicas=2, cost=16.0)
    first = place(wishes, {"chat": [runs]})
    for cost, doubt, starts in ((15.0, 0.1, 0), (14.0, 0.1, 1), (15.9, 0.0, 1)):
        offers = {"chat": [runs, candidate(tp=8, cost=cost)]}
        rules = Rules(start_gpu_hours=0.0, doubt=doubt, churn=0.0)
        assert place(wishes, offers, incumbent=first, rules=rules).starts == starts, (cost, doubt)


def test_doubt_is_of_what_is_new_not_of_what_grows():
    """A service that needs a third more takes one replica of what runs before a strategy that is as cheap by itself."""
    wishes = fleet([pool(nodes=4)], [intent()], movement=1.0)
    first = place(wishes, {"chat": [candidate(replicas=3)]})
    offers = {"chat": [candidate(replicas=3, share=0.76), candidate(replicas=4), candidate(tp=2, replicas=2, cost=7.9)]}
    placed = place(wishes, offers, incumbent=first, rules=Rules(start_gpu_hours=0.0))
    assert [str(one.strategy) for one in placed["chat"].candidates] == ["h100-tp1 x4"]


@pytest.mark.parametrize(("latency", "starts"), [(0.95, 0), (0.5, 2)])
def test_where_latency_is_the_goal_it_must_gain_more_than_the_doubt(latency, starts):
    """5 % faster by prediction is no reason to start anew, twice as fast is."""
    wishes = fleet([pool(nodes=4)], [intent(goal="min_latency")], movement=1.0)
    runs = candidate(tp=4, replicas=2)
    first = place(wishes, {"chat": [runs]})
    offers = {"chat": [runs, candidate(tp=2, replicas=2, cost=16.0, latency=latency)]}
    assert place(wishes, offers, incumbent=first).starts == starts


def test_a_mix_grows_by_as_little_as_it_lacks():
    """Where one part of a mix falls short, the other takes exactly the replicas that make up for it, offered or not."""
    wishes = fleet([pool(nodes=4)], [intent()], movement=1.0)
    begun = [candidate(tp=4, replicas=2, share=0.5, cost=6.0), candidate(replicas=4, share=0.5)]
    first = place(wishes, {"chat": begun})
    assert len(first["chat"].candidates) == 2
    busier = [
        *(candidate(tp=4, replicas=n, share=min(1.0, 0.2 * n), cost=3.0 * n) for n in (1, 2)),
        *(candidate(replicas=n, share=min(1.0, 0.1 * n)) for n in (3, 4, 8, 10)),
    ]
    placed = place(wishes, {"chat": busier}, incumbent=first)
    assert sorted(str(one.strategy) for one in placed["chat"].candidates) == ["h100-tp1 x4", "h100-tp4 x3"]
    assert (placed.starts, placed["chat"].share) == (1, pytest.approx(1.0))
    assert validate(placed, wishes, candidates={"chat": busier}, incumbent=first) == []


def test_parts_of_a_gpu_move_as_parts():
    """Eight engines on a quarter of a GPU each are two GPUs in use, and two that start are half a GPU moved."""
    shared = pool(nodes=1, engines_per_gpu=4)
    wishes = fleet([shared], [intent()], movement=0.25)
    first = place(wishes, {"chat": [candidate(replicas=8, engines_per_gpu=4)]})
    more = [candidate(replicas=8, share=0.8, engines_per_gpu=4), candidate(replicas=10, engines_per_gpu=4)]
    placed = place(wishes, {"chat": more}, incumbent=first)
    assert (placed.movement_gpus, placed.starts, placed.started_gpus) == (0, 2, 0.5)
    assert validate(placed, wishes, candidates={"chat": more}, incumbent=first) == []


def test_the_movement_limit_holds_and_unmet_demand_is_exempt():
    """A quarter of 16 GPUs in use may move for money: one intent of four moves; a new intent starts all the same."""
    names = [f"i{n}" for n in range(4)]
    wishes = fleet([pool("a", nodes=4), pool("b", "l40s", nodes=4)], [intent(name) for name in names])
    first = place(wishes, {name: [candidate(of=name, tp=4, cost=9.0)] for name in names})
    cheaper = {
        name: [candidate(of=name, tp=4, cost=9.0), candidate("b", of=name, gpu="l40s", tp=4, cost=1.0)]
        for name in names
    }
    placed = place(wishes, cheaper, incumbent=first)
    assert placed.movement_gpus == 4
    assert placed.started_gpus == 4
    more = fleet(wishes.cluster.pools, [*wishes.intents, intent("new")])
    placed = place(more, {**cheaper, "new": [candidate(of="new", tp=8)]}, incumbent=first)
    assert placed["new"].status == "met"
    assert placed.started_gpus == 12
    assert validate(placed, more, candidates={**cheaper, "new": [candidate(of="new", tp=8)]}, incumbent=first) == []


def test_room_for_a_new_intent_may_be_forced():
    """A new intent needs a pool that a settled one holds: the settled one moves beyond the limit, and that is said."""
    wishes = fleet([pool("a", nodes=1), pool("b", "l40s", nodes=1)], [intent("old"), intent("new")], movement=0.01)
    offers = {
        "old": [candidate("a", of="old", tp=8, cost=1.0), candidate("b", of="old", gpu="l40s", tp=8, cost=9.0)],
        "new": [candidate("a", of="new", tp=8)],
    }
    first = place(fleet(wishes.cluster.pools, [intent("old")]), offers)
    placed = place(wishes, offers, incumbent=first)
    assert [one.status for one in placed.served] == ["met", "met"]
    assert placed.forced_gpus == 8
    assert validate(placed, wishes, candidates=offers, incumbent=first) == []


def test_nodes_that_are_gone_are_said_and_their_replicas_start_anew():
    """An incumbent on a node that is lost tonight: its replica moves, the others stay."""
    wishes = fleet([pool(nodes=3, gpus_per_node=4)], [intent()])
    offers = {"chat": [candidate(tp=4, replicas=3)]}
    first = place(wishes, offers)
    tonight = fleet([pool(nodes=4, lost=0, gpus_per_node=4), pool("c", nodes=1)], [intent()])
    smaller = fleet([pool(nodes=3, lost=1, gpus_per_node=4), pool("c", nodes=1)], [intent()])
    assert place(tonight, offers, incumbent=first).starts == 0
    offers["chat"].append(candidate(tp=4, replicas=2, share=0.6))
    placed = place(smaller, offers, incumbent=first)
    assert placed["chat"].share == 0.6
    assert placed.starts == 0
    assert any("nodes that are gone" in note for note in placed.solved.notes)


def test_a_plan_json_incumbent_counts_like_a_placement():
    """Replica groups of a plan, read back, hold the same nodes."""
    wishes = fleet([pool(nodes=2)], [intent()])
    offers = {"chat": [candidate(tp=2, replicas=3)]}
    first = place(wishes, offers)
    configuration = offers["chat"][0].strategy.pool.configuration
    plan = Plan(
        serial=1,
        fleet_digest="",
        vllm_version="0.32.0",
        image="",
        cost_per_hour=first.cost_per_hour,
        baseline_cost_per_hour=None,
        baseline="",
        intents=(),
        placements=tuple(
            ReplicaGroup(
                intent=one.intent,
                role=seats.role,
                node_pool=seats.pool.node_pool,
                replicas=len(seats.nodes),
                gpus_per_replica=configuration.gpus,
                checkpoint="org/m",
                kv_cache_memory_bytes=1,
                router="least_requests",
                nodes=tuple(tuple(NodeShare(node=n, gpus=g) for n, g in nodes) for nodes in seats.nodes),
                **{
                    name: getattr(configuration, name)
                    for name in (
                        *("model", "gpu", "tp", "pp", "dp", "expert_parallel", "quantization", "kv_dtype"),
                        *("max_num_seqs", "max_num_batched_tokens", "max_model_len", "enable_prefix_caching"),
                    )
                },
            )
            for one in first.served
            for seats in one.seats
        ),
        rejections=(),
        pools=(),
        solved=Solved(solver="highs", status="proven", gap=0.0, bound=None, columns=1),
        provenance=Provenance(fingerprints=(), tables="", constants=""),
    )
    second = place(wishes, offers, incumbent=plan)
    assert second.starts == 0
    assert second["chat"].seats[0].nodes == first["chat"].seats[0].nodes
    assert second["chat"].seats[0].kept == 3
