"""KServe LLMInferenceService (serving.kserve.io/v1alpha2): typed parallelism, and every vLLM argument besides.

KServe's template for one node passes no parallelism on to vLLM, those for several nodes pass some of it: all of it
stands in the arguments too, where the last of two equal flags wins. Rules that KServe states in CEL and no JSON schema
covers are checked here on every object.
"""

from __future__ import annotations

import re
import shlex
from typing import Any

from catalog.errors import BadInput
from planner.manifests.arguments import arguments, argv
from planner.manifests.deployments import Unit, units
from planner.manifests.names import dump, origin
from planner.manifests.pods import container, pod
from planner.plan import Plan, ReplicaGroup

#: Flags that `spec.model` states.
TYPED = {"model", "served-model-name"}
_COST = re.compile(r"\d+(\.\d+)?")


def render(plan: Plan) -> dict[str, str]:
    """`kserve/<unit>.yaml`; what KServe has no template for is left out, and named in the manifests' README."""
    files = {}
    for unit in units(plan):
        if not all(fits(group) for _, group in unit.groups):
            continue
        made = inference_service(plan, unit)
        problems = cel_problems(made["spec"])
        if problems:
            raise BadInput(f"KServe would refuse {unit.name}: {'; '.join(problems)}", place="kserve")
        files[f"kserve/{unit.name}.yaml"] = dump(made)
    return files


def inference_service(plan: Plan, unit: Unit) -> dict[str, Any]:
    """One LLMInferenceService; the decode or collocated group is the main workload."""
    spec = {
        "model": {"uri": f"hf://{unit.decode.checkpoint}", "name": unit.decode.model},
        "router": {"gateway": {}, "route": {}, "scheduler": {}},
        **workload(plan, unit.decode, unit.decode_name),
    }
    if unit.prefill is not None:
        spec["prefill"] = workload(plan, unit.prefill, unit.prefill_name)
    return {
        "apiVersion": "serving.kserve.io/v1alpha2",
        "kind": "LLMInferenceService",
        "metadata": {"name": unit.name, "annotations": origin(plan)},
        "spec": spec,
    }


def workload(plan: Plan, group: ReplicaGroup, name: str) -> dict[str, Any]:
    """Replicas, parallelism and pods of one role."""
    parallelism: dict[str, Any] = {"tensor": group.tp}
    if group.pp > 1:
        parallelism["pipeline"] = group.pp
    if group.dp > 1:
        parallelism |= {"data": group.dp, "dataLocal": max(1, group.dp // group.nodes_per_replica)}
    if group.expert_parallel:
        parallelism["expert"] = True
    made = {"replicas": group.replicas, "parallelism": parallelism, "template": pod_spec(plan, group, name)}
    further = {"worker": pod_spec(plan, group, name, leads=False)}
    return made | (further if group.nodes_per_replica > 1 else {})


def pod_spec(plan: Plan, group: ReplicaGroup, name: str, *, leads: bool = True) -> dict[str, Any]:
    """Pod with the container that KServe merges into its own: it must be called `main`."""
    rest = {flag: value for flag, value in arguments(plan, group).items() if flag not in TYPED}
    whole = container(plan, group, name="main")
    more = {"name": "VLLM_ADDITIONAL_ARGS", "value": shlex.join(argv(rest)).replace("$", "$$")}
    unit: dict[str, Any] = {key: whole[key] for key in ("name", "image", "resources") if key in whole}
    # merged into KServe's container: vLLM's image runs as root; weights may take long to load, which the leader is
    # asked about and its followers are not
    unit["securityContext"] = {"allowPrivilegeEscalation": False, "runAsNonRoot": False}
    if leads:
        unit["startupProbe"] = {key: whole["startupProbe"][key] for key in ("failureThreshold", "periodSeconds")}
    spec = pod(plan, group, name, unit | {"env": [*whole["env"], more]})["spec"]
    return {key: spec[key] for key in ("containers", "nodeSelector", "tolerations", "terminationGracePeriodSeconds")}


def fits(group: ReplicaGroup) -> bool:
    """KServe spreads a replica over nodes by data or by pipeline, one stage a node; tensor parallelism stays within."""
    several = group.nodes_per_replica > 1
    return not several or group.dp > 1 or group.pp == group.nodes_per_replica


def cel_problems(spec: dict[str, Any], *, where: str = "spec") -> list[str]:
    """KServe's x-kubernetes-validations on replicas and scaling, for the main workload and its prefill."""
    problems = []
    if "replicas" in spec and "scaling" in spec:
        problems.append(f"{where}: replicas and scaling are mutually exclusive")
    if "scaling" in spec:
        problems += [f"{where}.scaling: {text}" for text in _scaling(spec["scaling"])]
    if "prefill" in spec:
        problems += cel_problems(spec["prefill"], where=f"{where}.prefill")
    return problems


def _scaling(scaling: dict[str, Any]) -> list[str]:
    wva, keda = scaling.get("wva"), scaling.get("keda")
    low, high = scaling.get("minReplicas"), scaling.get("maxReplicas")
    idle = [part["idleReplicaCount"] for part in (keda, (wva or {}).get("keda")) if part and "idleReplicaCount" in part]
    rules = [
        (wva is None and keda is None, "either wva or keda must be specified"),
        (wva is not None and keda is not None, "wva and keda are mutually exclusive"),
        (keda is not None and not keda.get("triggers"), "at least one trigger is required"),
        (low is not None and high is not None and low > high, "minReplicas cannot exceed maxReplicas"),
        (wva is not None and "hpa" in wva and "keda" in wva, "hpa and keda are mutually exclusive"),
        (wva is not None and not {"hpa", "keda"} & set(wva), "either hpa or keda must be the actuator"),
        (bool(idle) and low is None, "minReplicas is required when idleReplicaCount is set"),
        (low is not None and any(count >= low for count in idle), "idleReplicaCount must be less than minReplicas"),
        (wva is not None and not _COST.fullmatch(wva.get("variantCost", "1")), "variantCost must be a decimal number"),
    ]
    return [text for broken, text in rules if broken]
