"""`flows.gitops`: one commit per changed plan, refusals in words, nothing half done."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_repositories import FIRST, FORMATS, after, at, files_at, git, made, plan_of, put, resized, started, without

from catalog.errors import BadInput, FleetplanError, StalePlan
from flows.gitops import WorkingCopy, open_copy
from planner.manifests import render
from planner.plan import Movement, from_json


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working copy with one commit on `main`."""
    return started(tmp_path, monkeypatch)


def test_a_plan_becomes_one_commit_beside_the_working_copy(repo: Path) -> None:
    """One commit on a new branch holds plan.json, the manifests and their list; what is checked out stays as it is."""
    done = put(FIRST, at(repo))
    assert done.commit == git(repo, "rev-parse", "fleet")
    assert git(repo, "rev-list", "--count", "main..fleet") == "1"
    assert (git(repo, "branch", "--show-current"), git(repo, "status", "--porcelain")) == ("main", "")
    assert sorted(path.name for path in repo.iterdir()) == [".git", "notes.txt"]
    found = files_at(repo, "fleet")
    manifests = render(FIRST, formats=FORMATS, folder="clusters/eu/manifests")
    assert {path: text.strip() for path, text in manifests.items()} == {
        path.removeprefix("clusters/eu/manifests/"): text for path, text in found.items() if "/manifests/" in path
    }
    assert from_json(git(repo, "show", "fleet:clusters/eu/plan.json") + "\n") == FIRST
    assert found["notes.txt"] == "mine"
    assert "path: clusters/eu/manifests/kubernetes/overlays/" in found["clusters/eu/manifests/argocd/h100-eu.yaml"]


def test_the_message_is_the_pull_requests_text(repo: Path) -> None:
    """The first line says what the plan costs, the body what changes, with the digests that it rests on."""
    put(FIRST, at(repo))
    second = after(FIRST, placements=resized(FIRST, "chat", 2))
    put(second, at(repo))
    message = git(repo, "log", "-1", "--format=%B", "fleet")
    assert message.splitlines()[0].startswith("Fleet plan 2: ")
    assert "## Changes" in message
    assert second.digest in message


def test_an_unchanged_plan_makes_no_commit(repo: Path) -> None:
    """The same decision under any serial leaves the branch where it is."""
    put(FIRST, at(repo))
    tip = git(repo, "rev-parse", "fleet")
    for again in (FIRST, FIRST.model_copy(update={"serial": 9})):
        done = put(again, at(repo))
        assert (done.commit, done.plan.serial, done.written, done.deleted) == (None, 1, 0, 0)
    assert git(repo, "rev-parse", "fleet") == tip


def test_a_branch_that_is_checked_out_moves_with_its_files(repo: Path) -> None:
    """Where the branch is checked out, the files of the working copy are those of the commit, and it is clean."""
    target = at(repo, "main")
    put(FIRST, target)
    (repo / "notes.txt").write_text("mine, not done yet\n")
    put(after(FIRST, placements=resized(FIRST, "chat", 2)), target)
    assert git(repo, "status", "--porcelain") == "M notes.txt"
    assert (repo / "clusters/eu/plan.json").read_text().strip() == git(repo, "show", "main:clusters/eu/plan.json")


def test_an_empty_repository_gets_its_first_commit(tmp_path: Path, repo: Path) -> None:
    """Before the first commit the branch is made from nothing, checked out or not."""
    del repo
    for branch in ("main", "fleet"):
        folder = made(tmp_path / branch)
        done = put(FIRST, at(folder, branch))
        assert git(folder, "rev-list", branch) == done.commit
        assert git(folder, "status", "--porcelain") == ""
        assert (folder / "clusters").exists() == (branch == "main")


def test_stale_plans_are_refused(repo: Path) -> None:
    """Made for another fleet, older than what is live, or made as if nothing ran: refused, and the branch stays."""
    second = after(FIRST, placements=resized(FIRST, "chat", 2))
    with pytest.raises(StalePlan, match=r"made for fleet .* plan again"):
        put(FIRST, at(repo), fleet_digest="f" * 64)
    put(FIRST, at(repo), fleet_digest=FIRST.fleet_digest)
    put(second, at(repo))
    tip = git(repo, "rev-parse", "fleet")
    with pytest.raises(StalePlan, match="plan 2 was published here already"):
        put(FIRST, at(repo))
    with pytest.raises(StalePlan, match="plan 2 was published here already"):
        put(after(FIRST, placements=resized(FIRST, "chat", 3)), at(repo))
    with pytest.raises(StalePlan, match="made as if nothing ran, plan 2 is live"):
        put(plan_of(3, placements=resized(FIRST, "chat", 3)), at(repo))
    assert git(repo, "rev-parse", "fleet") == tip


