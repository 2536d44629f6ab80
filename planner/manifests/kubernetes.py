"""Plain Kubernetes as a Kustomize base with one folder per replica group, and one overlay per node pool.

A group within a node is a Deployment, one over several nodes a LeaderWorkerSet whose pods run one vLLM together
(`--nnodes`, no Ray). Disaggregated pairs get a router that reads vLLM's own KV hand-over parameters. `kubectl apply -k
kubernetes/base` takes everything, an overlay only what runs on its pool: pools may stand in different clusters.
"""

from __future__ import annotations

from typing import Any

from planner.manifests.names import DOMAIN, beside, dump, dump_all, group_names, labels, origin, safe
from planner.manifests.pods import PORT, SERVES, container, joining, pod, pool_of, without_probes
from planner.manifests.waves import folders, sync_wave
from planner.plan import Plan, ReplicaGroup

#: vLLM production-stack's router: `disaggregated_prefill_orchestrated` hands kv_transfer_params from the prefill's
#: answer to the decode request, which is NixlConnector's protocol.
ROUTER_IMAGE = "lmcache/lmstack-router:v0.1.12"


def render(plan: Plan) -> dict[str, str]:
    """`kubernetes/base/<group>/`, `kubernetes/overlays/<pool>/`, and `kubernetes/waves/<step>/` where things move."""
    files: dict[str, str] = {}
    members: dict[str, list[str]] = {}
    for name, group in zip(group_names(plan), plan.placements, strict=True):
        documents = group_objects(plan, group, name)
        files |= folder(name, documents)
        members.setdefault(group.node_pool, []).append(name)
    for intent, pool in sorted(disaggregated(plan).items()):
        name = beside(plan, f"{safe(intent)}-router")
        files |= folder(name, router_objects(plan, intent, name))
        members.setdefault(pool, []).append(name)
    for intent in sorted(mixed(plan)):
        name = beside(plan, f"{safe(intent)}-all")
        pools = sorted({group.node_pool for group in plan.placements if group.intent == intent})
        files |= folder(name, {"service.yaml": [intent_service(plan, intent, name)]})
        members.setdefault(pools[0], []).append(name)
    everything = sorted(name for names in members.values() for name in names)
    files["kubernetes/base/kustomization.yaml"] = kustomization(everything)
    for pool, names in sorted(members.items()):
        files[f"kubernetes/overlays/{safe(pool)}/kustomization.yaml"] = kustomization(
            [f"../../base/{name}" for name in sorted(names)]
        )
    for step, names in folders(plan).items():
        files[f"kubernetes/waves/step-{step:03d}/kustomization.yaml"] = kustomization(
            [f"../../base/{name}" for name in names]
        )
    return files


def folder(name: str, documents: dict[str, list[dict[str, Any]]]) -> dict[str, str]:
    """One Kustomize folder of the base."""
    root = f"kubernetes/base/{name}"
    files = {f"{root}/{path}": "".join(map(dump, one)) if len(one) == 1 else dump_all(one)
             for path, one in documents.items()}  # fmt: skip
    return files | {f"{root}/kustomization.yaml": kustomization(sorted(documents))}


def kustomization(resources: list[str]) -> str:
    """A kustomization.yaml of these resources."""
    return dump({"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": resources})


def group_objects(plan: Plan, group: ReplicaGroup, name: str) -> dict[str, list[dict[str, Any]]]:
    """What one replica group needs, by file."""
    several = group.nodes_per_replica > 1
    workload = leader_worker_set(plan, group, name) if several else deployment(plan, group, name)
    objects = {
        "leaderworkerset.yaml" if several else "deployment.yaml": [workload],
        "service.yaml": [service(plan, group, name)],
    }
    if group.replicas > 1:
        objects["poddisruptionbudget.yaml"] = [disruption_budget(plan, group, name)]
    return objects


def metadata(plan: Plan, group: ReplicaGroup, name: str) -> dict[str, Any]:
    """Name, labels and where the object comes from."""
    return {
        "name": name,
        "labels": labels(group, name),
        "annotations": origin(plan) | {f"{DOMAIN}/router": group.router} | sync_wave(plan, name),
    }


def selector(name: str) -> dict[str, str]:
    """The labels that a selector uses: they can never change, so they are few."""
    return {"app.kubernetes.io/instance": name, "app.kubernetes.io/name": "vllm"}


def deployment(plan: Plan, group: ReplicaGroup, name: str) -> dict[str, Any]:
    """Replicas that fit a node each."""
    template = pod(plan, group, name, container(plan, group))
    if group.replicas > 1 and len({share.node for replica in group.nodes for share in replica}) > 1:
        template["spec"]["topologySpreadConstraints"] = [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": selector(name)},
            }
        ]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(plan, group, name),
        "spec": {
            "replicas": group.replicas,
            "progressDeadlineSeconds": 3600,
            "revisionHistoryLimit": 3,
            "selector": {"matchLabels": selector(name)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": surge(plan, group)},
            "template": template,
        },
    }


def surge(plan: Plan, group: ReplicaGroup) -> dict[str, int]:
    """Start before stopping where the pool has GPUs to spare, else stop first: a surge would hang for ever."""
    pool = pool_of(plan, group)
    spare = pool is not None and pool.gpus - pool.used >= group.gpus_per_replica
    return {"maxSurge": 1, "maxUnavailable": 0} if spare else {"maxSurge": 0, "maxUnavailable": 1}


