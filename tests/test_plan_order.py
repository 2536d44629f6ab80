"""`planner.plan.order`: the waves of the change as a plan states them, and everybody that tells them."""

from __future__ import annotations

import pytest
from random_plans import SAMPLE
from small_fleets import candidate, fleet, intent, pool
from test_flows import FLEET, night

from catalog.models import load_models
from planner.diff import diff
from planner.explain import explain, waves_of
from planner.placement import Rules, place
from planner.plan import (
    Dip,
    Facts,
    Plan,
    PlannedMove,
    PlannedWave,
    Provenance,
    Search,
    assemble,
    from_json,
    seal,
    to_json,
)
from planner.plan.order import order
from planner.report import html


@pytest.fixture
def sample_plan() -> Plan:
    """The hand-made plan."""
    return from_json(SAMPLE.read_text(encoding="utf-8"))


RULES = Rules(start_gpu_hours=0.0)


def two_nights():
    """One intent goes from two replicas of tp 1 to one of tp 4 on a pool with room for both."""
    wishes = fleet([pool()], [intent()], movement=1.0)
    first = place(wishes, {"chat": [candidate(replicas=2)]})
    return wishes, first, place(wishes, {"chat": [candidate(tp=4, cost=1.0)]}, incumbent=first, rules=RULES)


def test_a_first_night_has_no_order():
    """Where nothing runs there is no change to order."""
    _, first, _ = two_nights()
    assert order(first) == ()


def test_starts_name_their_group_and_stops_the_replicas_that_go():
    """By hand: the tp 4 replica starts as group 0 of the plan, then both replicas of tp 1 stop, in one wave or more."""
    _, _, second = two_nights()
    found = order(second)
    starts = [move for wave in found for move in wave.starts]
    stops = [move for wave in found for move in wave.stops]
    assert [(move.configuration, move.replicas, move.gpus, move.group) for move in starts] == [("h100-tp4", 1, 4, 0)]
    assert sum(move.replicas for move in stops) == 2
    assert {(move.configuration, move.group) for move in stops} == {("h100-tp1", None)}
    assert found[0].starts
    assert not found[0].stops_first
    assert all(len(move.nodes) == move.replicas for move in (*starts, *stops))


def sealed(plan: Plan, **more) -> Plan:
    """The plan with other fields and its own digest."""
    return seal(plan.model_copy(update=more))


def two_plans(plan: Plan) -> tuple[Plan, Plan]:
    """A plan and one made from it, with one wave."""
    start = PlannedMove(
        intent="chat", role="both", node_pool="a", configuration="h100-tp4", replicas=1, gpus=4, nodes=("a-0",), group=0
    )
    stop = PlannedMove(intent="chat", role="both", node_pool="a", configuration="h100-tp1", replicas=2, gpus=2)
    before = sealed(plan, waves=())
    wave = PlannedWave(starts=(start,), stops=(stop,))
    return before, sealed(plan, cost_per_hour=plan.cost_per_hour + 1, waves=(wave,), changed_from=before.digest)


def test_explanation_difference_and_report_tell_the_same_order(sample_plan):
    """Starts before stops, in the words of `waves_of`, wherever the change is shown."""
    before, after = two_plans(sample_plan)
    told = "start 1 replica of h100-tp4 on a (chat); stop 2 replicas of h100-tp1 on a (chat)"
    assert [(number, "; ".join(lines)) for number, lines in waves_of(after)] == [(1, told)]
    assert waves_of(after, "someone-else") == ()
    assert f"1. {told}" in diff(before, after).markdown()
    assert diff(after, after).waves == ()
    assert told in html(after.model_copy(update={"placements": ()}), previous=before)


def test_a_wave_that_must_stop_first_says_so_first(sample_plan):
    """What stops is told before what starts, and the dip after both."""
    _, after = two_plans(sample_plan)
    dip = Dip(intent="chat", served_share=0.5)
    forced = after.waves[0].model_copy(update={"stops_first": True, "dips": (dip,)})
    plan = sealed(after, waves=(forced,))
    ((_, lines),) = waves_of(plan)
    assert [line.split()[0] for line in lines] == ["stop", "start", "until"]
    assert lines[-1] == "until then 50% of chat is served"


def test_an_assembled_plan_carries_its_waves_and_what_it_changes():
    """Waves and the digest of the plan before are in plan.json, and survive reading."""
    wishes, _, second = two_nights()
    facts = Facts(
        models={"org/m": next(model for model in load_models().values() if model.native == "bf16")},
        gpus={},
        prices={"a": 2.0},
        kv_bytes=lambda _: 1,
        provenance=Provenance(fingerprints=(), tables="", constants=""),
        changed_from="d" * 64,
    )
    plan = assemble(wishes, second, {"chat": Search()}, facts)
    again = from_json(to_json(plan))
    assert again.waves == order(second)
    assert again.changed_from == "d" * 64


def test_the_second_night_orders_its_change_and_the_third_restates_it(tmp_path):
    """A night with another load says from which plan it goes, and how; the same night again is the same plan."""
    first = night(tmp_path).plan
    busier = FLEET.replace("rate: 4 /s", "rate: 200 /s")
    second = night(tmp_path, busier).plan
    assert (first.waves, first.changed_from) == ((), "")
    assert second.changed_from == first.digest
    assert any(wave.starts for wave in second.waves)
    assert all(second.placements[move.group].intent == move.intent for wave in second.waves for move in wave.starts)
    assert diff(first, second).waves
    assert "Order of the change" in explain(second, "chat")
    assert night(tmp_path, busier).plan.digest == second.digest


def test_replicas_that_go_belong_to_no_group_though_their_like_stay():
    """By hand: three equal replicas become two; the one that stops is of the plan before."""
    wishes = fleet([pool()], [intent()], movement=1.0)
    first = place(wishes, {"chat": [candidate(replicas=3)]})
    found = order(place(wishes, {"chat": [candidate(replicas=2)]}, incumbent=first, rules=RULES))
    (stop,) = [move for wave in found for move in wave.stops]
    assert (stop.replicas, stop.group) == (1, None)
