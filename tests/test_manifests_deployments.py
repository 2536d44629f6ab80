"""`planner.manifests.deployments`: units, and the short formats: Argo CD, autoscalers, Dynamo, Ray, SkyPilot."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from random_plans import random_plan
from schemas import core

from planner.manifests import arguments, pull_request, render
from planner.manifests.autoscaling import cron, rate_per_replica, running_per_replica
from planner.manifests.deployments import units
from planner.plan import NodeShare, Plan, Window, from_json, seal

SAMPLE = Path(__file__).parent / "plans" / "sample.json"


def sample() -> Plan:
    """The hand-made plan."""
    return from_json(SAMPLE.read_text(encoding="utf-8"))


def read(plan: Plan, name: str) -> dict[str, Any]:
    """The files of a format, read."""
    return {path: yaml.safe_load(text) for path, text in render(plan, formats=[name]).items()}


def test_every_group_is_in_one_unit() -> None:
    """Collocated groups stand alone, prefill and decode of an intent are one unit, names are unique."""
    plan = sample()
    found = units(plan)
    assert sorted(name for unit in found for name, _ in unit.groups) == sorted(
        {name for unit in found for name, _ in unit.groups}
    )
    assert sum(len(unit.groups) for unit in found) == len(plan.placements)
    assert [unit.name for unit in found if unit.disaggregated] == ["retrieval-pd"]


def test_two_pairs_of_an_intent_have_names_of_their_own() -> None:
    """A mix of two disaggregated strategies is two units."""
    plan = sample()
    second = [group.model_copy(update={"max_num_seqs": 5}) for group in plan.placements[2:4]]
    found = units(plan.model_copy(update={"placements": (*plan.placements, *second)}))
    assert len({unit.name for unit in found}) == len(found) == len(units(plan)) + 1


def test_autoscalers_stay_within_the_plan() -> None:
    """Bounds are the windows' extremes; pairs and replicas over nodes keep their counts."""
    plan = sample()
    windows = tuple(
        Window(start_hour=4.0 * i, end_hour=4.0 * i + 4, min_replicas=1 + i % 2, max_replicas=2 + i % 3)
        for i in range(6)
    )
    chat = plan.placements[0].model_copy(update={"windows": windows})
    found = read(seal(plan.model_copy(update={"placements": (chat, *plan.placements[1:])})), "autoscaling")
    assert not any("retrieval" in path or "research" in path for path in found)
    keda = found["autoscaling/keda/chat.yaml"]["spec"]
    assert (keda["minReplicaCount"], keda["maxReplicaCount"]) == (1, 4)
    assert [trigger["type"] for trigger in keda["triggers"]] == ["prometheus", "cron", "cron", "cron"]
    hpa = found["autoscaling/hpa/chat.yaml"]
    core(hpa)
    assert (hpa["spec"]["minReplicas"], hpa["spec"]["maxReplicas"]) == (1, 4)
    assert found["autoscaling/wva/chat.yaml"]["spec"]["variantCost"] == "9.1600"


def test_thresholds_follow_from_the_prediction() -> None:
    """A replica takes its share of the goodput; what it runs then is that rate times how long a request lasts."""
    plan = sample()
    chat, decision = plan.placements[0], plan.intents[0]
    part = decision.chosen[0]
    assert rate_per_replica(plan, chat) == pytest.approx(part.goodput_low / chat.replicas, rel=1e-3)
    assert part.e2e is not None
    held = running_per_replica(plan, chat)
    assert 1 <= held <= chat.max_num_seqs
    assert held == pytest.approx(part.goodput_low / chat.replicas * part.e2e.p50_s, abs=1.0)


def test_windows_become_cron() -> None:
    """Half hours and midnight are written as cron understands them."""
    trigger = cron(Window(start_hour=20.5, end_hour=24.0, min_replicas=3, max_replicas=4))
    assert trigger["metadata"] == {
        "timezone": "UTC",
        "start": "30 20 * * *",
        "end": "0 0 * * *",
        "desiredReplicas": "3",
    }


def test_argo_syncs_nothing_by_itself() -> None:
    """One application per pool on its overlay, without automatic sync or prune."""
    found = read(sample(), "argocd")
    assert set(found) == {f"argocd/{pool}.yaml" for pool in ("h100-eu", "h200-us", "l40s-eu", "mi300x-us")}
    base = render(sample(), formats=["kubernetes"])
    for application in found.values():
        assert "automated" not in application["spec"]["syncPolicy"]
        folder = application["spec"]["source"]["path"].removeprefix("manifests/")
        assert f"{folder}/kustomization.yaml" in base


def test_the_pull_request_says_what_changes() -> None:
    """Its body holds the difference, what is not served, and the digests."""
    plan = sample()
    old = seal(plan.model_copy(update={"placements": plan.placements[1:], "cost_per_hour": 150.0}))
    body = pull_request(plan, old)
    for said in ("150.00 → 174.05 USD/h", "| added | chat |", "**live-voice**", plan.digest):
        assert said in body


