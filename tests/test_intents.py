"""Laws of what a user may wish: contradictions and impossible wishes are refused where they are written."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from planner.intents import SLO, Fleet, Intent

WORKLOAD = {"rate": "1 /s", "prompt": {"mean": 100.0}, "output": {"mean": 10.0}}
INTENT = {"name": "chat", "model": "org/model", "workload": WORKLOAD}
CLUSTER = {"pools": [{"name": "a", "gpu": "l4", "gpus_per_node": 1, "nodes": 1}]}


def intent(**changes: Any) -> Intent:
    """An intent with some keys changed, as read from a file."""
    return Intent.model_validate(INTENT | changes, strict=False)


def test_an_intent_needs_a_name_a_model_and_a_load() -> None:
    """Everything else has a default: cheapest, stable, one replica at least."""
    plain = intent()
    assert (plain.goal, plain.slo, plain.min_replicas, plain.priority) == ("min_cost", None, 1, 1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"goal": "latency_target"}, "add one, such as slo"),
        ({"goal": "cost_target"}, "add one, such as budget"),
        ({"min_replicas": 3, "max_replicas": 2}, "above max_replicas"),
        ({"slo": {}}, "names no limit"),
        ({"slo": {"ttft": "500"}}, "unit"),
        ({"slo": {"ttft": "-1 ms"}}, "out of range"),
        ({"slo": {"ttft": "1 ms", "attainment": 1.0}}, "0.999"),
        ({"quality": 1.5}, "less than or equal to 1"),
        ({"model": "../../etc/passwd"}, "pattern"),
        ({"name": "a b"}, "pattern"),
        ({"name": "a\nreplicas: 0"}, "pattern"),
        ({"goal": "cheapest"}, "min_cost"),
        ({"budget": "nan USD/h"}, "quantity"),
        ({"speed": 1}, "Extra inputs"),
    ],
)
def test_impossible_wishes_are_refused(changes: dict[str, Any], said: str) -> None:
    """Each is an error that says what is wrong."""
    with pytest.raises(ValidationError, match=said):
        intent(**changes)


def test_a_goal_with_what_it_needs_is_accepted() -> None:
    """latency_target with an slo, cost_target with a budget."""
    assert intent(goal="latency_target", slo={"ttft": "500 ms"}).slo == SLO(ttft="500 ms")  # type: ignore[arg-type]
    assert intent(goal="cost_target", budget="20 USD/h").budget == 20.0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"intents": [INTENT, INTENT]}, "declared twice"),
        ({"intents": []}, "at least 1"),
        ({"teams": [{"name": "t"}, {"name": "t"}]}, "declared twice"),
        ({"vllm_version": "latest"}, "pattern"),
        ({"movement": 0.0}, "greater than 0"),
    ],
)
def test_impossible_fleets_are_refused(changes: dict[str, Any], said: str) -> None:
    """A fleet has at least one intent, and every name once."""
    with pytest.raises(ValidationError, match=said):
        Fleet.model_validate({"cluster": CLUSTER, "intents": [INTENT]} | changes, strict=False)
