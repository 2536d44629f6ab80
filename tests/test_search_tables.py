"""`flows.search_tables`: what a person sees of a search, on narrow and on wide terminals."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from hand_world import found, intent
from rich.console import Console

from flows.search_tables import Candidates, marked, rejections
from planner.candidates.front import slowness

SEARCHED = found(intent(goal="min_latency"))
WHOLE = [one for one in SEARCHED.candidates if one.share >= 1.0]


def shown(renderable: object, width: int) -> str:
    """What stands on a terminal of that width."""
    written = io.StringIO()
    Console(width=width, file=written).print(renderable)
    return written.getvalue()


def test_the_front_is_what_nobody_beats() -> None:
    """On the front stand exactly those that no other equals or beats in cost, latency and quality, ties once."""

    def numbers(one):
        return (one.cost_per_hour, slowness(one), -one.quality)

    marks = marked(WHOLE)
    assert len(marks) > 1
    for one in WHOLE:
        beaten = any(
            numbers(other) != numbers(one) and all(a <= b for a, b in zip(numbers(other), numbers(one), strict=True))
            for other in WHOLE
        )
        assert not (beaten and id(one) in marks)
        assert beaten or any(numbers(other) == numbers(one) for other in WHOLE if id(other) in marks)
    said = [mark for names in marks.values() for mark in names]
    assert sorted(said) == ["best", "cheapest", "fastest"]


@pytest.mark.parametrize("width", [80, 120, 160])
def test_nothing_is_cut(width: int) -> None:
    """Every strategy of the front is written out, whatever the width; lines keep within it."""
    text = shown(Candidates(found=SEARCHED.candidates, top=3), width)
    assert all(len(line) <= width for line in text.splitlines())
    assert "…" not in text
    assert f"{len(WHOLE):,} candidates serve the whole rate" in " ".join(text.split())
    for mark in ("* cheapest", "* fastest", "* best"):
        assert mark in text
    assert ("goodput /s" in text) == (width >= 100)
    for one in WHOLE:
        if id(one) in marked(WHOLE):
            assert all(part in text for part in str(one.strategy).split(" / "))


def test_without_candidates_that_is_said() -> None:
    """No strategy for the whole rate is a sentence, and how many serve a part of it."""
    assert "no strategy serves the whole rate" in shown(Candidates(found=(), top=3), 80)
    part = tuple(replace(one, share=0.5) for one in WHOLE[:2])
    assert "2 serve a part of it" in shown(Candidates(found=part, top=3), 80)


@pytest.mark.parametrize("width", [80, 120])
def test_rejections_are_counted_by_reason(width: int) -> None:
    """Each reason stands once with its whole count and its share; together they are the total."""
    text = shown(rejections(SEARCHED.rejections, top=4), width)
    total = sum(one.count for one in SEARCHED.rejections)
    assert f"{total:,} strategies rejected" in text
    for reason in {one.reason for one in SEARCHED.rejections}:
        count = sum(one.count for one in SEARCHED.rejections if one.reason == reason)
        assert f"{count:,}" in text
        assert f"{count / total:.1%}" in text
