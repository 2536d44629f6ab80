"""Ways: the counts that an intent may have, and the nodes that they take."""

from __future__ import annotations

import math

import pytest
from hand_world import intent, world
from hypothesis import given
from hypothesis import strategies as st

from planner.candidates.asking import ask
from planner.candidates.options import options
from planner.candidates.ways import PAIRS, SPLITS, Way, affordable, affords, apart, grown, nodes_for, splits
from planner.intents import Availability
from planner.strategies import Configuration


def shape(gpus: int) -> Configuration:
    """A replica of so many GPUs."""
    return Configuration(model="m", gpu="big", tp=gpus)


def asked(**changes):
    """The question and its options."""
    wish = intent(**changes)
    question = ask(wish, **world(wish))
    return question, tuple(options(question))


@pytest.mark.parametrize(
    ("sides", "nodes"),
    [([(4, 2)], 1), ([(4, 3)], 2), ([(4, 1), (2, 2)], 1), ([(4, 3), (2, 2)], 2), ([(16, 1)], 2), ([(16, 2), (1, 1)], 5),
     ([(3, 3)], 2)],
)  # fmt: skip
def test_nodes_by_hand(sides: list[tuple[int, int]], nodes: int) -> None:
    """Nodes of 8: replicas share one where they fit, and a replica beyond a node takes whole ones."""
    assert nodes_for([(shape(gpus), n) for gpus, n in sides], 8) == nodes


@given(st.lists(st.tuples(st.sampled_from([1, 2, 4, 8]), st.integers(1, 9)), min_size=1, max_size=3))
def test_powers_of_two_waste_no_node(sides: list[tuple[int, int]]) -> None:
    """Replicas whose sizes divide the node fill all nodes but the last."""
    need = sum(gpus * n for gpus, n in sides)
    assert nodes_for([(shape(gpus), n) for gpus, n in sides], 8) == math.ceil(need / 8)


def test_splits_use_all_that_may_be_used() -> None:
    """No split leaves room for one more replica of the side that it has least of, and all are within the budget."""
    question, found = asked(budget="24 USD/h", availability=Availability(spares=1))
    made = apart(question, found)
    assert 0 < len(made) <= PAIRS
    for pair in made:
        tried = list(splits(question, pair))
        assert 1 <= len(tried) <= SPLITS
        for counts in tried:
            assert affords(question, pair, counts)
            assert grown(question, pair, counts, 1) == counts
            assert pair.cost(question, (counts[0] + 1, counts[1] + 1)) <= 24


def test_spares_and_budget_leave_fewer_replicas() -> None:
    """What is affordable are the replicas of the richest pool within the budget, less the spares."""
    question, found = asked(budget="24 USD/h", availability=Availability(spares=1))
    free, _ = asked()
    for option in found:
        cost = 2.0 if option.configuration.gpu == "big" else 0.6
        assert affordable(question, option) == min(option.most, int(24 / (cost * option.configuration.gpus))) - 1
        assert affordable(free, option) == option.most


def test_a_way_is_written_as_its_strategy() -> None:
    """`big-tp2 x3` of an option, `2P1D a / b` of a pair, each side with its count."""
    question, found = asked()
    way = Way(of=found[0], counts=(3,))
    assert str(way) == f"{found[0].configuration} x3"
    pair = apart(question, found)[0]
    both = Way(of=pair, counts=(2, 1))
    assert str(both) == f"2P1D {pair.prefill.configuration} / {pair.decode.configuration}"
    assert [n for _, n in both.sides] == [2, 1]
    assert len(both.slow) == 2
