"""Docker compose: one file per node, one service per replica, each on GPUs of its own.

Host networking: NIXL and vLLM's multi-node start need real addresses. Nodes are reached by their names in the plan;
`/etc/hosts` or DNS must know them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from planner.manifests.arguments import arguments, argv
from planner.manifests.deployments import Unit, units
from planner.manifests.kubernetes import ROUTER_IMAGE
from planner.manifests.names import dump, header, merged, origin, safe
from planner.manifests.pairing import SIDE_CHANNEL_PORT
from planner.manifests.pods import GIB, PORT, asking, drain, image_of, vendor_of
from planner.plan import NodeShare, Plan, ReplicaGroup

#: Ports of one node: servers count up from PORT, side channels leave room for every rank, vLLM's own ports follow.
SIDE_CHANNEL_STEP, MASTER_PORT = 16, 29501
DRIVERS = {"nvidia": "nvidia", "amd": "amd"}


class Nodes:
    """What is taken on each node so far: GPUs by index, and services by count."""

    def __init__(self) -> None:
        self.gpus: Counter[str] = Counter()
        self.services: Counter[str] = Counter()

    def take(self, share: NodeShare, engines_per_gpu: int = 1) -> tuple[tuple[str, ...], int]:
        """(GPU indices, index of the service on its node) of one more replica; engines that share fill GPU by GPU."""
        first, index = self.gpus[share.node], self.services[share.node]
        self.gpus[share.node] += share.gpus
        self.services[share.node] += 1
        return tuple(str((first + offset) // engines_per_gpu) for offset in range(share.gpus)), index


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One process of one replica: a whole `vllm serve`, or one node's rank of it."""

    node: str
    name: str
    """Unique in the plan."""
    group: ReplicaGroup
    line: tuple[str, ...]
    """Arguments after `vllm serve`."""
    devices: tuple[str, ...]
    """GPUs of the node, by index."""
    port: int | None
    """None for the ranks that answer no requests."""
    side_channel: int

    @property
    def address(self) -> str:
        """Where it answers."""
        return f"http://{self.node}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Router:
    """The router of a disaggregated unit."""

    node: str
    name: str
    line: tuple[str, ...]


def processes(plan: Plan) -> Iterator[Part | Router]:
    """Every process of the plan, each with its node, its GPUs and its ports; a pair's router after the pair."""
    nodes = Nodes()
    for unit in units(plan):
        backends: list[tuple[str, str]] = []
        for name, group in unit.groups:
            for index, replica in enumerate(group.nodes):
                made = parts(plan, group, f"{name}-{index}", replica, nodes)
                backends.append((made[0].address, group.role))
                yield from made
        if unit.disaggregated and unit.decode.nodes:
            node = unit.decode.nodes[0][0].node
            line = routing(unit, backends, PORT + 900 + nodes.services[node])
            yield Router(node=node, name=f"{unit.name}-router", line=line)


def render(plan: Plan) -> dict[str, str]:
    """`compose/<node>.yaml`."""
    files: dict[str, dict[str, Any]] = {}
    for part in processes(plan):
        made = router(part) if isinstance(part, Router) else service(plan, part)
        files.setdefault(part.node, {})[part.name] = made
    what = "docker compose for one node: docker compose -f {}.yaml up -d"
    return {
        f"compose/{safe(node)}.yaml": header(plan, what.format(safe(node)))
        + dump({"services": held, "volumes": {"models": {}}, "x-fleetplan": origin(plan) | {"node": node}})
        for node, held in sorted(files.items())
    }


def parts(plan: Plan, group: ReplicaGroup, name: str, replica: tuple[NodeShare, ...], nodes: Nodes) -> list[Part]:
    """The processes of one replica, the one that answers first."""
    made: list[Part] = []
    master = MASTER_PORT
    for rank, share in enumerate(replica):
        devices, index = nodes.take(share, group.engines_per_gpu)
        master = MASTER_PORT + index if rank == 0 else master
        line = argv(merged(arguments(plan, group), {"port": PORT + index}))
        if len(replica) > 1:
            line += [f"--nnodes={len(replica)}", f"--node-rank={rank}", f"--master-addr={replica[0].node}"]
            line += [f"--master-port={master}", *(["--headless"] * (rank > 0))]
        part = Part(
            node=share.node,
            name=name if len(replica) == 1 else f"{name}-rank{rank}",
            group=group,
            line=tuple(line),
            devices=devices,
            port=PORT + index if rank == 0 else None,
            side_channel=SIDE_CHANNEL_PORT + SIDE_CHANNEL_STEP * index,
        )
        made.append(part)
    return made


def health(port: int) -> dict[str, Any]:
    """Ask vLLM's /health as the other formats do."""
    test = ["CMD", "python3", "-c", asking(port)]
    return {"test": test, "interval": "10s", "timeout": "10s", "retries": 3, "start_period": "40m"}


def service(plan: Plan, part: Part) -> dict[str, Any]:
    """One vLLM server."""
    group, vendor = part.group, vendor_of(plan, part.group)
    variables = {"HF_TOKEN": "${HF_TOKEN:-}", "VLLM_NO_USAGE_STATS": "1"}
    if group.role != "both":
        variables["VLLM_NIXL_SIDE_CHANNEL_HOST"] = "${NODE_ADDRESS:?set it to the address that other nodes reach}"
        variables["VLLM_NIXL_SIDE_CHANNEL_PORT"] = str(part.side_channel)
    if vendor == "cpu":
        variables["VLLM_CPU_KVCACHE_SPACE"] = str(max(1, group.kv_cache_memory_bytes // GIB))
    made: dict[str, Any] = {
        "image": image_of(plan, group),
        "entrypoint": ["vllm", "serve"],
        "command": [word.replace("$", "$$") for word in part.line],
        "environment": variables,
        "network_mode": "host",
        "ipc": "host",
        "restart": "unless-stopped",
        "stop_grace_period": f"{drain(plan, group) + 30}s",
        "volumes": ["models:/root/.cache/huggingface"],
        "labels": {"fleetplan.io/intent": group.intent.replace("$", "$$"), "fleetplan.io/role": group.role},
    }
    if part.port is not None:
        made["healthcheck"] = health(part.port)
    if vendor in DRIVERS:
        wanted = {"driver": DRIVERS[vendor], "device_ids": list(part.devices), "capabilities": ["gpu"]}
        made["deploy"] = {"resources": {"reservations": {"devices": [wanted]}}}
    return made


def router(part: Router) -> dict[str, Any]:
    """Router of a pair in its container."""
    line = [word.replace("$", "$$") for word in part.line]
    return {"image": ROUTER_IMAGE, "command": line, "network_mode": "host", "restart": "unless-stopped"}


def routing(unit: Unit, backends: Sequence[tuple[str, str]], port: int) -> tuple[str, ...]:
    """The router's arguments with the replicas' addresses written out, prefill first."""
    ordered = sorted(backends, key=lambda backend: backend[1] != "prefill")
    return (
        f"--port={port}",
        "--service-discovery=static",
        "--routing-logic=disaggregated_prefill_orchestrated",
        "--static-backends=" + ",".join(url for url, _ in ordered),
        "--static-models=" + ",".join(unit.decode.model for _ in ordered),
        "--static-model-labels=" + ",".join(role for _, role in ordered),
        "--prefill-model-labels=prefill",
        "--decode-model-labels=decode",
    )
