"""`planner.manifests.llmd`: patches, pools, DisaggregatedSets and chart values that llm-d accepts."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml
from random_plans import random_plan
from schemas import crd, errors, needs, pod, values

from planner.manifests import render
from planner.plan import Plan, from_json, seal

SAMPLE = Path(__file__).parent / "plans" / "sample.json"
VALUES = "llm-d-modelservice-0.4.12-values.schema.json"
SET = "disaggregatedset.x-k8s.io_disaggregatedsets.yaml"
POOL = "inference.networking.k8s.io_inferencepools.yaml"


def sample() -> Plan:
    """The hand-made plan."""
    return from_json(SAMPLE.read_text(encoding="utf-8"))


def files(plan: Plan, ending: str) -> list[dict]:
    """Files of one kind, read."""
    made = render(plan, formats=["llm-d"])
    return [yaml.safe_load(text) for path, text in sorted(made.items()) if path.endswith(ending)]


@needs(VALUES)
@pytest.mark.parametrize("seed", [None, *range(6)])
def test_chart_values_match_the_chart(seed: int | None) -> None:
    """The modelservice chart's own schema accepts the values of every unit, and its containers are containers."""
    plan = sample() if seed is None else random_plan(seed)
    validator = jsonschema.Draft7Validator(values(VALUES))
    found = files(plan, ".values.yaml")
    assert len(found) == len({(g.intent, g.role == "both") for g in plan.placements})
    for value in found:
        assert errors(validator, value) == []
        for role in ("prefill", "decode"):
            for container in value[role].get("containers", []):
                plain = {key: item for key, item in container.items() if key not in {"modelCommand", "volumeMounts"}}
                pod({"containers": [plain]})
    assert errors(validator, found[0] | {"modelArtifacts": {"ury": "x"}})


@needs(SET)
@needs(POOL)
def test_custom_resources_match_their_definitions() -> None:
    """The pair's DisaggregatedSet and every InferencePool are accepted; a misspelt key is caught."""
    (pair,) = files(sample(), "disaggregatedset.yaml")
    assert errors(crd(SET, "v1"), pair) == []
    for role in pair["spec"]["roles"]:
        pod(role["spec"]["leaderWorkerTemplate"]["workerTemplate"]["spec"])
    pools = files(sample(), "inferencepool.yaml")
    for pool in pools:
        assert errors(crd(POOL, "v1"), pool) == []
    pools[0]["spec"]["targetPort"] = 1
    assert errors(crd(POOL, "v1"), pools[0])


def test_a_pairs_pool_takes_the_pods_of_either_road() -> None:
    """The InferencePool selects what the DisaggregatedSet starts and what the modelservice chart starts."""
    made = render(sample(), formats=["llm-d"])
    pool = yaml.safe_load(made["llm-d/retrieval-pd/inferencepool.yaml"])["spec"]["selector"]["matchLabels"]
    (pair,) = files(sample(), "disaggregatedset.yaml")
    templates = [role["spec"]["leaderWorkerTemplate"]["workerTemplate"] for role in pair["spec"]["roles"]]
    chart = yaml.safe_load(made["llm-d/modelservice/retrieval-pd.values.yaml"])["modelArtifacts"]["labels"]
    for labels in (*(template["metadata"]["labels"] for template in templates), chart):
        assert pool.items() <= labels.items()


def test_decode_stands_behind_the_sidecar() -> None:
    """llm-d's proxy takes the public port, vLLM of a decode pod the one behind it; prefill has no proxy."""
    (pair,) = files(sample(), "disaggregatedset.yaml")
    prefill, decode = (role["spec"]["leaderWorkerTemplate"]["workerTemplate"]["spec"] for role in pair["spec"]["roles"])
    assert "initContainers" not in prefill
    assert decode["initContainers"][0]["name"] == "routing-proxy"
    assert "--port=8200" in decode["containers"][0]["args"]
    assert "--port=8000" in prefill["containers"][0]["args"]


def test_a_replica_over_nodes_joins_its_pods() -> None:
    """The patch is one of a LeaderWorkerSet with headless followers; the chart's one template decides by index."""
    plan = sample()
    made = render(plan, formats=["llm-d"])
    patch = yaml.safe_load(made["llm-d/research/patch-vllm.yaml"])
    group = next(group for group in plan.placements if group.intent == "research")
    assert patch["kind"] == "LeaderWorkerSet"
    assert yaml.safe_load(made["llm-d/research/kustomization.yaml"])["patches"][0]["target"]["kind"] == patch["kind"]
    pods = patch["spec"]["leaderWorkerTemplate"]
    assert pods["size"] == group.nodes_per_replica
    lines = [pods[name]["spec"]["containers"][0]["args"] for name in ("leaderTemplate", "workerTemplate")]
    assert [line[-1] == "--headless" for line in lines] == [False, True]
    assert all(f"--nnodes={group.nodes_per_replica}" in line for line in lines)
    (unit,) = yaml.safe_load(made["llm-d/modelservice/research.values.yaml"])["decode"]["containers"]
    for index, headless in (("0", False), ("1", True)):
        script = unit["command"][2].replace("exec vllm", "printf '%s ' vllm")
        done = subprocess.run(
            ["/bin/sh", "-c", script, *unit["command"][3:], "model", "--tensor-parallel-size=8"],
            env={"LWS_WORKER_INDEX": index},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split()[:4] == ["vllm", "serve", "model", "--tensor-parallel-size=8"]
        assert done.stdout.split()[4:] == ["--headless"] * headless
    probe = unit["livenessProbe"]["exec"]["command"]
    assert subprocess.run(probe, env={"LWS_WORKER_INDEX": "1"}, check=False).returncode == 0


def test_a_changed_pair_is_a_new_pool() -> None:
    """Mixed versions of a pair must not be scheduled together: other settings, other pool; other counts, the same."""
    plan = sample()
    groups = list(plan.placements)
    groups[3] = groups[3].model_copy(update={"max_num_seqs": 7})
    other = seal(plan.model_copy(update={"placements": tuple(groups)}))
    groups[3] = plan.placements[3].model_copy(update={"replicas": 9})
    more = seal(plan.model_copy(update={"placements": tuple(groups)}))
    names = [{p["metadata"]["name"] for p in files(each, "inferencepool.yaml")} for each in (plan, other, more)]
    assert names[0] != names[1]
    assert names[0] == names[2]


BASE = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: %s}
spec:
  selector: {matchLabels: {a: b}}
  template:
    metadata: {labels: {a: b}}
    spec: {containers: [{name: modelserver, image: REPLACE_MODEL_SERVER_IMAGE}]}
"""


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")
def test_the_component_patches_a_base(tmp_path: Path) -> None:
    """Listed beside a base with llm-d's names, the component sets image, arguments and replicas of both roles."""
    for path, text in render(sample(), formats=["llm-d"]).items():
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    (tmp_path / "base.yaml").write_text("---".join(BASE % name for name in ("prefill", "decode")))
    overlay = {"resources": ["base.yaml"], "components": ["llm-d/retrieval-pd"]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    done = subprocess.run(["kubectl", "kustomize", str(tmp_path)], capture_output=True, text=True, check=True)
    found = {d["metadata"]["name"]: d for d in yaml.safe_load_all(done.stdout) if d["kind"] == "Deployment"}
    for role, replicas in (("prefill", 2), ("decode", 3)):
        (server,) = found[role]["spec"]["template"]["spec"]["containers"]
        assert server["image"] == "vllm/vllm-openai:v0.32.0"
        assert server["args"][0] == "Qwen/Qwen3-32B"
        assert found[role]["spec"]["replicas"] == replicas
