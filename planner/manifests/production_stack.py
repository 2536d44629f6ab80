"""Helm values of vLLM's production-stack chart (0.1.12): one modelSpec per replica group.

The chart's schema is not strict, so the keys are checked here against those that it knows. It turns prefix caching
off where `enablePrefixCaching` is absent: it is always stated. A disaggregated pair is a release of its own, because
routing logic is a setting of the whole release.
"""

from __future__ import annotations

from typing import Any

from planner.manifests.arguments import arguments, argv
from planner.manifests.deployments import Unit, units
from planner.manifests.names import DOMAIN, dump, header, label_value
from planner.manifests.pods import (
    PORT,
    SECRET,
    environment,
    escaped,
    image_of,
    resource_of,
    tolerations,
)
from planner.plan import Plan, ReplicaGroup

#: vllmConfig's own keys -> the flag that each stands for.
TYPED = {
    "tensorParallelSize": "tensor-parallel-size",
    "maxNumSeqs": "max-num-seqs",
    "maxModelLen": "max-model-len",
    "enableChunkedPrefill": "enable-chunked-prefill",
}
#: What the chart demands and a plan does not know: host memory and cores per GPU (llm-d's guides ask for as much).
CPU_PER_GPU, MEMORY_PER_GPU_GIB = 4, 16


def render(plan: Plan) -> dict[str, str]:
    """`production-stack/values.yaml` for the collocated groups, `production-stack/<unit>.values.yaml` per pair."""
    what = "production-stack values: helm upgrade --install vllm vllm/vllm-stack -f values.yaml"
    alone = [unit for unit in units(plan) if not unit.disaggregated and fits(unit.decode)]
    files = {"production-stack/values.yaml": header(plan, what) + dump(values(plan, alone))} if alone else {}
    for unit in units(plan):
        if unit.disaggregated and all(fits(group) for _, group in unit.groups):
            files[f"production-stack/{unit.name}.values.yaml"] = header(plan, what) + dump(values(plan, [unit]))
    return files


def fits(group: ReplicaGroup) -> bool:
    """The chart places a replica on one node, or on several with Ray, which a plan does not assume."""
    return group.nodes_per_replica == 1


def values(plan: Plan, members: list[Unit]) -> dict[str, Any]:
    """The chart's values for these units."""
    router: dict[str, Any] = {"enableRouter": True, "routingLogic": "roundrobin", "serviceDiscovery": "k8s"}
    if any(unit.disaggregated for unit in members):
        router |= {
            "routingLogic": "disaggregated_prefill_orchestrated",
            "extraArgs": ["--prefill-model-labels=prefill", "--decode-model-labels=decode"],
        }
    specs = [model_spec(plan, group, name) for unit in members for name, group in unit.groups]
    return {
        "routerSpec": router,
        "servingEngineSpec": {"enableEngine": True, "containerPort": PORT, "modelSpec": specs},
    }


def model_spec(plan: Plan, group: ReplicaGroup, name: str) -> dict[str, Any]:
    """One entry of modelSpec."""
    settings = dict(arguments(plan, group))
    config: dict[str, Any] = {key: settings.pop(flag) for key, flag in TYPED.items() if flag in settings}
    config["enablePrefixCaching"] = "enable-prefix-caching" in settings
    for flag in ("enable-prefix-caching", "no-enable-prefix-caching", "disable-prefix-caching", "model"):
        settings.pop(flag, None)
    config["extraArgs"] = escaped(argv(settings))
    repository, _, tag = image_of(plan, group).rpartition(":")
    resource = resource_of(plan, group)
    expression = {"key": f"{DOMAIN}/node-pool", "operator": "In", "values": [label_value(group.node_pool)]}
    spec = {
        "name": name,
        "repository": repository,
        "tag": tag,
        "modelURL": group.checkpoint,
        "replicaCount": group.replicas,
        "requestCPU": CPU_PER_GPU * group.gpus_per_replica,
        "requestMemory": f"{MEMORY_PER_GPU_GIB * group.gpus_per_replica}Gi",
        "shmSize": "16Gi",
        "vllmConfig": config,
        "hf_token": {"secretName": SECRET["name"], "secretKey": SECRET["key"]},
        "env": [variable for variable in environment(plan, group) if variable["name"] != "HF_TOKEN"],
        "labels": {"model": group.role if group.role != "both" else name},
        "nodeSelectorTerms": [{"matchExpressions": [expression]}],
        "tolerations": tolerations(plan, group),
    }
    return spec | ({"requestGPU": group.gpus_per_replica, "requestGPUType": resource} if resource else {})
