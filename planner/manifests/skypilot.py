"""SkyPilot: one SkyServe service per collocated group that fits a node.

SkyServe has no prefill and decode apart and no replica over several nodes; such groups are left out and named in the
manifests' README.
"""

from __future__ import annotations

import shlex
from typing import Any

from planner.manifests.arguments import arguments, argv
from planner.manifests.autoscaling import bounds, rate_per_replica
from planner.manifests.deployments import units
from planner.manifests.names import dump, header, merged
from planner.manifests.pods import PORT, START_MINUTES, image_of
from planner.plan import Plan, ReplicaGroup

#: Catalog GPU -> SkyPilot's name of the accelerator (`sky show-gpus`).
ACCELERATORS = {
    "a100_sxm": "A100-80GB",
    "h100_sxm": "H100",
    "h200_sxm": "H200",
    "b200_sxm": "B200",
    "b300_sxm": "B300",
    "gb200": "GB200",
    "l40s": "L40S",
    "l4": "L4",
    "a10g": "A10G",
    "mi300x": "MI300X",
    "rtx4090": "RTX4090",
    "rtx_pro_6000_server": "RTXPRO6000",
}


def fits(group: ReplicaGroup) -> bool:
    """Whether SkyServe can run the group: it rents whole GPUs."""
    if group.engines_per_gpu > 1:
        return False
    return group.role == "both" and group.nodes_per_replica == 1 and group.gpu in ACCELERATORS


def render(plan: Plan) -> dict[str, str]:
    """`skypilot/<group>.yaml`."""
    found = [unit for unit in units(plan) if not unit.disaggregated and fits(unit.decode)]
    return {
        f"skypilot/{unit.name}.yaml": header(plan, f"SkyServe: sky serve up -n {unit.name} {unit.name}.yaml")
        + dump(service(plan, unit.decode))
        for unit in found
    }


def service(plan: Plan, group: ReplicaGroup) -> dict[str, Any]:
    """Replica policy from the plan: requests per second that one replica serves, on this accelerator."""
    low, high = bounds(group)
    line = argv(merged(arguments(plan, group), {"host": "0.0.0.0", "port": PORT}))  # noqa: S104 - inside a container
    return {
        "service": {
            "readiness_probe": {"path": "/health", "initial_delay_seconds": 60 * START_MINUTES},
            "replica_policy": {
                "min_replicas": low,
                "max_replicas": high,
                "target_qps_per_replica": rate_per_replica(plan, group),
            },
        },
        "resources": {
            "accelerators": {ACCELERATORS[group.gpu]: group.gpus_per_replica},
            "image_id": f"docker:{image_of(plan, group)}",
            "ports": PORT,
        },
        "secrets": {"HF_TOKEN": None},
        "run": "vllm serve " + shlex.join(line),
    }
