"""NVIDIA Dynamo: DynamoGraphDeployment (nvidia.com/v1beta1), a frontend and one worker per role.

The runtime image brings its own vLLM; its tag is Dynamo's release and must hold the plan's vLLM version.
"""

from __future__ import annotations

from typing import Any

from planner.manifests.arguments import arguments, argv
from planner.manifests.deployments import Unit, units
from planner.manifests.names import dump, origin
from planner.manifests.pods import container, escaped, pod
from planner.plan import Plan, ReplicaGroup

IMAGE = "nvcr.io/nvidia/ai-dynamo/vllm-runtime:1.3.0"
#: What Dynamo's frontend does in vLLM's place.
LEFT_OUT = {"custom-histogram-buckets", "max-num-queued-tokens", "shutdown-timeout", "enable-mfu-metrics"}


def render(plan: Plan) -> dict[str, str]:
    """`dynamo/<unit>.yaml`."""
    return {f"dynamo/{unit.name}.yaml": dump(graph(plan, unit)) for unit in units(plan)}


def graph(plan: Plan, unit: Unit) -> dict[str, Any]:
    """One graph: frontend, workers."""
    router = "kv" if unit.decode.enable_prefix_caching else "least-loaded"
    frontend = {
        "name": "Frontend",
        "type": "frontend",
        "replicas": 1,
        "podTemplate": {"spec": {"containers": [{"name": "main", "image": IMAGE, "env": [mode(router)]}]}},
    }
    return {
        "apiVersion": "nvidia.com/v1beta1",
        "kind": "DynamoGraphDeployment",
        "metadata": {"name": unit.name, "annotations": origin(plan)},
        "spec": {
            "backendFramework": "vllm",
            "components": [frontend, *(worker(plan, group, name) for name, group in unit.groups)],
        },
    }


def mode(router: str) -> dict[str, str]:
    """How the frontend spreads requests."""
    return {"name": "DYN_ROUTER_MODE", "value": router}


def worker(plan: Plan, group: ReplicaGroup, name: str) -> dict[str, Any]:
    """One worker component."""
    settings = {flag: value for flag, value in arguments(plan, group).items() if flag not in LEFT_OUT}
    model, *rest = argv(settings)
    line = [f"--model={model}", *rest]
    if group.role != "both":
        line.append(f"--disaggregation-mode={group.role}")
    whole = container(plan, group, name="main")
    unit = {
        "name": "main",
        "image": IMAGE,
        "command": ["python3", "-m", "dynamo.vllm"],
        "args": escaped(line),
        "env": whole["env"],
        "resources": whole["resources"],
    }
    spec = pod(plan, group, name, unit)["spec"]
    kept = ("containers", "nodeSelector", "tolerations", "terminationGracePeriodSeconds")
    made: dict[str, Any] = {
        "name": {"both": "Worker", "prefill": "PrefillWorker", "decode": "DecodeWorker"}[group.role],
        "type": {"both": "worker"}.get(group.role, group.role),
        "replicas": group.replicas,
        "sharedMemorySize": "16Gi",
        "podTemplate": {"spec": {key: spec[key] for key in kept}},
    }
    return made | ({"multinode": {"nodeCount": group.nodes_per_replica}} if group.nodes_per_replica > 1 else {})