def test_dynamo_graphs_have_a_frontend_and_workers() -> None:
    """A pair has a prefill and a decode worker; what Dynamo's frontend does is not asked of vLLM."""
    pair = read(sample(), "dynamo")["dynamo/retrieval-pd.yaml"]
    assert [part["type"] for part in pair["spec"]["components"]] == ["frontend", "prefill", "decode"]
    (unit,) = pair["spec"]["components"][2]["podTemplate"]["spec"]["containers"]
    assert "--disaggregation-mode=decode" in unit["args"]
    assert not any(part.startswith("--shutdown-timeout") for part in unit["args"])


def test_ray_configs_state_the_engine() -> None:
    """Each application has its builder and its engine's arguments by their Python names."""
    applications = {a["name"]: a for a in read(sample(), "ray")["ray/serve.yaml"]["applications"]}
    pair = applications["retrieval-pd"]
    assert pair["import_path"].endswith(":build_pd_openai_app")
    engine = pair["args"]["decode_config"]["engine_kwargs"]
    assert engine["tensor_parallel_size"] == 4
    assert engine["enable_prefix_caching"] is False
    assert not any(key.startswith(("no_", "disable_")) for key in engine)
    (chat,) = applications["chat"]["args"]["llm_configs"]
    assert chat["accelerator_type"] == "H100"
    assert all(re.fullmatch(r"[a-z0-9_]+", key) for key in chat["engine_kwargs"])


def test_skypilot_takes_what_it_can_run() -> None:
    """Rates per replica are the plan's; what SkyServe cannot run is named in the README."""
    plan = sample()
    found = read(plan, "skypilot")
    assert {Path(path).stem for path in found} == {"chat", "code-completion", "reasoning", "agents", "classify"}
    policy = found["skypilot/chat.yaml"]["service"]["replica_policy"]
    assert policy["target_qps_per_replica"] == rate_per_replica(plan, plan.placements[0])
    readme = render(plan, formats=["readme"])["README.md"]
    assert "skypilot: `retrieval-pd`" in readme
    assert "skypilot: `research`" in readme


def test_engines_that_share_a_gpu_share_its_memory_and_its_index() -> None:
    """Two engines on one GPU: each takes half of the memory that vLLM would, one index serves both, each costs half."""
    plan = sample()
    chat = plan.placements[0]
    where = tuple((NodeShare(node="h100-eu-0", gpus=1),) for _ in range(3))
    shared = chat.model_copy(update={"engines_per_gpu": 2, "tp": 1, "gpus_per_replica": 1, "nodes": where, "waves": ()})
    plan = seal(plan.model_copy(update={"placements": (shared, *plan.placements[1:]), "waves": ()}))
    assert arguments(plan, plan.placements[0])["gpu-memory-utilization"] == pytest.approx(0.46, abs=1e-3)
    assert "gpu-memory-utilization" not in arguments(plan, plan.placements[1])
    services = read(plan, "compose")["compose/h100-eu-0.yaml"]["services"]
    held = [services[f"chat-{i}"]["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"] for i in range(3)]
    assert held == [["0"], ["0"], ["1"]]
    assert read(plan, "autoscaling")["autoscaling/wva/chat.yaml"]["spec"]["variantCost"] == "1.1450"
    assert "skypilot/chat.yaml" not in read(plan, "skypilot")
    config = read(plan, "ray")["ray/serve.yaml"]["applications"][0]["args"]["llm_configs"][0]
    assert config["placement_group_config"] == {"bundles": [{"CPU": 1, "GPU": 0.5}]}


@pytest.mark.parametrize("seed", range(24))
def test_windows_bound_every_autoscaler(seed: int) -> None:
    """Over the day KEDA's floor is the window's, and no autoscaler's bounds are narrower or wider than the windows."""
    plan = random_plan(seed)
    group = plan.placements[0]
    found = read(plan, "autoscaling")
    (path,) = [path for path in found if "/keda/" in path] or [None]
    if path is None:
        assert group.nodes_per_replica > 1
        return
    keda, hpa = found[path]["spec"], found[path.replace("/keda/", "/hpa/")]["spec"]
    low = min((window.min_replicas for window in group.windows), default=1)
    high = max((window.max_replicas for window in group.windows), default=group.replicas)
    assert (keda["minReplicaCount"], keda["maxReplicaCount"]) == (low, high)
    assert (hpa["minReplicas"], hpa["maxReplicas"]) == (low, high)
    crons = [trigger["metadata"] for trigger in keda["triggers"] if trigger["type"] == "cron"]
    for quarter in range(96):
        now = quarter / 4 + 1 / 8
        (floor,) = [w.min_replicas for w in group.windows if w.start_hour <= now < w.end_hour] or [low]
        held = [int(c["desiredReplicas"]) for c in crons if hour(c["start"]) <= now < (hour(c["end"]) or 24.0)]
        assert max([low, *held]) == floor


def hour(cron_line: str) -> float:
    """The hour of the day of a daily cron line."""
    minute, hours, *rest = cron_line.split()
    assert rest == ["*", "*", "*"]
    return int(hours) + int(minute) / 60