def leader_worker_set(plan: Plan, group: ReplicaGroup, name: str) -> dict[str, Any]:
    """Replicas over several nodes each: LWS numbers the pods, vLLM's mp backend joins them."""
    join = joining(group)
    leader = pod(plan, group, name, container(plan, group, extra=tuple(join)))
    further = without_probes(container(plan, group, extra=(*join, "--headless")))
    follower = pod(plan, group, name, further, serves=False)
    return {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": metadata(plan, group, name),
        "spec": {
            "replicas": group.replicas,
            "startupPolicy": "LeaderCreated",
            "leaderWorkerTemplate": {
                "size": group.nodes_per_replica,
                "restartPolicy": "RecreateGroupOnPodRestart",
                "leaderTemplate": leader,
                "workerTemplate": follower,
            },
            "rolloutStrategy": {"type": "RollingUpdate", "rollingUpdateConfiguration": surge(plan, group)},
        },
    }


def service(plan: Plan, group: ReplicaGroup, name: str) -> dict[str, Any]:
    """One address for a group: all pods, or the leaders where a replica has several."""
    chosen = selector(name) | {SERVES: "true"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(plan, group, name),
        "spec": {"selector": chosen, "ports": [{"name": "http", "port": PORT, "targetPort": PORT}]},
    }


def disruption_budget(plan: Plan, group: ReplicaGroup, name: str) -> dict[str, Any]:
    """Node drains take one replica at a time (all pods of one, where it has several)."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(plan, group, name),
        "spec": {"maxUnavailable": group.nodes_per_replica, "selector": {"matchLabels": selector(name)}},
    }


def disaggregated(plan: Plan) -> dict[str, str]:
    """Intents that are served apart -> the node pool of their decode replicas, where the router runs."""
    return {group.intent: group.node_pool for group in plan.placements if group.role == "decode"}


def mixed(plan: Plan) -> set[str]:
    """Intents that two collocated groups or more serve together."""
    names = [group.intent for group in plan.placements if group.role == "both"]
    return {name for name in names if names.count(name) > 1}


def common_metadata(plan: Plan, intent: str, name: str) -> dict[str, Any]:
    """Metadata of an object that belongs to an intent and to no single group."""
    mine = {"app.kubernetes.io/instance": name, "app.kubernetes.io/managed-by": "fleetplan"}
    return {"name": name, "labels": mine | {f"{DOMAIN}/intent": safe(intent, 63)}, "annotations": origin(plan)}


def intent_service(plan: Plan, intent: str, name: str) -> dict[str, Any]:
    """One address for an intent that several groups serve."""
    group = next(group for group in plan.placements if group.intent == intent)
    found = labels(group, name)
    chosen = {key: found[key] for key in (f"{DOMAIN}/intent", f"{DOMAIN}/role")} | {SERVES: "true"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": common_metadata(plan, intent, name),
        "spec": {"selector": chosen, "ports": [{"name": "http", "port": PORT, "targetPort": PORT}]},
    }


def router_objects(plan: Plan, intent: str, name: str) -> dict[str, list[dict[str, Any]]]:
    """Router of a disaggregated intent: finds the pods by their labels, sends each request to prefill, then decode."""
    meta = common_metadata(plan, intent, name)
    group = next(group for group in plan.placements if group.intent == intent and group.role == "decode")
    wanted = labels(group, name)[f"{DOMAIN}/intent"]
    line = [
        "--host=0.0.0.0",
        f"--port={PORT}",
        "--routing-logic=disaggregated_prefill_orchestrated",
        "--service-discovery=k8s",
        "--k8s-namespace=$(POD_NAMESPACE)",
        f"--k8s-port={PORT}",
        f"--k8s-label-selector={DOMAIN}/intent={wanted},{SERVES}=true",
        "--prefill-model-labels=prefill",
        "--decode-model-labels=decode",
    ]
    namespace = {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}}
    unit = {
        "name": "router",
        "image": ROUTER_IMAGE,
        "args": line,
        "env": [namespace],
        "ports": [{"name": "http", "containerPort": PORT}],
        "readinessProbe": {"httpGet": {"path": "/health", "port": PORT}, "periodSeconds": 5},
        "securityContext": {"allowPrivilegeEscalation": False},
    }
    own = {"app.kubernetes.io/instance": name}
    workload = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": meta,
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": own},
            "template": {
                "metadata": {"labels": own},
                "spec": {"containers": [unit], "enableServiceLinks": False, "serviceAccountName": name},
            },
        },
    }
    rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}
    rbac = "rbac.authorization.k8s.io"
    return {
        "deployment.yaml": [workload],
        "rbac.yaml": [
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
            {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": meta, "rules": [rule]},
            {
                "apiVersion": f"{rbac}/v1",
                "kind": "RoleBinding",
                "metadata": meta,
                "roleRef": {"apiGroup": rbac, "kind": "Role", "name": name},
                "subjects": [{"kind": "ServiceAccount", "name": name}],
            },
        ],
        "service.yaml": [
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": meta,
                "spec": {"selector": own, "ports": [{"name": "http", "port": PORT, "targetPort": PORT}]},
            }
        ],
    }
