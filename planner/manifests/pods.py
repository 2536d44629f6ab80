"""The pod that runs one vLLM replica, or one node of it: container, probes, GPUs, secrets as references."""

from __future__ import annotations

import math
from typing import Any

from planner.manifests.arguments import DRAIN_S, arguments, argv
from planner.manifests.index import index
from planner.manifests.names import DOMAIN, label_value, labels, merged
from planner.manifests.pairing import SIDE_CHANNEL_PORT
from planner.plan import Plan, PoolUse, ReplicaGroup

PORT = 8000
#: What a device plugin calls one accelerator; a CPU has none.
RESOURCES = {"nvidia": "nvidia.com/gpu", "amd": "amd.com/gpu", "intel": "gpu.intel.com/i915"}
#: Suffix of vLLM's image per vendor (hub.docker.com/u/vllm).
IMAGE_SUFFIX = {"nvidia": "", "amd": "-rocm", "intel": "-xpu", "cpu": "-cpu"}
#: Minutes that weights may take to load before a replica counts as failed.
START_MINUTES = 40
#: Seconds before a pod that is to stop hears of it: until then, routers and Services forget it.
LEAVE_S = 10
SECRET = {"name": "hf-token", "key": "HF_TOKEN"}
GIB = 2**30
#: Label of the pods that answer requests; the further nodes of a replica do not.
SERVES = f"{DOMAIN}/serves"


def pool_of(plan: Plan, group: ReplicaGroup) -> PoolUse | None:
    """The node pool that a group runs on; None for a plan that does not list it."""
    return index(plan).pools.get(group.node_pool)


def vendor_of(plan: Plan, group: ReplicaGroup) -> str:
    """Maker of the group's accelerators."""
    pool = pool_of(plan, group)
    return pool.vendor if pool else "nvidia"


def resource_of(plan: Plan, group: ReplicaGroup) -> str | None:
    """What a pod asks for; NVIDIA's device plugin renames GPUs that it shares, if told to (`renameByDefault`)."""
    vendor = vendor_of(plan, group)
    shared = ".shared" if vendor == "nvidia" and group.engines_per_gpu > 1 else ""
    return RESOURCES[vendor] + shared if vendor in RESOURCES else None


def image_of(plan: Plan, group: ReplicaGroup) -> str:
    """The plan's image, in the flavour of the group's accelerators."""
    name, colon, tag = plan.image.rpartition(":")
    suffix = IMAGE_SUFFIX[vendor_of(plan, group)]
    return f"{name}{suffix}{colon}{tag}" if name.endswith("vllm-openai") else plan.image


def gpus_per_node(group: ReplicaGroup) -> int:
    """GPUs that one pod of the group holds."""
    return math.ceil(group.gpus_per_replica / group.nodes_per_replica)


