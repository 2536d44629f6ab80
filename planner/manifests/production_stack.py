"""Helm values of vLLM's production-stack chart (0.1.12): one modelSpec per replica group.

The chart's schema is not strict, so the keys are checked here against those that it knows. It turns prefix caching
off where `enablePrefixCaching` is absent: it is always stated. A disaggregated pair is a release of its own, because
routing logic is a setting of the whole release; a label of its own keeps each release's router with its own pods.
"""

from __future__ import annotations

from typing import Any

from catalog.flags import switch
from planner.manifests.arguments import arguments, argv
from planner.manifests.deployments import Unit, units
from planner.manifests.kubernetes import ROUTER_IMAGE, surge
from planner.manifests.names import DOMAIN, dump, header, label_value
from planner.manifests.pods import (
    PORT,
    SECRET,
    START_MINUTES,
    environment,
    escaped,
    image_of,
    probe,
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
    alone = [unit for unit in units(plan) if not unit.disaggregated and fits(plan, unit.decode)]
    files = {"production-stack/values.yaml": header(plan, what) + dump(values(plan, alone, "all"))} if alone else {}
    for unit in units(plan):
        if unit.disaggregated and all(fits(plan, group) for _, group in unit.groups):
            text = dump(values(plan, [unit], unit.name))
            files[f"production-stack/{unit.name}.values.yaml"] = header(plan, what) + text
    return files


def fits(plan: Plan, group: ReplicaGroup) -> bool:
    """The chart places a replica on one node, and turns prefix caching off by the name that it had up to vLLM 0.32."""
    off = None if group.enable_prefix_caching else switch(plan.vllm_version, "enable-prefix-caching", on=False)
    return group.nodes_per_replica == 1 and off in (None, "no-enable-prefix-caching")


def values(plan: Plan, members: list[Unit], release: str) -> dict[str, Any]:
    """The chart's values for these units."""
    repository, _, tag = ROUTER_IMAGE.rpartition(":")
    router: dict[str, Any] = {"enableRouter": True, "routingLogic": "roundrobin", "serviceDiscovery": "k8s"}
    router |= {"repository": repository, "tag": tag}
    for unit in members:
        if unit.disaggregated:  # the chart labels pods `model: <name of the modelSpec>`
            ends = [f"--prefill-model-labels={unit.prefill_name}", f"--decode-model-labels={unit.decode_name}"]
            router |= {"routingLogic": "disaggregated_prefill_orchestrated", "extraArgs": ends}
    groups = [pair for unit in members for pair in unit.groups]
    rolls = [surge(plan, group) for _, group in groups]
    return {
        "routerSpec": router,
        "servingEngineSpec": {
            "enableEngine": True,
            "containerPort": PORT,
            "labels": {f"{DOMAIN}/release": release},
            "startupProbe": startup(),
            # one setting for all: the chart's own default starts every replica twice
            "strategy": {"type": "RollingUpdate", "rollingUpdate": min(rolls, key=lambda roll: roll["maxSurge"])},
            "modelSpec": [model_spec(plan, group, name) for name, group in groups],
        },
    }


def startup() -> dict[str, Any]:
    """The chart gives weights ten minutes to load; they may take longer."""
    asked = probe(PORT, failures=START_MINUTES * 6)
    return {key: asked[key] for key in ("httpGet", "periodSeconds", "failureThreshold")}


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
        "nodeSelectorTerms": [{"matchExpressions": [expression]}],
        "tolerations": tolerations(plan, group),
    }
    return spec | ({"requestGPU": group.gpus_per_replica, "requestGPUType": resource} if resource else {})
