"""Schemas that the manifests' tests check against, read from beside the repository where they lie there.

A CustomResourceDefinition becomes a strict JSON Schema: objects with properties take no other key, int-or-string is
either, and pods are left to the check of the core types.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from kubernetes_validate import utils

#: The package reads its schemas anew for each object; they do not change.
utils.schema_contents = functools.cache(utils.schema_contents)
FOLDER = Path(__file__).parent.parent / ".." / "shared" / "data" / "schemas"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
POD = {"containers", "initContainers"}


def needs(name: str) -> pytest.MarkDecorator:
    """Skip where a schema is not there."""
    return pytest.mark.skipif(not (FOLDER / name).exists(), reason=f"needs shared/data/schemas/{name}")


def strict(schema: Any) -> Any:
    """Turn one OpenAPI v3 schema of a CRD into a strict JSON Schema."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return {}
    made = {key: item for key, item in schema.items() if not key.startswith("x-kubernetes") and key != "format"}
    if "properties" in made:
        properties = made["properties"]
        if properties.keys() >= POD:
            return {"type": "object"}
        made["properties"] = {name: strict(item) for name, item in properties.items()}
        made.setdefault("additionalProperties", False)
    for key in ("items", "additionalProperties", "anyOf", "oneOf", "allOf"):
        if key in made:
            made[key] = strict(made[key])
    return made


@functools.cache
def crd(name: str, version: str) -> jsonschema.Draft202012Validator:
    """Validator of one version of a CRD file."""
    definition = yaml.load((FOLDER / name).read_text(encoding="utf-8"), Loader=LOADER)  # noqa: S506 - a safe loader
    found = next(entry for entry in definition["spec"]["versions"] if entry["name"] == version)
    schema = strict(found["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    schema["properties"].pop("status", None)
    return jsonschema.Draft202012Validator(schema)


@functools.cache
def values(name: str) -> Any:
    """A chart's schema of its values."""
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def errors(validator: Any, value: Any) -> list[str]:
    """What is wrong, one line each."""
    return [f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(value)]


def core(document: dict[str, Any]) -> None:
    """Check a core Kubernetes object strictly."""
    kubernetes_validate.validate(document, "1.32", strict=True)


def pod(spec: dict[str, Any]) -> None:
    """Check a pod's spec strictly, as a Pod of its own."""
    core({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": spec})
