"""`planner.manifests.kubernetes`: objects that Kubernetes and Kustomize accept."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from random_plans import golden_plans, random_plan
from schemas import core, crd, errors, needs, pod

from planner.manifests import render
from planner.plan import Plan, from_json

SAMPLE = Path(__file__).parent / "plans" / "sample.json"
LWS = "leaderworkerset.x-k8s.io_leaderworkersets.yaml"
PLAIN = {"Deployment", "Service", "PodDisruptionBudget", "ServiceAccount", "Role", "RoleBinding"}


def sample() -> Plan:
    """The hand-made plan."""
    return from_json(SAMPLE.read_text(encoding="utf-8"))


def documents(plan: Plan) -> list[dict]:
    """Every object of the base."""
    files = render(plan, formats=["kubernetes"])
    texts = [text for path, text in sorted(files.items()) if not path.endswith("kustomization.yaml")]
    return [document for text in texts for document in yaml.safe_load_all(text)]


@pytest.mark.parametrize("seed", [None, *range(6)])
def test_core_objects_are_valid_strictly(seed: int | None) -> None:
    """Deployments, Services, disruption budgets and the router's rights pass the strict check of their schemas."""
    found = documents(sample() if seed is None else random_plan(seed))
    assert "Service" in {document["kind"] for document in found}
    for document in found:
        if document["kind"] in PLAIN:
            core(document)
        else:
            templates = document["spec"]["leaderWorkerTemplate"]
            pod(templates["leaderTemplate"]["spec"])
            pod(templates["workerTemplate"]["spec"])


@needs(LWS)
def test_leader_worker_sets_match_their_definition() -> None:
    """A group over nodes is a LeaderWorkerSet that its definition accepts; a misspelt key is caught."""
    (found,) = [document for document in documents(sample()) if document["kind"] == "LeaderWorkerSet"]
    validator = crd(LWS, "v1")
    assert errors(validator, found) == []
    found["spec"]["replica"] = 2
    assert errors(validator, found)


def test_services_reach_their_pods() -> None:
    """Each Service selects labels that some pod template carries, and every group is selected."""
    found = documents(sample())
    pods = []
    for document in found:
        if document["kind"] == "Deployment":
            pods.append(document["spec"]["template"]["metadata"]["labels"])
        elif document["kind"] == "LeaderWorkerSet":
            pods.append(document["spec"]["leaderWorkerTemplate"]["leaderTemplate"]["metadata"]["labels"])
    chosen = [document["spec"]["selector"] for document in found if document["kind"] == "Service"]
    for selector in chosen:
        assert any(selector.items() <= labels.items() for labels in pods)
    for labels in pods:
        assert any(selector.items() <= labels.items() for selector in chosen)


def test_the_router_finds_both_ends() -> None:
    """Production-stack's router tells the ends of a pair apart by the label `model`, and lists the pods that serve."""
    found = {(d["kind"], d["metadata"]["name"]): d for d in documents(sample())}
    (router,) = found["Deployment", "retrieval-router"]["spec"]["template"]["spec"]["containers"]
    (line,) = [part for part in router["args"] if part.startswith("--k8s-label-selector=")]
    wanted = dict(part.split("=") for part in line.partition("=")[2].split(","))
    for role in ("prefill", "decode"):
        assert f"--{role}-model-labels={role}" in router["args"]
        pods = found["Deployment", f"retrieval-{role}"]["spec"]["template"]["metadata"]["labels"]
        assert wanted.items() <= pods.items()
        assert pods["model"] == role


def test_services_spare_the_further_nodes_of_a_replica() -> None:
    """Followers of a LeaderWorkerSet answer no requests: no Service selects them."""
    found = documents(sample())
    (group,) = [document for document in found if document["kind"] == "LeaderWorkerSet"]
    follower = group["spec"]["leaderWorkerTemplate"]["workerTemplate"]["metadata"]["labels"]
    chosen = [document["spec"]["selector"] for document in found if document["kind"] == "Service"]
    assert not any(selector.items() <= follower.items() for selector in chosen)


