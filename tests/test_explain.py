"""`planner.explain`: one intent's decision in plain words."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalog.errors import BadInput
from planner.explain import explain, seconds
from planner.explain.outlook import margins
from planner.plan import NodeShare, Plan, Relaxation, Stress, from_json

SAMPLE = Path(__file__).parent / "plans" / "sample.json"


@pytest.fixture
def plan() -> Plan:
    """The hand-made plan."""
    return from_json(SAMPLE.read_text(encoding="utf-8"))


def test_a_served_intent_is_explained(plan: Plan) -> None:
    """Why this strategy, what bound it, the runner-up and its price, and what the numbers rest on."""
    text = explain(plan, "chat")
    for said in (
        "Chosen: h100_sxm-tp4-fp8 x3 for 27.48 USD/h",
        "limit 500 ms",
        "What bound it: TPOT",
        "Runner-up: h200_sxm-tp4-fp8 x2 for 30.75 USD/h, 3.27 USD/h more",
        "Ruled out: 123 strategies",
        "one more h100_sxm node in h100-eu saves 7.92 USD/h",
        "published kernel measurements",
    ):
        assert said in text


def test_changes_that_help_only_together_are_told_so(plan: Plan) -> None:
    """Limits that must give way at once are not offered as changes that each help alone."""
    index = next(i for i, decision in enumerate(plan.intents) if decision.relaxations)
    decision = plan.intents[index]
    joint = tuple(
        Relaxation(dimension=limit, from_value=0.002, to_value=0.1, unit="s", text=f"allow {limit}, together with more")
        for limit in ("ttft", "tpot")
    )
    for relaxations, said in ((decision.relaxations, "of each kind alone"), (joint, "these, all at once")):
        mine = decision.model_copy(update={"relaxations": relaxations})
        changed = (*plan.intents[:index], mine, *plan.intents[index + 1 :])
        assert said in explain(plan.model_copy(update={"intents": changed}), mine.name)


@pytest.mark.parametrize(
    ("binding", "said"),
    [
        ("load", "What bound it: its load; nothing cheaper carries it."),
        ("slo (ttft and tpot)", "its own limits (TTFT, TPOT); nothing cheaper keeps them at this load."),
        ("capacity: node pool a is short by 2 of 4 GPUs", "What bound it: capacity: node pool a is short"),
    ],
)
def test_what_bound_a_choice_is_said_in_words(plan: Plan, binding: str, said: str) -> None:
    """The plan's short words for limits are spelled out; a row that was full names itself."""
    first, *rest = plan.intents
    bound = plan.model_copy(update={"intents": (first.model_copy(update={"binding": binding}), *rest)})
    assert said in explain(bound, first.name)


def test_an_unmet_intent_says_what_would_help(plan: Plan) -> None:
    """Every relaxation that was found is told, one line each."""
    text = explain(plan, "live-voice")
    assert "not met" in text
    decision = next(decision for decision in plan.intents if decision.name == "live-voice")
    assert all(relaxation.text in text for relaxation in decision.relaxations)


def test_every_intent_can_be_explained(plan: Plan) -> None:
    """No intent of a plan is without words: served, at its margin, unmet or unknown."""
    for decision in plan.intents:
        text = explain(plan, decision.name)
        assert decision.reason in text
        assert "None" not in text


def test_what_a_spot_pool_means_is_said(plan: Plan) -> None:
    """Who runs on hardware that may be taken back at any time is told so; on demand needs no words."""
    assert "spot" not in explain(plan, "chat")
    pools = tuple(pool.model_copy(update={"tier": "spot"}) for pool in plan.pools)
    text = explain(plan.model_copy(update={"pools": pools}), "chat")
    assert "h100-eu is spot: rented by the hour and taken back at any time" in text


def test_an_unknown_intent_names_near_ones(plan: Plan) -> None:
    """A typo is answered with the names that are close."""
    with pytest.raises(BadInput, match="did you mean 'chat'"):
        explain(plan, "caht")


def test_durations_are_read_easily() -> None:
    """Milliseconds below a second, and what has no bound says so."""
    assert [seconds(value) for value in (0.0305, 1.5, None)] == ["30.5 ms", "1.5 s", "without bound"]


def test_replicas_over_several_nodes_say_what_was_not_measured(plan: Plan) -> None:
    """Half the network's bandwidth is told for pairs; for a replica over nodes the explanation owns up."""
    stress = Stress(case="slow_end", breaks_at=1.3, first_to_break="tpot", holds_at=(0.8, 1.0, 1.2))
    decision = next(d for d in plan.intents if d.name == "chat").model_copy(update={"robustness": (stress,)})
    group = next(group for group in plan.placements if group.intent == "chat")
    two = (NodeShare(node="h100-eu-0", gpus=8), NodeShare(node="h100-eu-1", gpus=8))
    for nodes, owned in ((group.nodes, False), ((two,), True)):
        placed = (group.model_copy(update={"nodes": nodes}),)
        (text,) = margins(plan.model_copy(update={"placements": placed}), decision)
        assert "20 % more load with slow predictions is carried" in text
        assert ("not measured" in text) is owned
