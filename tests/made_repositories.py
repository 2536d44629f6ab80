"""Working copies and plans for the tests of publishing into Git."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from flows.gitops import Outcome, Target, publish
from planner.plan import Plan, from_json, seal

SAMPLE = Path(__file__).parent / "plans" / "sample.json"
FORMATS = ["vllm", "argocd"]


def plan_of(serial: int, **changes: Any) -> Plan:
    """The hand-made plan under a serial, with changes."""
    plan = from_json(SAMPLE.read_text(encoding="utf-8"))
    return seal(plan.model_copy(update={"serial": serial, "changed_from": "", **changes}))


FIRST = plan_of(1)


def after(plan: Plan, **changes: Any) -> Plan:
    """The next plan, made while `plan` was in force."""
    update = {"serial": plan.serial + 1, "changed_from": plan.digest, **changes}
    return seal(plan.model_copy(update=update))


def without(plan: Plan, intent: str) -> tuple[Any, ...]:
    """Its placements but those of one intent."""
    return tuple(group for group in plan.placements if group.intent != intent)


def resized(plan: Plan, intent: str, replicas: int) -> tuple[Any, ...]:
    """Its placements with another count for one intent."""
    return tuple(
        group.model_copy(update={"replicas": replicas, "nodes": group.nodes[:1] * replicas})
        if group.intent == intent
        else group
        for group in plan.placements
    )


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder."""
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def made(folder: Path) -> Path:
    """Make a repository without a commit, with `main` checked out and a person who commits."""
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    git(folder, "config", "user.name", "A Person")
    git(folder, "config", "user.email", "person@example.org")
    return folder


def started(tmp_path: Path, patch: pytest.MonkeyPatch) -> Path:
    """A working copy with one commit on `main`, whatever git's settings on this machine are."""
    patch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    folder = made(tmp_path / "repo")
    (folder / "notes.txt").write_text("mine\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    return folder


def at(repo: Path, branch: str = "fleet", folder: str = "clusters/eu") -> Target:
    """Where the tests publish."""
    return Target.at(repo, branch=branch, folder=folder)


def put(plan: Plan, target: Target, **more: Any) -> Outcome:
    """Publish a plan in two formats."""
    return publish(plan, target, formats=FORMATS, **more)


def files_at(repo: Path, name: str) -> dict[str, str]:
    """Path -> content of everything in a commit."""
    listed = git(repo, "ls-tree", "-r", "--name-only", name).splitlines()
    return {path: git(repo, "show", f"{name}:{path}") for path in listed}