def environment(plan: Plan, group: ReplicaGroup) -> list[dict[str, Any]]:
    """Environment variables, the token as a reference to a secret."""
    reference = {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {**SECRET, "optional": True}}}
    found: list[dict[str, Any]] = [reference, {"name": "VLLM_NO_USAGE_STATS", "value": "1"}]
    if group.role != "both":
        address = {"fieldRef": {"fieldPath": "status.podIP"}}
        found.append({"name": "VLLM_NIXL_SIDE_CHANNEL_HOST", "valueFrom": address})
        found.append({"name": "VLLM_NIXL_SIDE_CHANNEL_PORT", "value": str(SIDE_CHANNEL_PORT)})
    if vendor_of(plan, group) == "cpu":
        found.append({"name": "VLLM_CPU_KVCACHE_SPACE", "value": str(max(1, group.kv_cache_memory_bytes // GIB))})
    return sorted(found, key=lambda variable: str(variable["name"]))


def probe(port: int, *, failures: int, period: int = 10) -> dict[str, Any]:
    """Ask vLLM's /health."""
    return {
        "httpGet": {"path": "/health", "port": port},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def asking(port: int) -> str:
    """The same question as a Python program, where it is asked by a command: images have no curl for sure."""
    return f"import urllib.request as u; u.urlopen('http://127.0.0.1:{port}/health', timeout=4)"


def drain(plan: Plan, group: ReplicaGroup) -> int:
    """Seconds that vLLM itself takes at most to finish what it serves."""
    return int(str(arguments(plan, group).get("shutdown-timeout", DRAIN_S[0])))


def seconds_to_stop(plan: Plan, group: ReplicaGroup) -> int:
    """What a pod gets in all: to be forgotten, to finish what it serves, to end."""
    return LEAVE_S + drain(plan, group) + 30


def escaped(line: list[str]) -> list[str]:
    """Keep Kubernetes from expanding `$(...)` in what was meant literally."""
    return [part.replace("$", "$$") for part in line]


def container(
    plan: Plan, group: ReplicaGroup, *, name: str = "vllm", port: int = PORT, extra: tuple[str, ...] = ()
) -> dict[str, Any]:
    """One vLLM container; `extra` arguments may use Kubernetes' `$(VARIABLE)`."""
    settings = merged(arguments(plan, group), {"host": "0.0.0.0", "port": port})  # noqa: S104 - inside a pod
    resource = resource_of(plan, group)
    limits = {resource: gpus_per_node(group)} if resource else {}
    ports = [{"name": "http", "containerPort": port}]
    if group.role != "both":
        ports.append({"name": "nixl", "containerPort": SIDE_CHANNEL_PORT})
    return {
        "name": name,
        "image": image_of(plan, group),
        "command": ["vllm", "serve"],
        "args": [*escaped(argv(settings)), *extra],
        "env": environment(plan, group),
        "ports": ports,
        "resources": {"limits": limits, "requests": limits} if limits else {},
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(LEAVE_S)]}}},
        "startupProbe": probe(port, failures=START_MINUTES * 6),
        "readinessProbe": probe(port, failures=3, period=5),
        "livenessProbe": probe(port, failures=6),
        "securityContext": {"allowPrivilegeEscalation": False},
        "volumeMounts": [
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - the mount that tensor parallelism needs
            {"name": "models", "mountPath": "/root/.cache/huggingface"},
        ],
    }


def without_probes(unit: dict[str, Any]) -> dict[str, Any]:
    """A container that serves no HTTP: the further nodes of a replica."""
    return {key: value for key, value in unit.items() if not key.endswith("Probe") and key != "ports"}


def joining(group: ReplicaGroup) -> list[str]:
    """Arguments that make one vLLM of a LeaderWorkerSet's pods; the followers' are `--headless` besides."""
    size = group.nodes_per_replica
    return [f"--nnodes={size}", "--node-rank=$(LWS_WORKER_INDEX)", "--master-addr=$(LWS_LEADER_ADDRESS)"]


def pod(plan: Plan, group: ReplicaGroup, name: str, unit: dict[str, Any], *, serves: bool = True) -> dict[str, Any]:
    """Pod template around a container; it changes only when the replica itself must restart."""
    return {
        "metadata": {"labels": labels(group, name) | ({SERVES: "true"} if serves else {})},
        "spec": {
            "automountServiceAccountToken": False,
            # a Service called `vllm` would otherwise set VLLM_PORT, which vLLM reads as its own
            "enableServiceLinks": False,
            "containers": [unit],
            "nodeSelector": {f"{DOMAIN}/node-pool": label_value(group.node_pool)},
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "terminationGracePeriodSeconds": seconds_to_stop(plan, group),
            "tolerations": tolerations(plan, group),
            "volumes": [
                {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "16Gi"}},
                {"name": "models", "emptyDir": {}},
            ],
        },
    }


def tolerations(plan: Plan, group: ReplicaGroup) -> list[dict[str, str]]:
    """GPU nodes are usually tainted with the name of their resource."""
    resource = RESOURCES.get(vendor_of(plan, group))
    return [{"key": resource, "operator": "Exists", "effect": "NoSchedule"}] if resource else []
