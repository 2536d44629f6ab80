"""`flows.gitops` on hostile ground: links, strangers' files, strange names, hooks and damaged lists."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from made_repositories import FIRST, at, git, put, started

from catalog.errors import BadInput, CorruptRecord
from flows.gitops import Published, open_copy


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working copy with one commit on `main`."""
    return started(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    "folder", ["..", "a/../../b", "/etc", ".git", "a/.GIT/hooks", "a//b", "", "a\nb", "a b", "é", "a/.git."]
)
def test_hostile_folders_are_refused(repo: Path, folder: str) -> None:
    """A folder outside the repository, in git's own, or with a strange name is bad input."""
    with pytest.raises(BadInput, match=r"--path: .* is no folder inside the repository"):
        at(repo, folder=folder)


@pytest.mark.parametrize("branch", ["-d", "HEAD", "a..b", "a b", "x.lock", "", "a\nb", "@{u}"])
def test_hostile_branches_are_refused(repo: Path, branch: str) -> None:
    """A branch that git would not take, or take for an option, is bad input."""
    with pytest.raises(BadInput, match=r"--branch: .* is no name of a branch"):
        at(repo, branch=branch)


def linked(repo: Path) -> None:
    """A folder on the way is a link to outside."""
    (repo / "clusters").symlink_to("/tmp")  # noqa: S108 - where a link may point


def linked_file(repo: Path) -> None:
    """A file that would be written is a link."""
    (repo / "clusters/eu").mkdir(parents=True)
    (repo / "clusters/eu/plan.json").symlink_to("/etc/passwd")


def foreign(repo: Path) -> None:
    """Somebody else's file has the name."""
    (repo / "clusters/eu").mkdir(parents=True)
    (repo / "clusters/eu/plan.json").write_text("{}")


def file_on_the_way(repo: Path) -> None:
    """A file stands where a folder is needed."""
    (repo / "clusters").write_text("a file")


def folder_in_the_way(repo: Path) -> None:
    """A folder stands where a file is needed."""
    (repo / "clusters/eu/plan.json").mkdir(parents=True)
    (repo / "clusters/eu/plan.json/x").write_text("a file")


@pytest.mark.parametrize("trap", [linked, linked_file, foreign, file_on_the_way, folder_in_the_way])
@pytest.mark.parametrize("branch", ["main", "fleet"])
def test_nothing_is_written_through_or_over(repo: Path, trap: Callable[[Path], None], branch: str) -> None:
    """Links, files and folders of other people on its paths are refused, committed or not."""
    trap(repo)
    for committed in (False, True):
        if committed:
            git(repo, "add", ".")
            git(repo, "commit", "-qm", "trap")
        tip = git(repo, "rev-parse", "HEAD")
        with pytest.raises(BadInput):
            put(FIRST, at(repo, branch))
        assert git(repo, "rev-parse", "HEAD") == tip
        assert git(repo, "branch", "--list", "fleet") == ""


def test_a_list_that_names_paths_outside_is_damaged(repo: Path) -> None:
    """published.json decides what is deleted, so a path in it that leads elsewhere is an error."""
    put(FIRST, at(repo, "main"))
    path = repo / "clusters/eu/published.json"
    listed = json.loads(path.read_text())
    path.write_text(json.dumps(listed | {"files": listed["files"] | {"../../notes.txt": "0" * 40}}))
    git(repo, "commit", "-qam", "hostile")
    with pytest.raises(CorruptRecord, match="not a list that fleetplan wrote"):
        put(FIRST, at(repo, "main"))
    assert Published.model_validate(listed).text() == json.dumps(listed, sort_keys=True, indent=1) + "\n"


def test_hooks_and_the_environment_do_not_interfere(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No hook of the repository runs, and git variables of the caller point nowhere else."""
    for name in ("pre-commit", "post-merge", "reference-transaction", "post-checkout"):
        hook = repo / ".git" / "hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\nexit 1\n")
        hook.chmod(0o755)
    target = at(repo, "main")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    assert put(FIRST, target).commit
    assert not (tmp_path / "ran").exists()


def test_who_commits_must_be_known(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a name git cannot commit: bad input that says what to set."""
    git(repo, "config", "--unset", "user.name")
    git(repo, "config", "--unset", "user.email")
    git(repo, "config", "user.useConfigOnly", "true")
    monkeypatch.delenv("EMAIL", raising=False)
    with pytest.raises(BadInput, match=r"who commits; git config user\.name"):
        put(FIRST, at(repo))


def test_a_working_copy_is_given_by_its_root(repo: Path, tmp_path: Path) -> None:
    """A folder that is none, or lies inside one, is bad input; so is a branch that another one has checked out."""
    (repo / "inner").mkdir()
    for folder, said in ((repo / "inner", "lies inside"), (tmp_path, "no Git working"), (tmp_path / "x", "no such")):
        with pytest.raises(BadInput, match=said):
            open_copy(folder)
    git(repo, "worktree", "add", "-q", "-b", "fleet", str(tmp_path / "second"))
    with pytest.raises(BadInput, match="is checked out in"):
        put(FIRST, at(repo))