def test_a_plan_may_skip_plans_that_were_never_published(repo: Path) -> None:
    """A plan made two nights later is published, and its outcome says where its waves start."""
    put(FIRST, at(repo))
    second = after(FIRST, placements=resized(FIRST, "chat", 2))
    done = put(after(second, placements=resized(FIRST, "chat", 3)), at(repo))
    assert done.commit is not None
    assert "never published here" in done.notes[0]


def test_a_live_service_goes_with_a_tombstone_alone(repo: Path) -> None:
    """The last replica of a live service is taken away by the fleet's `retired`, or by name, and not otherwise."""
    put(FIRST, at(repo))
    left = without(FIRST, "chat")
    with pytest.raises(BadInput, match=r"'chat' .* is live and would have no replica left; .*retired: \[chat\]"):
        put(after(FIRST, placements=left), at(repo))
    with pytest.raises(BadInput, match="'chatt' is not live; did you mean 'chat'"):
        put(after(FIRST, placements=left), at(repo), retired=["chatt"])
    buried = after(FIRST, placements=left, retired=("chat",))
    assert put(buried, at(repo)).deleted > 0
    assert put(after(buried, placements=without(buried, "agents")), at(repo), retired=["agents"]).commit


def test_an_empty_plan_is_refused(repo: Path) -> None:
    """A plan that places nothing is a fault somewhere, never an order."""
    with pytest.raises(BadInput, match="places nothing at all"):
        put(plan_of(1, placements=()), at(repo))
    assert git(repo, "branch", "--list", "fleet") == ""


def test_too_much_movement_is_refused(repo: Path) -> None:
    """GPUs that start beyond the fleet's movement stop the plan; those that service forces do not count."""
    put(FIRST, at(repo))
    group = next(group for group in FIRST.placements if group.intent == "chat")
    grown = resized(FIRST, "chat", group.replicas + 1)
    allowed = group.gpus_per_replica / sum(one.gpus for one in FIRST.placements)
    little = Movement(share=allowed * 0.99, settled=("chat",))
    with pytest.raises(BadInput, match=rf"starts {group.gpus_per_replica} GPUs anew, movement .* raise movement"):
        put(after(FIRST, placements=grown, movement=little), at(repo))
    forced = little.model_copy(update={"forced_gpus": group.gpus_per_replica})
    assert put(after(FIRST, placements=grown, movement=forced), at(repo)).commit


def test_files_of_the_earlier_plan_go_and_strangers_stay(repo: Path) -> None:
    """What is not rendered any more is deleted; a file in the folder that is not listed is left alone."""
    target = at(repo, "main")
    put(FIRST, target)
    (repo / "clusters/eu/OWNERS").write_text("me\n")
    git(repo, "add", ".")
    git(repo, "commit", "-qm", "owners")
    done = put(after(FIRST, placements=without(FIRST, "chat")), target, retired=["chat"])
    assert done.deleted >= 2
    assert not (repo / "clusters/eu/manifests/vllm/chat.yaml").exists()
    assert (repo / "clusters/eu/OWNERS").read_text() == "me\n"
    assert git(repo, "status", "--porcelain") == ""


def test_changes_by_hand_are_not_lost_silently(repo: Path) -> None:
    """A published file that was edited or deleted on the branch stops the next plan, until the user says so."""
    target = at(repo, "main")
    put(FIRST, target)
    (repo / "clusters/eu/manifests/vllm/chat.yaml").write_text("model: mine\n")
    git(repo, "commit", "-qam", "mine")
    second = after(FIRST, placements=resized(FIRST, "chat", 2))
    with pytest.raises(BadInput, match=r"main:clusters/eu/manifests/vllm/chat\.yaml: changed by hand .*--overwrite"):
        put(second, target)
    done = put(FIRST, target, overwrite=True)
    assert (done.commit is not None, done.written, done.deleted) == (True, 1, 0)
    assert put(second, target).commit


