"""Faults: pydantic's errors in clear words, in line order."""

from __future__ import annotations

import pytest

from catalog.documents import parse_yaml
from catalog.errors import BadInput
from flows.faults import SHOWN, brief, keys_at, placed, raise_first, validated
from planner.intents import SLO, Fleet


def test_the_first_fault_in_line_order_is_raised_and_the_others_follow() -> None:
    """Line 3 comes before line 20, whatever the order of finding; the rest stands below it."""
    faults = [BadInput("late", place="f.yaml:20: a.b"), BadInput("early", place="f.yaml:3", mend="mend it")]
    with pytest.raises(BadInput) as caught:
        raise_first(faults)
    assert str(caught.value).splitlines() == ["f.yaml:3: early; mend it", "  also: f.yaml:20: a.b: late"]
    raise_first([])


def test_many_faults_are_counted_not_listed() -> None:
    """Ten are shown, the others counted."""
    with pytest.raises(BadInput) as caught:
        raise_first(BadInput("x", place=f"f:{i}") for i in range(1, 100))
    lines = str(caught.value).splitlines()
    assert (len(lines), lines[-1]) == (SHOWN + 1, f"  and {99 - SHOWN} more errors")


def test_keys_of_a_place_are_the_models_keys() -> None:
    """Near names are drawn from the keys that the place has."""
    assert "ttft" in keys_at(SLO, ())
    assert "attainment" in keys_at(Fleet, ("intents", 0, "slo"))
    assert "gpus_per_node" in keys_at(Fleet, ("cluster", "pools", 3))


def test_a_fault_of_another_file_keeps_its_place() -> None:
    """The config.json that was named in fleet.yaml stays in the text."""
    document = parse_yaml("a:\n  b: 1\n", name="f.yaml")
    fault = placed(BadInput("broken JSON", place="c.json:1"), document, ("a", "b"))
    assert str(fault) == "f.yaml:2: a.b: c.json:1: broken JSON"


def test_a_value_error_is_split_into_what_and_mend() -> None:
    """The colon that separates is the first outside quotes."""
    with pytest.raises(BadInput) as caught:
        validated(SLO, parse_yaml('ttft: "5 a:"\n', name="f.yaml"))
    assert caught.value.what == "'5 a:' has the unit 'a:'"
    assert caught.value.mend.startswith("write one of ms")


def test_brief_is_short() -> None:
    """No value floods a message."""
    assert brief([1]) == "a list"
    assert brief({}) == "a mapping"
    assert len(brief("x" * 10_000)) <= 80
