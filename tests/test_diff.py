"""`planner.diff`: what changes from one plan to the next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from planner.diff import diff
from planner.plan import NodeShare, Plan, from_json, seal

SAMPLE = Path(__file__).parent / "plans" / "sample.json"


@pytest.fixture
def plan() -> Plan:
    """The hand-made plan."""
    return from_json(SAMPLE.read_text(encoding="utf-8"))


def changed(plan: Plan, intent: str, **update: Any) -> Plan:
    """The plan with the first group of an intent changed."""
    groups = list(plan.placements)
    index = next(i for i, group in enumerate(groups) if group.intent == intent)
    groups[index] = groups[index].model_copy(update=update)
    return seal(plan.model_copy(update={"placements": tuple(groups)}))


def test_equal_plans_differ_in_nothing(plan: Plan) -> None:
    """A plan against itself, whatever the serial, is no difference."""
    assert not diff(plan, plan)
    assert not diff(plan, plan.model_copy(update={"serial": 8}))
    assert diff(plan, plan).markdown() == "No change.\n"


def test_without_a_plan_everything_is_added(plan: Plan) -> None:
    """The first night adds every group, and its GPUs sum to those placed."""
    first = diff(None, plan)
    added = [change for change in first.changes if change.kind == "added"]
    assert len(added) == len(plan.placements)
    assert sum(change.gpus for change in added) == sum(group.gpus for group in plan.placements)
    assert first.cost == plan.cost_per_hour
    own = diff(None, changed(plan, "chat", overrides={"seed": 4})).changes
    assert [change.intent for change in own if "override --seed none → 4" in change.text] == ["chat"]


@pytest.mark.parametrize(
    ("update", "kind", "said"),
    [
        ({"max_num_seqs": 99}, "reconfigured", "max_num_seqs 192 → 99"),
        ({"tp": 8, "gpus_per_replica": 8}, "reconfigured", "h100_sxm-tp8-fp8"),
        ({"node_pool": "h200-us"}, "moved", "on h200-us"),
        ({"replicas": 5}, "resized", "3 → 5 replicas"),
        ({"overrides": {"seed": 4}}, "reconfigured", "override --seed none → 4"),
        ({"tp": 8, "gpus_per_replica": 8, "overrides": {"seed": 4}}, "reconfigured", "override --seed none → 4"),
        ({"nodes": ((NodeShare(node="h100-eu-7", gpus=4),),) * 3}, "moved", "3 of 3 replicas change nodes"),
    ],
)
def test_each_change_is_named(plan: Plan, update: dict[str, Any], kind: str, said: str) -> None:
    """Every way in which a group can change has its own word and says from what to what."""
    (change,) = diff(plan, changed(plan, "chat", **update)).changes
    assert change.kind == kind
    assert said in change.text


def test_there_and_back_mirror_each_other(plan: Plan) -> None:
    """GPUs and money gained one way are those lost the other way."""
    fewer = plan.model_copy(update={"cost_per_hour": 200.0, "placements": plan.placements[1:]})
    other = changed(fewer, "retrieval", replicas=5)
    there, back = diff(plan, other), diff(other, plan)
    assert there.cost == -back.cost
    assert sum(change.gpus for change in there.changes) == -sum(change.gpus for change in back.changes)


def test_status_and_margins_are_compared(plan: Plan) -> None:
    """An intent that loses its status and a margin that shrinks show in the difference."""
    intents = list(plan.intents)
    slow = (
        intents[0].chosen[0].model_copy(update={"ttft": intents[0].chosen[0].ttft.model_copy(update={"high_s": 0.49})})
    )
    intents[0] = intents[0].model_copy(update={"status": "margin_consumed", "chosen": (slow,)})
    found = diff(plan, seal(plan.model_copy(update={"intents": tuple(intents)})))
    assert ("status", "chat", "met → margin consumed", "0") in found.rows
    before, after = found.margins["chat ttft"]
    assert before is not None
    assert after == pytest.approx(0.02)
    assert "chat ttft" in found.markdown()


def test_markdown_cells_cannot_break_the_table(plan: Plan) -> None:
    """A pipe or a newline in a name stays inside its cell."""
    intents = (plan.intents[0].model_copy(update={"name": "a|b\nc"}), *plan.intents[1:])
    text = diff(None, plan.model_copy(update={"intents": intents})).markdown()
    assert "a\\|b c" in text
