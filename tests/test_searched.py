"""Laws of kept searches: what comes back is what was found, and only for the very same question."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from small_fleet import FLEET

from catalog.store import Plans, Store
from flows import searched
from flows.fleet import read_fleet
from flows.night import fitted, search_fleet
from flows.search import Facts
from flows.searched import KIND, Searched, drawn, program, read, written
from flows.site import Site
from planner.plan import Search
from planner.roofline import op_time
from probes.fake import FakeRunner


def site(folder: Path) -> Site:
    """Stores below a folder, with a fake runner."""
    runner = FakeRunner(bound=op_time)
    return Site(store=Store(folder / "catalog"), plans=Plans(folder / "plans"), measured_by="fake", runner=runner)


def facts_of(folder: Path, text: str = FLEET) -> Facts:
    """The facts of a fleet."""
    path = folder / "fleet.yaml"
    path.write_text(text)
    return fitted(read_fleet(path), site(folder))[0]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Facts, Search]:
    """A folder, the facts of its fleet, and the search that a night made and kept."""
    folder = tmp_path_factory.mktemp("searched")
    (folder / "fleet.yaml").write_text(FLEET)
    facts, found = search_fleet(read_fleet(folder / "fleet.yaml"), site(folder))
    return folder, facts, found["chat"]


def test_a_search_comes_back_as_it_was(world: tuple[Path, Facts, Search]) -> None:
    """Candidates, rejections and numbers survive to the last bit, infinities too."""
    search = world[2]
    assert search.candidates
    assert read(written(search)) == search
    first = search.candidates[0]
    slow = replace(first, estimate=replace(first.estimate, ttft_high=math.inf))
    unbounded = replace(search, candidates=(slow, *search.candidates[1:]))
    assert read(written(unbounded)) == unbounded


def test_the_night_kept_what_it_searched(world: tuple[Path, Facts, Search]) -> None:
    """The same question finds the search again, in a store that was opened anew."""
    folder, facts, search = world
    assert Searched(Store(folder / "catalog"), facts).find(facts.loaded.fleet.intents[0]) == search


CHANGES = {
    "the intent": ("tpot: 60 ms", "tpot: 61 ms"),
    "the load": ("rate: 4 /s", "rate: 5 /s"),
    "the lengths": ("mean: 500, cv: 0.5", "mean: 500, cv: 0.6"),
    "the cluster": ("nodes: 2", "nodes: 3"),
    "the price": ("2.29", "2.30"),
    "the engine": ("cluster:", "vllm_version: 0.33.0\ncluster:"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_another_question_finds_nothing(world: tuple[Path, Facts, Search], tmp_path: Path, what: str) -> None:
    """Whatever decides a search is in its key: intent, load, lengths, cluster, price, engine."""
    folder, _, _ = world
    facts = facts_of(tmp_path, FLEET.replace(*CHANGES[what]))
    assert Searched(Store(folder / "catalog"), facts).find(facts.loaded.fleet.intents[0]) is None


def test_another_program_finds_nothing(world: tuple[Path, Facts, Search], monkeypatch: pytest.MonkeyPatch) -> None:
    """A search of another version of the source is not taken for one of this."""
    folder, facts, _ = world
    monkeypatch.setattr(searched, "program", lambda: "another")
    assert Searched(Store(folder / "catalog"), facts).find(facts.loaded.fleet.intents[0]) is None


def test_another_measurement_finds_nothing(world: tuple[Path, Facts, Search], tmp_path: Path) -> None:
    """A record that predictions may rest on, such as a benchmark brought by the user, makes every search anew."""
    folder, facts, _ = world
    before = Searched(Store(folder / "catalog"), facts).key(facts.loaded.fleet.intents[0])
    facts_there = facts_of(tmp_path)
    store = Store(tmp_path / "catalog")
    store.put("bench", {"run": 1})
    assert Searched(store, facts_there).key(facts_there.loaded.fleet.intents[0]) != before
    store.put("review", {"proposal": 1})


def test_a_damaged_search_is_made_again(world: tuple[Path, Facts, Search], tmp_path: Path) -> None:
    """A record whose bytes changed is no search; the night searches anew."""
    _, _, search = world
    (tmp_path / "fleet.yaml").write_text(FLEET)
    facts, _ = search_fleet(read_fleet(tmp_path / "fleet.yaml"), site(tmp_path))
    (path,) = (tmp_path / "catalog" / KIND).iterdir()
    path.write_bytes(path.read_bytes()[:-9] + b"x" * 9)
    assert Searched(Store(tmp_path / "catalog"), facts).find(facts.loaded.fleet.intents[0]) is None
    assert search_fleet(read_fleet(tmp_path / "fleet.yaml"), site(tmp_path))[1]["chat"] == search


def test_requests_are_told_apart(world: tuple[Path, Facts, Search]) -> None:
    """One token more, or another rate, is another draw; a copy is the same."""
    requests = world[1].requests["chat"]
    longer = requests.prompt.copy()
    longer[0] += 1
    assert drawn(replace(requests, prompt=requests.prompt.copy())) == drawn(requests)
    assert drawn(replace(requests, prompt=longer)) != drawn(requests)
    assert drawn(replace(requests, rate=requests.rate * (1 + 1e-15))) != drawn(requests)


def test_the_program_is_known_by_its_source() -> None:
    """The digest is stable within a version."""
    assert program() == program()
    assert len(program()) == 64
