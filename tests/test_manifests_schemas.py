"""What is emitted for the golden plans and for 200 random ones, against every schema that there is: no error at all."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
import yaml
from random_plans import golden_plans, random_plan
from schemas import FOLDER, core, crd, errors, pod, values

from planner.manifests import render
from planner.manifests.deployments import units
from planner.manifests.kserve import cel_problems, fits
from planner.plan import Plan

PLANS = 200
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
#: kind -> (definition beside the repository, version).
DEFINITIONS = {
    "LeaderWorkerSet": ("leaderworkerset.x-k8s.io_leaderworkersets.yaml", "v1"),
    "DisaggregatedSet": ("disaggregatedset.x-k8s.io_disaggregatedsets.yaml", "v1"),
    "InferencePool": ("inference.networking.k8s.io_inferencepools.yaml", "v1"),
    "LLMInferenceService": ("serving.kserve.io_llminferenceservices.yaml", "v1alpha2"),
}
#: Folder -> the chart's schema of its values, and the draft that it is written in.
VALUES: dict[str, tuple[str, Callable[..., Any]]] = {
    "production-stack": ("production-stack-0.1.12-values.schema.json", jsonschema.Draft202012Validator),
    "llm-d/modelservice": ("llm-d-modelservice-0.4.12-values.schema.json", jsonschema.Draft7Validator),
}
#: Kinds that come with Kubernetes; whatever else is met must have a definition or be one of `OTHER`.
CORE = {"Deployment", "Service", "PodDisruptionBudget", "ServiceAccount", "Role", "RoleBinding",
        "HorizontalPodAutoscaler"}  # fmt: skip
OTHER = {"Kustomization", "Component", "Application", "ScaledObject", "VariantAutoscaling", "DynamoGraphDeployment"}
FORMATS = ["kubernetes", "llm-d", "kserve", "production-stack", "autoscaling", "dynamo", "argocd"]
#: What an object is made of without its names: equal makes are checked once.
NAMES = re.compile(r"[a-z0-9-]*-[0-9a-f]{8}|[0-9a-f]{64}")


def pods(value: Any) -> list[dict[str, Any]]:
    """Every pod spec inside an object of another API."""
    if isinstance(value, list):
        return [found for item in value for found in pods(item)]
    if not isinstance(value, dict):
        return []
    own = [value] if "containers" in value and "terminationGracePeriodSeconds" in value else []
    return own + [found for item in value.values() for found in pods(item)]


def check(document: dict[str, Any]) -> str:
    """Check one object by its kind; the kind."""
    kind = document["kind"]
    if kind in CORE:
        core(document)
        return str(kind)
    assert kind in DEFINITIONS or kind in OTHER, kind
    if kind in DEFINITIONS and (FOLDER / DEFINITIONS[kind][0]).exists():
        assert errors(crd(*DEFINITIONS[kind]), document) == []
    if kind == "LLMInferenceService":
        assert cel_problems(document["spec"]) == []
    for spec in pods(document) if kind != "Deployment" else ():
        pod(spec)
    return str(kind)


def kserve_fits(plan: Plan) -> list[bool]:
    """Which units of a plan KServe has a template for."""
    return [all(fits(group) for _, group in unit.groups) for unit in units(plan)]


def check_plan(plan: Plan, seen: set[str]) -> Counter[str]:
    """Check every object and every values file of a plan; how many of each."""
    found: Counter[str] = Counter()
    for path, text in render(plan, formats=FORMATS).items():
        make = NAMES.sub("", text)
        documents = list(yaml.load_all(text, Loader=LOADER))
        found.update(document.get("kind", path.rpartition("/")[0]) for document in documents)
        if make in seen:
            continue
        seen.add(make)
        folder = next((folder for folder in VALUES if path.startswith(folder + "/")), None)
        if folder is not None:
            name, validator = VALUES[folder]
            if (FOLDER / name).exists():
                assert errors(validator(values(name)), documents[0]) == [], path
        elif "llm-d/" in path and "/patch-" in path:
            for spec in pods(documents):
                pod(spec)
        else:
            for document in documents:
                check(document)
    return found


@pytest.mark.parametrize("name", sorted(golden_plans()))
def test_golden_plans_pass_every_schema(name: str) -> None:
    """Every object of the reviewed manifests is valid."""
    found = check_plan(golden_plans()[name], set())
    assert found["Deployment"] > 5


def test_random_plans_pass_every_schema() -> None:
    """Every object of 200 random plans is valid: core types strictly, custom resources and charts by their schemas."""
    seen: set[str] = set()
    found: Counter[str] = Counter()
    for seed in range(PLANS):
        found += check_plan(random_plan(seed), seen)
    assert {*CORE, *DEFINITIONS} <= set(found)
    assert found["LLMInferenceService"] == sum(fit for seed in range(PLANS) for fit in kserve_fits(random_plan(seed)))
    assert 1.5 * PLANS < found["LLMInferenceService"] < 2 * PLANS


def test_mistakes_are_caught() -> None:
    """A misspelt key fails in a Deployment, in a custom resource, in a pod of one and in a chart's values."""
    files = {
        path: list(yaml.load_all(text, Loader=LOADER)) for path, text in render(random_plan(0), formats=FORMATS).items()
    }
    kinds = {document.get("kind"): document for documents in files.values() for document in documents}
    for kind in ("Deployment", "LLMInferenceService"):
        if kind == "Deployment" or (FOLDER / DEFINITIONS[kind][0]).exists():
            with pytest.raises((AssertionError, jsonschema.ValidationError)):
                check(kinds[kind] | {"spec": kinds[kind]["spec"] | {"replica": 2}})
    graph = kinds["DynamoGraphDeployment"]
    pods(graph)[0]["container"] = []
    with pytest.raises(jsonschema.ValidationError):
        check(graph)
    with pytest.raises(AssertionError):
        check({"kind": "Deploymint", "spec": {}})
