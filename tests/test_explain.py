"""`planner.explain`: one intent's decision in plain words."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalog.errors import BadInput
from planner.explain import explain, seconds
from planner.plan import Plan, from_json

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


def test_an_unknown_intent_names_near_ones(plan: Plan) -> None:
    """A typo is answered with the names that are close."""
    with pytest.raises(BadInput, match="did you mean 'chat'"):
        explain(plan, "caht")


def test_durations_are_read_easily() -> None:
    """Milliseconds below a second, and what has no bound says so."""
    assert [seconds(value) for value in (0.0305, 1.5, None)] == ["30.5 ms", "1.5 s", "without bound"]
