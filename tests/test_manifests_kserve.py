"""`planner.manifests.kserve`: LLMInferenceServices that KServe accepts, its CEL rules included."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from random_plans import random_plan
from schemas import crd, errors, needs, pod

from planner.manifests import render
from planner.manifests.kserve import cel_problems
from planner.plan import Plan, from_json

SAMPLE = Path(__file__).parent / "plans" / "sample.json"
DEFINITION = "serving.kserve.io_llminferenceservices.yaml"


def sample() -> Plan:
    """The hand-made plan."""
    return from_json(SAMPLE.read_text(encoding="utf-8"))


def services(plan: Plan) -> dict[str, dict]:
    """Every service by name."""
    found = [yaml.safe_load(text) for text in render(plan, formats=["kserve"]).values()]
    return {service["metadata"]["name"]: service for service in found}


@needs(DEFINITION)
@pytest.mark.parametrize("seed", [None, *range(6)])
def test_services_match_their_definition(seed: int | None) -> None:
    """Every service passes the strict schema, its pods the core check, and none breaks a CEL rule."""
    for service in services(sample() if seed is None else random_plan(seed)).values():
        assert errors(crd(DEFINITION, "v1alpha2"), service) == []
        assert cel_problems(service["spec"]) == []
        pod(service["spec"]["template"])


@needs(DEFINITION)
def test_mistakes_are_caught() -> None:
    """A misspelt key and a count in quotes do not pass."""
    service = services(sample())["chat"]
    for wrong in ({"replicas": "2"}, {"parallelism": {"tensr": 1}}, {"replica": 1}):
        assert errors(crd(DEFINITION, "v1alpha2"), service | {"spec": service["spec"] | wrong})


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"replicas": 1, "scaling": {"maxReplicas": 2, "wva": {"hpa": {}}}}, "mutually exclusive"),
        ({"scaling": {"maxReplicas": 2}}, "either wva or keda"),
        ({"scaling": {"maxReplicas": 2, "wva": {"hpa": {}}, "keda": {"triggers": [1]}}}, "wva and keda are mutually"),
        ({"scaling": {"maxReplicas": 2, "keda": {"triggers": []}}}, "at least one trigger"),
        ({"scaling": {"minReplicas": 3, "maxReplicas": 2, "wva": {"hpa": {}}}}, "cannot exceed"),
        ({"scaling": {"maxReplicas": 2, "wva": {"hpa": {}, "keda": {}}}}, "hpa and keda"),
        ({"scaling": {"maxReplicas": 2, "wva": {}}}, "actuator"),
        ({"scaling": {"maxReplicas": 2, "wva": {"hpa": {}, "variantCost": "1,5"}}}, "decimal"),
        ({"scaling": {"maxReplicas": 2, "keda": {"triggers": [1], "idleReplicaCount": 0}}}, "minReplicas is required"),
        (
            {"scaling": {"minReplicas": 1, "maxReplicas": 2, "keda": {"triggers": [1], "idleReplicaCount": 1}}},
            "less than minReplicas",
        ),
        ({"prefill": {"replicas": 1, "scaling": {"maxReplicas": 2, "wva": {"hpa": {}}}}}, "spec.prefill"),
    ],
)
def test_each_rule_is_kept(spec: dict[str, Any], said: str) -> None:
    """Each of KServe's rules on replicas and scaling is broken once and named."""
    assert any(said in problem for problem in cel_problems(spec))


def test_every_argument_reaches_vllm() -> None:
    """KServe's template for one node passes no parallelism on: VLLM_ADDITIONAL_ARGS holds all but the model."""
    service = services(sample())["reasoning"]
    assert service["spec"]["parallelism"] == {"tensor": 1, "data": 8, "dataLocal": 8, "expert": True}
    (unit,) = service["spec"]["template"]["containers"]
    assert unit["name"] == "main"
    (more,) = [variable["value"] for variable in unit["env"] if variable["name"] == "VLLM_ADDITIONAL_ARGS"]
    flags = {part.split("=")[0] for part in shlex.split(more)}
    assert {"--max-num-seqs", "--max-num-batched-tokens", "--kv-cache-memory-bytes", "--enable-prefix-caching"} <= flags
    assert {"--tensor-parallel-size", "--data-parallel-size", "--enable-expert-parallel"} <= flags
    assert not {"--model", "--served-model-name"} & flags
    assert unit["securityContext"]["runAsNonRoot"] is False


def test_what_kserve_has_no_template_for_is_left_out_and_named() -> None:
    """A replica that spreads tensor parallelism over nodes has no service; by data or by pipeline it has one."""
    plan = sample()
    index = next(i for i, group in enumerate(plan.placements) if group.intent == "research")
    group = plan.placements[index]
    wide = group.model_copy(update={"tp": group.gpus_per_replica, "pp": 1, "dp": 1})
    groups = (*plan.placements[:index], wide, *plan.placements[index + 1 :])
    spec = services(plan)["research"]["spec"]
    # a part of a probe merges into the leader's; a follower has none that it could merge into
    assert ["startupProbe" in spec[pods]["containers"][0] for pods in ("template", "worker")] == [True, False]
    other = plan.model_copy(update={"placements": groups})
    assert "research" not in services(other)
    assert "- kserve: `research`" in render(other, formats=["readme"])["README.md"]