def test_dirt_in_its_folder_is_refused(repo: Path) -> None:
    """Uncommitted changes where it would write, tracked or not, stop it; elsewhere they do not matter."""
    target = at(repo, "main")
    put(FIRST, target)
    second = after(FIRST, placements=resized(FIRST, "chat", 2))
    for path in ("clusters/eu/new.txt", "clusters/eu/plan.json"):
        old = (repo / path).read_bytes() if (repo / path).exists() else None
        (repo / path).write_text("dirt")
        with pytest.raises(BadInput, match="uncommitted changes, such as"):
            put(second, target)
        (repo / path).unlink() if old is None else (repo / path).write_bytes(old)
    (repo / "elsewhere.txt").write_text("dirt")
    assert put(second, target).commit


class Killed(BaseException):
    """The process ends here."""


class Counted:
    """Ends the process before (even) or after (odd) one of the calls of git; calls are counted."""

    def __init__(self, real: Callable[..., Any], step: int) -> None:
        self.real, self.step, self.calls = real, step, 0

    def __call__(self, copy: WorkingCopy, *arguments: Any, **more: Any) -> Any:
        """Run git, or end."""
        self.calls += 1
        if (self.calls, 0) == divmod(self.step, 2):
            raise Killed
        answer = self.real(copy, *arguments, **more)
        if (self.calls, 1) == divmod(self.step, 2):
            raise Killed
        return answer


@pytest.mark.parametrize("branch", ["main", "fleet"])
def test_a_kill_leaves_the_branch_as_it_was_or_whole(repo: Path, monkeypatch: pytest.MonkeyPatch, branch: str) -> None:
    """Killed before or after any of its calls of git, the old commit or the whole new one stands; a retry succeeds."""
    target = at(repo, branch)
    put(FIRST, target)
    old, second, real = (
        git(repo, "rev-parse", branch),
        after(FIRST, placements=resized(FIRST, "chat", 2)),
        WorkingCopy._run,
    )
    kept = 0
    for step in range(2, 100):
        counted = Counted(real, step)
        monkeypatch.setattr(WorkingCopy, "_run", lambda *given, c=counted, **more: c(*given, **more))
        try:
            put(second, target)
        except Killed:
            pass
        else:
            break
        finally:
            monkeypatch.setattr(WorkingCopy, "_run", real)
        assert git(repo, "status", "--porcelain") == ""
        if git(repo, "rev-parse", branch) == old:
            kept += 1
            continue
        assert (git(repo, "rev-parse", f"{branch}~1"), put(second, target).commit) == (old, None)
        git(repo, *(["reset", "-q", "--hard", old] if branch == "main" else ["branch", "-f", branch, old]))
    assert 20 < kept < step < 99
    assert git(repo, "rev-parse", f"{branch}~1") == old


@pytest.mark.parametrize("branch", ["main", "fleet"])
def test_a_branch_that_moved_meanwhile_is_not_overwritten(
    repo: Path, monkeypatch: pytest.MonkeyPatch, branch: str
) -> None:
    """Somebody else's commit between reading and writing makes the plan stale; theirs stays."""
    target = at(repo, branch)
    put(FIRST, target)
    real = WorkingCopy._run

    def moved(self: WorkingCopy, arguments: Any, **more: Any) -> Any:
        if next(iter(arguments)) == "commit-tree":
            theirs = git(repo, "commit-tree", f"{branch}^{{tree}}", "-p", branch, "-m", "theirs")
            git(repo, "update-ref", f"refs/heads/{branch}", theirs)
        return real(self, arguments, **more)

    monkeypatch.setattr(WorkingCopy, "_run", moved)
    with pytest.raises(StalePlan, match="moved while the plan was being published"):
        put(after(FIRST, placements=resized(FIRST, "chat", 2)), target)
    assert git(repo, "log", "-1", "--format=%s", branch) == "theirs"


def test_git_that_fails_says_why(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Git's own words come through; without git there is a clear error."""
    with pytest.raises(FleetplanError, match="git rev-parse: "):
        open_copy(repo).git("rev-parse", "--verify", "absent")
    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(FleetplanError, match="git is not installed"):
        open_copy(repo)
