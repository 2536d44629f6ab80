"""`planner.naive`: what a team without a planner would pay for one intent."""

from __future__ import annotations

from typing import Any

import pytest
from hand_world import GPUS, cheapest, intent, memory_of, predictor_of, world

from planner.intents import Availability, Intent
from planner.naive import DEFAULT_LIMITS, default_limits, naive_cost_of


def naive(wish: Intent, **more: Any) -> float | None:
    """Naive cost in the world whose answers can be worked out by hand."""
    given = world(wish) | more
    given.pop("facts")
    return naive_cost_of(wish, predictor_of=predictor_of, memory_of=memory_of, **given)


def test_the_plan_is_never_dearer_than_naive_on_the_same_terms() -> None:
    """The search may use what naive uses and more, so its cheapest strategy costs at most as much."""
    for rate in (1.0, 20.0, 200.0):
        wish = intent(rate=rate)
        cost = naive(wish)
        assert cost is not None
        assert cheapest(wish) <= cost * 1.1


def test_more_load_is_never_cheaper() -> None:
    """Twice the rate costs at least as much."""
    costs = [naive(intent(rate=rate)) for rate in (1.0, 10.0, 100.0, 1000.0)]
    assert None not in costs
    assert costs == sorted(costs)  # type: ignore[type-var]


def test_restrictions_and_budgets_do_not_reach_it() -> None:
    """Naive ignores pools, formats, budgets and the fleet's size: it is what one would order without looking."""
    plain = naive(intent(rate=50.0))
    assert naive(intent(rate=50.0, budget="1 USD/h", quality=0.5, forbidden_pools=("big-a",))) == plain


def test_reserves_cost_the_same_way() -> None:
    """A spare replica is paid for."""
    plain, spared = naive(intent(rate=50.0)), naive(intent(rate=50.0, availability=Availability(spares=2)))
    assert plain is not None
    assert spared is not None
    assert spared > plain


def test_what_cannot_be_kept_has_no_naive_cost() -> None:
    """A limit that no replica of that GPU type keeps gives none, and so does a pool without a price."""
    wish = intent(rate=1.0)
    tight = wish.model_copy(update={"slo": wish.slo.model_copy(update={"ttft": 1e-6})})
    assert naive(tight) is None
    assert naive(wish, prices={}) is None


CARDS = [
    ("h200_sxm", 141e9, "middle"),
    ("b200_sxm", 192e9, "large"),
    ("a100_sxm", 80e9, "small"),
    ("l4", 24e9, "small"),
]


@pytest.mark.parametrize(("name", "memory", "size"), CARDS)
def test_default_limits_are_vllms(name: str, memory: float, size: str) -> None:
    """The batch limits follow the GPU's memory, and an A100 counts as small."""
    gpu = GPUS["big"].model_copy(update={"name": name, "memory": memory})
    assert default_limits(gpu) == DEFAULT_LIMITS[size]
