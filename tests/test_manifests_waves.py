"""`planner.manifests.waves`: the plan's order of change as sync waves, ordered folders and a table."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from random_plans import random_plan

from planner.manifests import group_names, render
from planner.manifests.waves import SYNC_WAVE, folders, gone, steps
from planner.plan import Plan, PlannedMove, PlannedWave, from_json

SAMPLE = Path(__file__).parent / "plans" / "sample.json"


def sample() -> Plan:
    """The hand-made plan: three waves, the last of them stops first."""
    return from_json(SAMPLE.read_text(encoding="utf-8"))


def test_a_group_takes_its_count_with_its_last_start_or_else_its_last_stop() -> None:
    """By hand: starts of wave k are step 2k-1, stops step 2k, the other way round where stops come first."""
    assert dict(steps(sample())) == {"chat": 1, "agents": 1, "code-completion": 3, "reasoning": 4, "research": 6}
    assert folders(sample()) == {1: ["agents", "chat"], 3: ["code-completion"], 4: ["reasoning"], 6: ["research"]}


def test_every_workload_carries_its_step_and_no_pod_does() -> None:
    """Objects of a group are annotated alike, those of unchanged groups not at all, and pods never restart for it."""
    plan = sample()
    for name in group_names(plan):
        files = [text for path, text in render(plan, formats=["kubernetes"]).items() if f"/base/{name}/" in path]
        found = [d for text in files for d in yaml.safe_load_all(text) if d["kind"] != "Kustomization"]
        step = steps(plan).get(name)
        assert {d["metadata"]["annotations"].get(SYNC_WAVE) for d in found} == {str(step) if step else None}
    unordered = render(plan.model_copy(update={"waves": ()}), formats=["kubernetes"])
    ordered = render(plan, formats=["kubernetes"])
    for path, text in unordered.items():
        assert [line for line in ordered[path].splitlines() if SYNC_WAVE not in line] == text.splitlines()
    assert {path for path in ordered if path not in unordered} == {
        f"kubernetes/waves/step-{step:03d}/kustomization.yaml" for step in (1, 3, 4, 6)
    }


def test_the_table_names_every_step_in_order() -> None:
    """The manifests' README lists the folders in order, what is scaled away by hand, and what dips meanwhile."""
    text = render(sample(), formats=["readme"])["README.md"]
    rows = re.findall(r"^\| (\d+) \| (.*) \| (.*) \|$", text, flags=re.MULTILINE)
    assert [int(step) for step, _, _ in rows] == [1, 2, 3, 4, 6]
    assert rows[1][1] == "`kubectl scale deployment/drafts --replicas=0`"
    assert rows[4][1:] == ("`kubectl apply -k kubernetes/waves/step-006`", "")
    assert (
        "Order of the change" not in render(sample().model_copy(update={"waves": ()}), formats=["readme"])["README.md"]
    )


def test_a_reconfigured_service_is_rolled_and_not_scaled_away() -> None:
    """Old replicas of a service that keeps its object's name are replaced by the roll-out itself."""
    plan = sample()
    assert gone(plan.waves[0], plan) == ["drafts"]
    assert gone(plan.waves[2], plan) == []


@pytest.mark.parametrize("seed", range(12))
def test_no_start_waits_for_a_later_step(seed: int) -> None:
    """For any order of starts and stops over the groups, each group's step is that of its last start or else stop."""
    plan = random_plan(seed)
    moves = [
        PlannedMove(intent=g.intent, role=g.role, node_pool=g.node_pool, configuration="", replicas=1, gpus=1, group=i)
        for i, g in enumerate(plan.placements)
    ]
    stop = moves[seed % len(moves)]
    waves = (
        PlannedWave(starts=tuple(moves[:1]), stops=(stop,)),
        PlannedWave(starts=tuple(moves[1:]), stops=(), stops_first=bool(seed % 2)),
        PlannedWave(stops=(stop,)),
    )
    plan = plan.model_copy(update={"waves": waves})
    names = group_names(plan)
    assert steps(plan)[names[0]] == 1
    assert {steps(plan)[name] for name in names[1:]} == {3 + seed % 2}


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")
def test_kustomize_builds_each_step(tmp_path: Path) -> None:
    """`kubectl kustomize` builds every step's folder: the objects of its groups and nothing else."""
    plan = sample()
    for path, text in render(plan, formats=["kubernetes"]).items():
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    for step, names in folders(plan).items():
        folder = tmp_path / "kubernetes" / "waves" / f"step-{step:03d}"
        done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=True)
        found = {document["metadata"]["name"] for document in yaml.safe_load_all(done.stdout)}
        assert found == set(names)
