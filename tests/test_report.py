"""`planner.report`: the self-contained page and the pictures."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.plan import Plan, from_json, seal
from planner.report import html, images
from planner.report.svg import cost_against_latency, ticks

SAMPLE = Path(__file__).parent / "plans" / "sample.json"
VOID = {"meta", "br"}


def sample() -> Plan:
    """The hand-made plan."""
    return from_json(SAMPLE.read_text(encoding="utf-8"))


class Page(HTMLParser):
    """Checks that tags nest, and collects tags, links and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the tag."""
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in {"href", "src", "srcset", "action"}]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """A tag that closes itself."""
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        """The innermost open tag alone may close."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Note the text."""
        self.words.append(data)


def read(text: str) -> Page:
    """Parse a page to its end."""
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == []
    return page


def test_the_page_stands_alone() -> None:
    """No script, no link, no import: nothing is fetched."""
    text = html(sample())
    page = read(text)
    assert page.links == []
    assert not {"script", "link", "iframe", "img", "object"} & set(page.tags)
    assert "@import" not in text
    assert "url(" not in text
    assert "://" not in text


def test_everything_that_matters_is_said() -> None:
    """Every intent with its status, every pool, every relaxation, the baseline and the digests stand in the text."""
    plan = sample()
    words = " ".join(read(html(plan, plan.model_copy(update={"serial": 6, "cost_per_hour": 200.0}))).words)
    for said in (
        *(decision.name for decision in plan.intents),
        *(relaxation.text for decision in plan.intents for relaxation in decision.relaxations),
        *(pool.name for pool in plan.pools),
        *(choice.strategy for decision in plan.intents for choice in decision.chosen),
        plan.digest,
        plan.fleet_digest,
        "7 of 9 intents are served",
        "27.0% below one configuration for all",
        "13.0% below the plan in force",
    ):
        assert said in words


def test_equal_plans_give_equal_bytes() -> None:
    """Pages and pictures of one plan are byte for byte the same."""
    plan = sample()
    assert html(plan) == html(plan)
    assert images(plan) == images(plan)


def test_pictures_are_png() -> None:
    """Both pictures are PNG files of a size that an artifact can carry."""
    drawn = images(sample())
    assert set(drawn) == {"pareto", "utilisation"}
    for content in drawn.values():
        assert content.startswith(b"\x89PNG")
        assert len(content) < 400_000


@settings(max_examples=40)
@given(st.text(min_size=1, max_size=30))
def test_names_cannot_become_markup(name: str) -> None:
    """Whatever an intent is called, the page nests and holds no tag that was not there before."""
    plan = sample()
    text = html(plan)
    first = plan.intents[0].model_copy(update={"name": f"<b onclick='x'>{name}</script>&", "reason": name})
    other = html(plan.model_copy(update={"intents": (first, *plan.intents[1:])}))
    assert sorted(read(other).tags) == sorted(read(text).tags)


def test_a_plan_without_anything_still_has_a_page() -> None:
    """No placements, no rejections, no front: the page still says what there is."""
    plan = sample()
    bare = [
        d.model_copy(update={"chosen": (), "front": (), "runner_up": None, "status": "unmet"}) for d in plan.intents
    ]
    empty = seal(plan.model_copy(update={"intents": tuple(bare), "placements": (), "rejections": (), "pools": ()}))
    assert "0 of 9 intents are served" in html(empty)
    assert images(empty)["pareto"].startswith(b"\x89PNG")


def test_the_chosen_point_is_drawn() -> None:
    """The plot of a served intent holds its chosen point, its SLO and its options, each named."""
    decision = sample().intents[0]
    drawing = cost_against_latency(decision)
    assert drawing.count('class="chosen"') == 1
    assert "SLO 40 ms" in drawing
    assert decision.chosen[0].strategy in drawing


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.0, 0.037), (3.0, 1234.0)])
def test_ticks_are_round_and_inside(low: float, high: float) -> None:
    """Between three and twelve ticks, ascending, none outside."""
    found = ticks(low, high)
    assert 2 <= len(found) <= 12
    assert found == sorted(found)
    assert low - 1e-9 <= found[0]
    assert found[-1] <= high + 1e-9
