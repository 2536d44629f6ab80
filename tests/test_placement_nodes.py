"""Bins, patterns and seats: what counts also packs, and what runs stays."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_fleets import SEEDS, candidate, dice, fleet, gpus_by_node, intent, pool

from catalog.cluster import Cluster
from planner.intents import Availability
from planner.placement import place, validate
from planner.placement.bins import bin_classes
from planner.placement.nodes import assign
from planner.placement.patterns import fills, packing
from planner.placement.room import Wanted
from planner.placement.solve import highs
from planner.strategies import Configuration

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def only(one):
    """The bins of one pool."""
    return bin_classes(Cluster(pools=(one,)))[one.name]


def want(name, gpus, replicas, **more):
    """Replicas of tp GPUs each in pool a."""
    return Wanted(
        intent=name,
        key=("both", "a", Configuration(model="org/m", gpu="h100", tp=gpus)),
        replicas=replicas,
        slot=gpus,
        **more,
    )


def test_slots_of_replicas():
    """8-GPU nodes of two domains of 4: tp 4 fits one, pp 2 takes both, 12 GPUs take two whole nodes, tp 8 none."""
    bins = only(pool(gpus_per_node=8, link_domain=4))

    def slot(**shape):
        return bins.slot(Configuration(model="m", gpu="h100", **shape))

    assert slot(tp=4) == 4
    assert slot(tp=3) == 3
    assert slot(tp=4, pp=2) == 8
    assert slot(tp=2, pp=3) == 8
    assert slot(tp=4, pp=3) == 16
    assert slot(tp=8) is None
    assert slot(tp=4, pp=4) == 16


def test_capacity_counts_whole_slots():
    """Two nodes of 8 of which 3 GPUs are reserved: 13 singles, but one slot of 8, 3 of 4 and 6 of 2."""
    bins = only(pool(nodes=2, reserved_gpus=3))
    assert [bins.capacity(size) for size in (1, 2, 4, 8)] == [13, 12, 12, 8]
    assert bins.thresholds({1, 2, 4, 8}) == ((1, 13), (2, 12), (4, 12), (8, 8))
    assert only(pool(nodes=2)).thresholds({1, 2, 4, 8}) == ((1, 16),)


@QUICK
@given(st.integers(1, 4), st.integers(0, 8), st.lists(st.integers(0, 5), min_size=4, max_size=4))
def test_counts_that_fit_always_pack(nodes, reserved, counts):
    """For slots of 1, 2, 4 and 8 the rows of the class are exact: whatever keeps them is seated, nothing else is."""
    bins = only(pool(nodes=nodes, reserved_gpus=reserved))
    wanted = [want(f"i{size}", size, count) for size, count in zip((1, 2, 4, 8), counts, strict=True)]
    held = {size: sum(w.slot * w.replicas for w in wanted if w.slot % size == 0) for size in (1, 2, 4, 8)}
    fits = all(held[size] <= bins.capacity(size) for size in (1, 2, 4, 8))
    assert (assign(bins, wanted, {}).unplaced == 0) == fits


@QUICK
@given(st.integers(1, 5), SEEDS)
def test_what_runs_stays_unless_it_must_move(nodes, seed):
    """With powers of two, every counted replica is seated; a replica moves only when something larger needs its bin."""
    random = dice(seed)
    bins = only(pool(nodes=nodes))
    before = [want(f"i{n}", random.choice((1, 2, 4, 8)), random.randint(0, 4)) for n in range(5)]
    before = [w for w in before if w.replicas]
    first = assign(bins, before, {})
    if first.unplaced:
        return
    running = {w.intent: {w.key: first.places[w.intent, w.key]} for w in before}
    again = assign(bins, before, running)
    assert again.places == first.places
    assert all(again.kept[w.intent, w.key] == w.replicas for w in before)
    after = [*(w for w in before if random.random() < 0.7), want("new", random.choice((1, 2, 4, 8)), 1)]
    fits = sum(w.slot * w.replicas for w in after) <= nodes * 8
    second = assign(bins, after, running)
    assert (second.unplaced == 0) == fits
    if fits and sum(w.slot * w.replicas for w in before) + after[-1].slot <= nodes * 8 and after[-1].slot == 1:
        assert all(second.kept[w.intent, w.key] == w.replicas for w in after[:-1])


@QUICK
@given(st.sets(st.integers(1, 8), min_size=1, max_size=4), st.integers(1, 8))
def test_fills_are_all_maximal_ways(sizes, room):
    """Every fill fits, none has room for one more, and no multiset is missing (counted by brute force)."""
    order = sorted(sizes, reverse=True)
    found = {tuple(row) for row in fills(order, room).tolist()}
    ranges = [range(room // size + 1) for size in order]
    expected = {
        counts
        for counts in itertools.product(*ranges)
        if 0 <= room - sum(c * s for c, s in zip(counts, order, strict=True)) < min(order)
    }
    assert found == expected


@QUICK
@given(st.integers(1, 3), st.dictionaries(st.sampled_from((1, 2, 3, 5, 6)), st.integers(1, 4), min_size=1))
def test_patterns_pack_exactly_when_brute_force_does(nodes, counts):
    """The pattern program finds a packing where one exists, and what it gives fits its bins."""
    pieces = sorted((size for size, count in counts.items() for _ in range(count)), reverse=True)
    if len(pieces) > 9:
        return
    found = packing(only(pool(nodes=nodes)), counts, highs)
    assert (found is not None) == _packs(pieces, (8,) * nodes)
    if found is not None:
        held = Counter(size for _, fill in found for size, count in fill.items() for _ in range(count))
        assert held == Counter(pieces)
        assert all(sum(size * count for size, count in fill.items()) <= room for room, fill in found)
        assert len(found) <= nodes


def _packs(pieces, room):
    if not pieces:
        return True
    return any(
        _packs(pieces[1:], tuple(sorted((*room[:i], room[i] - pieces[0], *room[i + 1 :]))))
        for i in {room.index(free) for free in set(room) if free >= pieces[0]}
    )


def test_odd_slots_are_packed_by_patterns():
    """3 + 5 on each of two nodes, found though largest-first alone would put 3 + 3 on one."""
    wishes = fleet([pool(nodes=2)], [intent("five"), intent("three")])
    offers = {
        "five": [candidate(of="five", tp=5, replicas=2)],
        "three": [candidate(of="three", tp=3, replicas=2)],
    }
    placed = place(wishes, offers)
    assert [one.status for one in placed.served] == ["met", "met"]
    assert validate(placed, wishes, candidates=offers) == []
    assert gpus_by_node(placed) == {"a-0": 8, "a-1": 8}


def test_counts_that_fit_and_do_not_pack_go_back_to_the_program():
    """5 + 5 + 6 are the 16 GPUs of two nodes, and no two share a node: one goes elsewhere, the lowest priority out."""
    wishes = fleet([pool(nodes=2), pool("b", "l40s", nodes=2)], [intent("x"), intent("y"), intent("z")])
    offers = {
        name: [candidate("a", of=name, tp=tp, cost=1.0), candidate("b", of=name, gpu="l40s", tp=8, cost=9.0)]
        for name, tp in (("x", 5), ("y", 5), ("z", 6))
    }
    placed = place(wishes, offers)
    assert [one.status for one in placed.served] == ["met"] * 3
    assert placed.cost_per_hour == 11.0
    assert any("patterns" in note for note in placed.solved.notes)
    alone = fleet([pool(nodes=2)], [intent("x"), intent("y"), intent("z", priority=5)])
    overfull = {name: [offers[name][0]] for name in offers}
    placed = place(alone, overfull)
    assert [one.status for one in placed.served] == ["met", "met", "unmet"]
    assert validate(placed, alone, candidates=overfull) == []


def test_a_replica_larger_than_a_node_takes_whole_nodes():
    """16 GPUs on two whole nodes of one pool; the node beside it is free for others."""
    wishes = fleet([pool(nodes=3)], [intent("big"), intent("small")])
    offers = {
        "big": [candidate(of="big", tp=8, pp=2)],
        "small": [candidate(of="small", tp=1, replicas=8)],
    }
    placed = place(wishes, offers)
    assert [one.status for one in placed.served] == ["met", "met"]
    assert validate(placed, wishes, candidates=offers) == []
    (seats,) = placed["big"].seats
    assert sum(gpus for _, gpus in seats.nodes[0]) == 16
    assert len(seats.nodes[0]) == 2


def test_link_domains_are_kept():
    """Nodes of 8 in two domains of 4: six and two do not make eight, and tp 8 has no place."""
    wishes = fleet([pool(nodes=1, link_domain=4)], [intent("x"), intent("y"), intent("z")])
    offers = {
        "x": [candidate(of="x", tp=3)],
        "y": [candidate(of="y", tp=3)],
        "z": [candidate(of="z", tp=2), candidate(of="z", tp=1, replicas=2, cost=9.0)],
    }
    placed = place(wishes, offers)
    assert placed["z"].candidates == (offers["z"][1],)
    assert validate(placed, wishes, candidates=offers) == []
    wide = place(wishes, {"x": [candidate(of="x", tp=8)]})
    assert "wider than a link domain of 4" in wide["x"].reason


@pytest.mark.parametrize("spares", [0, 1])
def test_spares_are_spread_over_nodes(spares):
    """Without spares replicas are packed on one node; with them no node holds more than the spares."""
    wishes = fleet([pool(nodes=4)], [intent(availability=Availability(spares=spares))])
    placed = place(wishes, {"chat": [candidate(tp=1, replicas=4)]})
    held = gpus_by_node(placed)
    assert max(held.values()) == (1 if spares else 4)


def test_spares_spread_by_swapping_where_nothing_is_free():
    """A full fleet whose running replicas crowd one node: they swap places until no node holds both."""
    rule = Availability(spares=1)
    crowded = fleet([pool(nodes=2, gpus_per_node=2)], [intent("x"), intent("y")])
    offers = {name: [candidate(of=name, tp=1, replicas=2)] for name in ("x", "y")}
    first = place(crowded, offers)
    spread = fleet([pool(nodes=2, gpus_per_node=2)], [intent("x", availability=rule), intent("y")], movement=1.0)
    second = place(spread, offers, incumbent=first)
    assert len({name for nodes in second["x"].seats[0].nodes for name, _ in nodes}) == 2
    assert validate(second, spread, candidates=offers, incumbent=first) == []


def test_survival_of_a_node_is_checked_on_the_seats():
    """75 % after the loss of any node: four replicas on four nodes do, four on one node would not."""
    rule = Availability(survive="node", share=0.75)
    wishes = fleet([pool(nodes=4)], [intent(availability=rule)])
    offers = {"chat": [candidate(tp=1, replicas=4), candidate(tp=4, cost=1.0)]}
    placed = place(wishes, offers)
    assert placed["chat"].candidates == (offers["chat"][0],)
    assert set(gpus_by_node(placed).values()) == {1}
    assert validate(placed, wishes, candidates=offers) == []


def test_reserved_gpus_fill_the_last_domains():
    """Free GPUs of three nodes with 10 reserved: 8, 6, 0."""
    assert only(pool(nodes=3, reserved_gpus=10)).free.tolist() == [[8], [6], [0]]
    assert np.array_equal(only(pool(nodes=1, gpus_per_node=8, link_domain=3)).free, [[3, 3, 2]])
