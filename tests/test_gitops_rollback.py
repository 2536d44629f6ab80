"""`flows.gitops.rollback`: an earlier plan's files come back as they were, and stay."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_repositories import FIRST, after, at, files_at, git, put, resized, started, without

from catalog.errors import BadInput, StalePlan
from flows.gitops import before, held, rollback
from planner.plan import from_json


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working copy with one commit on `main`."""
    return started(tmp_path, monkeypatch)


def test_rollback_brings_files_back_as_they_were(repo: Path) -> None:
    """Every file is as the earlier plan left it but the list, in a new commit; the next step back goes further back."""
    second = after(FIRST, placements=without(FIRST, "chat"), retired=("chat",))
    third = after(second, placements=resized(second, "agents", 1))
    commits = {plan.serial: put(plan, at(repo)).commit for plan in (FIRST, second, third)}
    assert held(at(repo)) == {serial: commits[serial] for serial in (3, 2, 1)}
    assert before(at(repo)) == 2
    done = rollback(at(repo), 1)
    assert git(repo, "rev-parse", "fleet~1") == commits[3]
    old, new = files_at(repo, str(commits[1])), files_at(repo, "fleet")
    assert {path for path in {*old, *new} if old.get(path) != new.get(path)} == {"clusters/eu/published.json"}
    assert done.message.startswith("Back to plan 1: ")
    with pytest.raises(BadInput, match="holds no plan before 1"):
        before(at(repo))
    with pytest.raises(BadInput, match="never held plan 7; it held 1, 2, 3"):
        rollback(at(repo), 7)


def test_a_rollback_holds_against_the_plans_it_undid(repo: Path) -> None:
    """What was rolled back is not published again by the next run of the same command; a newer plan is."""
    second = after(FIRST, placements=resized(FIRST, "chat", 2))
    put(FIRST, at(repo))
    put(second, at(repo))
    rollback(at(repo), 1)
    with pytest.raises(StalePlan, match="plan 2 was published here already"):
        put(second, at(repo))
    assert put(after(second, placements=resized(FIRST, "chat", 3)), at(repo)).commit


def test_a_rollback_under_a_serial_of_its_own(repo: Path) -> None:
    """Made the plan in force again, the earlier plan has a new serial and the same digest."""
    second = after(FIRST, placements=resized(FIRST, "chat", 2))
    third = after(second, placements=resized(FIRST, "chat", 3))
    for plan in (FIRST, second, third):
        put(plan, at(repo))
    done = rollback(at(repo), 2, serial=4)
    assert (done.plan.serial, done.plan.digest) == (4, second.digest)
    assert from_json(git(repo, "show", "fleet:clusters/eu/plan.json") + "\n").serial == 4
    assert before(at(repo)) == 1
    assert put(second.model_copy(update={"serial": 4}), at(repo)).commit is None