def test_names_that_are_taken_overwrite_nothing() -> None:
    """An intent called like another one's router, pair or common Service keeps its own objects, and so do they."""
    plan = sample()
    first = plan.placements[0]
    extra = [first.model_copy(update={"intent": name}) for name in ("retrieval-router", "retrieval-pd", "chat-all")]
    extra.append(first.model_copy(update={"gpu": "h200_sxm", "node_pool": "h200-us"}))
    more = render(plan.model_copy(update={"placements": (*plan.placements, *extra)}), formats=["kubernetes", "kserve"])
    own = yaml.safe_load(more["kubernetes/base/retrieval-router/deployment.yaml"])
    assert own["spec"]["replicas"] == first.replicas
    routers = [path for path in more if "retrieval-router" in path and path.endswith("rbac.yaml")]
    assert len(routers) == 1
    assert not routers[0].startswith("kubernetes/base/retrieval-router/")
    assert "prefill" not in yaml.safe_load(more["kserve/retrieval-pd.yaml"])["spec"]
    assert sum("prefill" in yaml.safe_load(text)["spec"] for path, text in more.items() if "kserve/" in path) == 1
    assert "kubernetes/base/chat-all/deployment.yaml" in more


def test_gpus_asked_for_are_gpus_planned() -> None:
    """Limits times pods times replicas is what the plan places, group by group."""
    plan = sample()
    asked = 0
    for document in documents(plan):
        spec = document.get("spec", {})
        if document["kind"] == "Deployment":
            limits = spec["template"]["spec"]["containers"][0].get("resources", {}).get("limits", {})
            asked += spec["replicas"] * sum(limits.values())
        elif document["kind"] == "LeaderWorkerSet":
            template = spec["leaderWorkerTemplate"]
            limits = template["leaderTemplate"]["spec"]["containers"][0]["resources"]["limits"]
            asked += spec["replicas"] * template["size"] * sum(limits.values())
    assert asked == sum(group.gpus for group in plan.placements)


def test_a_drain_ends_before_the_pod_is_killed() -> None:
    """The grace period is longer than vLLM's own shutdown timeout."""
    for document in documents(sample()):
        if document["kind"] == "Deployment" and "command" in document["spec"]["template"]["spec"]["containers"][0]:
            spec = document["spec"]["template"]["spec"]
            (timeout,) = [a for a in spec["containers"][0]["args"] if a.startswith("--shutdown-timeout=")]
            leaves = int(spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
            assert spec["terminationGracePeriodSeconds"] > leaves + int(timeout.partition("=")[2])


def test_an_intent_of_two_groups_has_one_address() -> None:
    """A mix of two strategies is served by one Service over both groups."""
    plan = sample()
    second = plan.placements[0].model_copy(update={"gpu": "h200_sxm", "node_pool": "h200-us"})
    mixed = plan.model_copy(update={"placements": (*plan.placements, second)})
    (found,) = [d for d in documents(mixed) if d["metadata"]["name"] == "chat-all"]
    labels = [d["spec"]["template"]["metadata"]["labels"] for d in documents(mixed) if d["kind"] == "Deployment"]
    assert sum(found["spec"]["selector"].items() <= one.items() for one in labels) == 2


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")
@pytest.mark.parametrize("name", sorted(golden_plans()))
def test_kustomize_builds_base_and_overlays(tmp_path: Path, name: str) -> None:
    """`kubectl kustomize` builds the base, and the overlays together build the same objects."""
    for path, text in render(golden_plans()[name], formats=["kubernetes"]).items():
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def build(folder: Path) -> list[str]:
        done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=True)
        return [f"{d['kind']}/{d['metadata']['name']}" for d in yaml.safe_load_all(done.stdout)]

    overlays = sorted((tmp_path / "kubernetes" / "overlays").iterdir())
    assert sorted(build(tmp_path / "kubernetes" / "base")) == sorted(n for folder in overlays for n in build(folder))
