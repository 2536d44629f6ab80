"""Docker compose: one file per node, one service per replica, each on GPUs of its own.

Host networking: NIXL and vLLM's multi-node start need real addresses. Nodes are reached by their names in the plan;
`/etc/hosts` or DNS must know them.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from planner.manifests.arguments import SIDE_CHANNEL_PORT, arguments, argv
from planner.manifests.deployments import Unit, units
from planner.manifests.kubernetes import ROUTER_IMAGE
from planner.manifests.names import dump, header, merged, origin, safe
from planner.manifests.pods import GIB, PORT, image_of, vendor_of
from planner.plan import NodeShare, Plan, ReplicaGroup

#: Ports of one node: servers count up from PORT, side channels leave room for every rank, vLLM's own ports follow.
SIDE_CHANNEL_STEP, MASTER_PORT = 16, 29501
DRIVERS = {"nvidia": "nvidia", "amd": "amd"}


class Nodes:
    """What is taken on each node so far: GPUs by index, and services by count."""

    def __init__(self) -> None:
        self.gpus: Counter[str] = Counter()
        self.services: Counter[str] = Counter()

    def take(self, share: NodeShare) -> tuple[list[str], int]:
        """(GPU indices, index of the service on its node) of one more replica."""
        first, index = self.gpus[share.node], self.services[share.node]
        self.gpus[share.node] += share.gpus
        self.services[share.node] += 1
        return [str(first + offset) for offset in range(share.gpus)], index


def render(plan: Plan) -> dict[str, str]:
    """`compose/<node>.yaml`."""
    nodes, files = Nodes(), dict[str, dict[str, Any]]()
    for unit in units(plan):
        addresses: dict[str, list[str]] = {}
        for name, group in unit.groups:
            for index, replica in enumerate(group.nodes):
                made, address = services(plan, group, f"{name}-{index}", replica, nodes)
                addresses.setdefault(group.role, []).append(address)
                for node, service_name, service in made:
                    files.setdefault(node, {})[service_name] = service
        if unit.disaggregated and unit.decode.nodes:
            node = unit.decode.nodes[0][0].node
            files[node][f"{unit.name}-router"] = router(unit, addresses, PORT + 900 + nodes.services[node])
    what = "docker compose for one node: docker compose -f {}.yaml up -d"
    return {
        f"compose/{safe(node)}.yaml": header(plan, what.format(safe(node)))
        + dump({"services": held, "volumes": {"models": {}}, "x-fleetplan": origin(plan) | {"node": node}})
        for node, held in sorted(files.items())
    }


def services(
    plan: Plan, group: ReplicaGroup, name: str, replica: tuple[NodeShare, ...], nodes: Nodes
) -> tuple[list[tuple[str, str, dict[str, Any]]], str]:
    """(node, service name, service) of each part of one replica, and the address that it answers on."""
    made = []
    leader, address, master = replica[0].node, "", MASTER_PORT
    for rank, share in enumerate(replica):
        devices, index = nodes.take(share)
        port = PORT + index
        if rank == 0:
            address = f"http://{leader}:{port}"
            master = MASTER_PORT + index
        settings = merged(arguments(plan, group), {"port": port})
        line = argv(settings)
        if len(replica) > 1:
            line += [f"--nnodes={len(replica)}", f"--node-rank={rank}", f"--master-addr={leader}"]
            line += [f"--master-port={master}", *(["--headless"] * (rank > 0))]
        own = service(plan, group, line, devices, side_channel=SIDE_CHANNEL_PORT + SIDE_CHANNEL_STEP * index)
        if rank == 0:
            own["healthcheck"] = health(port)
        made.append((share.node, name if len(replica) == 1 else f"{name}-rank{rank}", own))
    return made, address


def health(port: int) -> dict[str, Any]:
    """Ask vLLM's /health as the other formats do."""
    ask = f"import urllib.request as u; u.urlopen('http://127.0.0.1:{port}/health', timeout=5)"
    test = ["CMD", "python3", "-c", ask]
    return {"test": test, "interval": "10s", "timeout": "10s", "retries": 3, "start_period": "40m"}


def service(
    plan: Plan, group: ReplicaGroup, line: list[str], devices: list[str], *, side_channel: int
) -> dict[str, Any]:
    """One vLLM server."""
    vendor = vendor_of(plan, group)
    variables = {"HF_TOKEN": "${HF_TOKEN:-}", "VLLM_NO_USAGE_STATS": "1"}
    if group.role != "both":
        variables["VLLM_NIXL_SIDE_CHANNEL_HOST"] = "${NODE_ADDRESS:?set it to the address that other nodes reach}"
        variables["VLLM_NIXL_SIDE_CHANNEL_PORT"] = str(side_channel)
    if vendor == "cpu":
        variables["VLLM_CPU_KVCACHE_SPACE"] = str(max(1, group.kv_cache_memory_bytes // GIB))
    made: dict[str, Any] = {
        "image": image_of(plan, group),
        "entrypoint": ["vllm", "serve"],
        "command": [part.replace("$", "$$") for part in line],
        "environment": variables,
        "network_mode": "host",
        "ipc": "host",
        "restart": "unless-stopped",
        "stop_grace_period": f"{int(str(arguments(plan, group).get('shutdown-timeout', 60))) + 30}s",
        "volumes": ["models:/root/.cache/huggingface"],
        "labels": {"fleetplan.io/intent": group.intent.replace("$", "$$"), "fleetplan.io/role": group.role},
    }
    if vendor in DRIVERS:
        wanted = {"driver": DRIVERS[vendor], "device_ids": devices, "capabilities": ["gpu"]}
        made["deploy"] = {"resources": {"reservations": {"devices": [wanted]}}}
    return made


def router(unit: Unit, addresses: dict[str, list[str]], port: int) -> dict[str, Any]:
    """Router of a pair with the replicas' addresses written out."""
    backends = [(url, role) for role in ("prefill", "decode") for url in addresses[role]]
    return {
        "image": ROUTER_IMAGE,
        "command": [
            f"--port={port}",
            "--service-discovery=static",
            "--routing-logic=disaggregated_prefill_orchestrated",
            "--static-backends=" + ",".join(url for url, _ in backends),
            "--static-models=" + ",".join(unit.decode.model.replace("$", "$$") for _ in backends),
            "--static-model-labels=" + ",".join(role for _, role in backends),
            "--prefill-model-labels=prefill",
            "--decode-model-labels=decode",
        ],
        "network_mode": "host",
        "restart": "unless-stopped",
    }
