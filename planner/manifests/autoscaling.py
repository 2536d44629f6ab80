"""Bounds for autoscalers: KEDA, HorizontalPodAutoscaler and llm-d's Workload Variant Autoscaler.

The plan decides by the night, autoscalers by the minute, inside these bounds. One kind alone may act on a group:
apply one of the three folders. Groups over several nodes and disaggregated pairs keep their counts: scaling one end
of a pair fails the requests in flight between them.
"""

from __future__ import annotations

import math
from typing import Any

from planner.manifests.deployments import decision_of, units
from planner.manifests.index import index
from planner.manifests.names import dump, labels, origin
from planner.plan import Plan, ReplicaGroup, Window

HOURS = 24


def render(plan: Plan) -> dict[str, str]:
    """`autoscaling/{keda,hpa,wva}/<group>.yaml`."""
    files: dict[str, str] = {}
    for unit in units(plan):
        group = unit.decode
        if unit.disaggregated or group.nodes_per_replica > 1:
            continue
        made = {"keda": scaled_object, "hpa": pod_autoscaler, "wva": variant}
        files |= {f"autoscaling/{kind}/{unit.name}.yaml": dump(of(plan, group, unit.name)) for kind, of in made.items()}
    return files


def windows(group: ReplicaGroup) -> tuple[Window, ...]:
    """The group's windows, or one that lasts all day."""
    if group.windows:
        return group.windows
    return (Window(start_hour=0.0, end_hour=24.0, min_replicas=1, max_replicas=group.replicas),)


def bounds(group: ReplicaGroup) -> tuple[int, int]:
    """Least and most replicas over the day."""
    found = windows(group)
    return min(window.min_replicas for window in found), max(window.max_replicas for window in found)


def metadata(plan: Plan, group: ReplicaGroup, name: str) -> dict[str, Any]:
    """Name, labels, digests."""
    return {"name": name, "labels": labels(group, name), "annotations": origin(plan)}


def target(name: str) -> dict[str, str]:
    """The Deployment that is scaled."""
    return {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}


def rate_per_replica(plan: Plan, group: ReplicaGroup) -> float:
    """Requests per second that one replica serves within the SLO at the slow end; a mix shares by its GPUs."""
    decision = decision_of(plan, group.intent)
    if decision is None or not decision.chosen:
        return 1.0
    groups = index(plan).groups.get((group.intent, "both"), ())
    mine = sum(other.replicas * other.gpus_per_replica / other.engines_per_gpu for other in groups)
    goodput = math.fsum(part.goodput_low for part in decision.chosen)
    return max(1e-3, float(f"{goodput * group.gpus_per_replica / group.engines_per_gpu / (mine or 1.0):.4g}"))


def running_per_replica(plan: Plan, group: ReplicaGroup) -> int:
    """Requests that one replica holds at that rate: Little's law with the predicted length of a whole request."""
    decision = decision_of(plan, group.intent)
    lasts = max((part.e2e.p50_s or 0.0 for part in decision.chosen if part.e2e), default=0.0) if decision else 0.0
    held = rate_per_replica(plan, group) * lasts
    return max(1, min(group.max_num_seqs, math.ceil(held))) if lasts else group.max_num_seqs


def scaled_object(plan: Plan, group: ReplicaGroup, name: str) -> dict[str, Any]:
    """KEDA: requests per second against what a replica can serve, and each window's floor by cron."""
    low, high = bounds(group)
    served = labels(group, name)["app.kubernetes.io/instance"]
    chosen = f'{{job="{served}"}}'  # a ServiceMonitor calls a job as its Service is called
    query = f"sum(rate(vllm:request_success_total{chosen}[2m])) + sum(vllm:num_requests_waiting{chosen})"
    triggers: list[dict[str, Any]] = [
        {
            "type": "prometheus",
            "metadata": {
                "serverAddress": "http://prometheus-operated:9090",
                "query": query,
                "threshold": f"{rate_per_replica(plan, group):g}",
            },
        }
    ]
    triggers += [cron(window) for window in group.windows if window.min_replicas > low]
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": metadata(plan, group, name),
        "spec": {
            "scaleTargetRef": target(name),
            "minReplicaCount": low,
            "maxReplicaCount": high,
            "cooldownPeriod": 600,
            "triggers": triggers,
        },
    }


def cron(window: Window) -> dict[str, Any]:
    """KEDA's cron trigger holds a floor within a window."""

    def at(hour: float) -> str:
        return f"{round(hour % 1 * 60) % 60} {math.floor(hour) % HOURS} * * *"

    settings = {"timezone": "UTC", "start": at(window.start_hour), "end": at(window.end_hour)}
    return {"type": "cron", "metadata": settings | {"desiredReplicas": str(window.min_replicas)}}


def pod_autoscaler(plan: Plan, group: ReplicaGroup, name: str) -> dict[str, Any]:
    """HPA on the requests that a replica runs, as the Prometheus adapter names vLLM's gauge."""
    low, high = bounds(group)
    metric = {
        "type": "Pods",
        "pods": {
            "metric": {"name": "vllm_num_requests_running"},
            "target": {"type": "AverageValue", "averageValue": str(running_per_replica(plan, group))},
        },
    }
    calm = {"stabilizationWindowSeconds": 600, "policies": [{"type": "Pods", "value": 1, "periodSeconds": 120}]}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata(plan, group, name),
        "spec": {
            "scaleTargetRef": target(name),
            "minReplicas": max(1, low),
            "maxReplicas": high,
            "metrics": [metric],
            "behavior": {"scaleDown": calm},
        },
    }


def variant(plan: Plan, group: ReplicaGroup, name: str) -> dict[str, Any]:
    """WVA: what one replica of this variant costs, dollars per hour."""
    pool = index(plan).pools.get(group.node_pool)
    price = (pool.price_per_gpu_hour if pool else None) or 0.0
    low, high = bounds(group)
    meta = metadata(plan, group, name)
    limits = {"fleetplan.io/min-replicas": str(low), "fleetplan.io/max-replicas": str(high)}
    return {
        "apiVersion": "llmd.ai/v1alpha1",
        "kind": "VariantAutoscaling",
        "metadata": meta | {"annotations": meta["annotations"] | limits},
        "spec": {
            "scaleTargetRef": target(name),
            "modelID": group.model,
            "variantCost": f"{price * group.gpus_per_replica / group.engines_per_gpu:.4f}",
        },
    }
