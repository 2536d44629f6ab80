"""`planner.review`: what stands against a plan taking the place of the one that is live."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_repositories import FIRST, after, plan_of, resized, without

from planner.plan import Movement, Plan
from planner.review import gone, moved_gpus, review

GPUS = sum(group.gpus for group in FIRST.placements)
CHAT = next(group for group in FIRST.placements if group.intent == "chat")


def kinds(plan: Plan, live: Plan | None, **more: Any) -> list[str]:
    """The kinds of objection."""
    return [objection.kind for objection in review(plan, live, **more)]


def test_nothing_stands_against_the_first_plan_nor_against_what_is_live() -> None:
    """Before the first nothing can be stale or moved; a plan never objects to itself, whatever its serial."""
    assert review(FIRST, None) == ()
    assert review(FIRST.model_copy(update={"serial": 99}), FIRST, newest=7) == ()


def test_every_objection_says_what_and_how_to_mend_it() -> None:
    """All that is wrong is said at once, each with its mend."""
    bad = plan_of(1, placements=(), movement=Movement(share=0.1))
    found = review(bad, FIRST.model_copy(update={"digest": "other"}), newest=4, fleet_digest="f" * 64)
    assert [objection.kind for objection in found[:3]] == ["stale", "stale", "empty"]
    assert {objection.kind for objection in found[3:]} == {"gone"}
    assert all(objection.text and objection.mend for objection in found)


def test_a_serial_that_was_live_once_is_stale() -> None:
    """A serial at or below the highest that was ever live is stale, one above is not."""
    second = after(FIRST, placements=resized(FIRST, "chat", CHAT.replicas + 1))
    assert [kinds(second, FIRST, newest=newest) for newest in (0, 1, 2, 3)] == [[], [], ["stale"], ["stale"]]


def test_gone_is_what_had_replicas_and_has_none() -> None:
    """Unmet intents that never ran are not gone; a tombstone of the plan or by name buries what is."""
    fewer = after(FIRST, placements=without(FIRST, "chat"))
    assert gone(fewer, FIRST) == ("chat",)
    assert gone(FIRST, fewer) == ()
    assert kinds(fewer, FIRST) == ["gone"]
    assert kinds(fewer, FIRST, retired=["chat"]) == []
    assert kinds(after(FIRST, placements=fewer.placements, retired=("chat",)), FIRST) == []


@settings(max_examples=40)
@given(st.integers(1, 8), st.integers(1, 8), st.booleans())
def test_movement_counts_starts_of_settled_services(before: int, now: int, settled: bool) -> None:  # noqa: FBT001 - drawn
    """GPUs moved are the replicas that are more than before times their size, of settled services alone."""
    live = plan_of(1, placements=resized(FIRST, "chat", before))
    movement = Movement(share=0.5, settled=("chat",) if settled else ())
    plan = after(live, placements=resized(FIRST, "chat", now), movement=movement)
    expected = max(0, now - before) * CHAT.gpus_per_replica if settled else 0
    assert moved_gpus(plan, live) == expected


def test_parts_of_a_gpu_are_moved_as_parts() -> None:
    """Where four engines share a GPU, five that start are two GPUs; and sharing otherwise is a start like any other."""

    def shared(replicas: int, engines: int = 4) -> Plan:
        part = CHAT.model_copy(update={"replicas": replicas, "gpus_per_replica": 1, "engines_per_gpu": engines,
                                       "nodes": CHAT.nodes[:1] * replicas})  # fmt: skip
        return plan_of(1, placements=(*without(FIRST, "chat"), part))

    live = shared(3)
    plan = after(live, placements=shared(8).placements, movement=Movement(share=0.5, settled=("chat",)))
    assert moved_gpus(plan, live) == 2
    other = after(live, placements=shared(4, engines=2).placements, movement=Movement(share=0.5, settled=("chat",)))
    assert moved_gpus(other, live) == 2


@pytest.mark.parametrize(("spare", "objected"), [(0, False), (1, True)])
def test_the_limit_of_movement_is_a_share_of_what_runs(spare: int, objected: bool) -> None:  # noqa: FBT001 - a table
    """Exactly as much as the share allows passes, one GPU more does not."""
    more = resized(FIRST, "chat", CHAT.replicas + 1)
    share = (CHAT.gpus_per_replica - spare * 0.5) / GPUS
    plan = after(FIRST, placements=more, movement=Movement(share=share, settled=("chat",)))
    assert kinds(plan, FIRST) == ["movement"] * objected


def test_on_another_base_what_was_served_and_asks_no_more_counts() -> None:
    """Made from a plan that was never live, the plan's own account does not hold: rates and limits decide."""
    more = resized(FIRST, "chat", CHAT.replicas + 1)
    movement = Movement(share=0.01, forced_gpus=100, settled=())
    assert kinds(after(FIRST, placements=more, movement=movement), FIRST) == []
    skipped = after(FIRST, placements=more, movement=movement, changed_from="0" * 64)
    assert kinds(skipped, FIRST) == ["movement"]
    busier = tuple(
        intent.model_copy(update={"rate": intent.rate * 2}) if intent.name == "chat" else intent
        for intent in FIRST.intents
    )
    grown = after(FIRST, placements=more, movement=movement, changed_from="0" * 64, intents=busier)
    assert kinds(grown, FIRST) == []
