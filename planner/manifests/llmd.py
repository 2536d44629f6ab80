"""llm-d: Kustomize components with patches, DisaggregatedSet, InferencePool, and modelservice values (0.4.12).

A patch folder is a Kustomize component: list llm-d's base under `resources` and the folder under `components`. The
pool of a disaggregated pair carries a hash of its settings in its name: mixed versions of a pair must not be
scheduled together, so a changed pair is a new pool.
"""

from __future__ import annotations

from typing import Any

from planner.manifests.deployments import Unit, units
from planner.manifests.kubernetes import surge
from planner.manifests.names import dump, header, identity, labels, origin, short_hash
from planner.manifests.pods import (
    PORT,
    SECRET,
    SERVES,
    asking,
    container,
    joining,
    pod,
    seconds_to_stop,
    tolerations,
    vendor_of,
    without_probes,
)
from planner.plan import Plan, ReplicaGroup

#: vLLM's port behind llm-d's routing sidecar, which listens on PORT itself.
BEHIND_SIDECAR = 8200
SIDECAR_IMAGE = "ghcr.io/llm-d/llm-d-routing-sidecar:v0.4.0"
#: The sidecar keeps idle connections for 90 s; vLLM must not close them first.
KEEP_ALIVE = {"name": "VLLM_HTTP_TIMEOUT_KEEP_ALIVE", "value": "120"}
PICKER_PORT = 9002
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


def render(plan: Plan) -> dict[str, str]:
    """`llm-d/<unit>/` (patches, pool, DisaggregatedSet) and `llm-d/modelservice/<unit>.values.yaml`."""
    files: dict[str, str] = {}
    for unit in units(plan):
        root = f"llm-d/{unit.name}"
        patches = {patch_name(unit, group): patch(plan, unit, group, name) for name, group in unit.groups}
        files |= {f"{root}/{path}": header(plan, "llm-d patch") + dump(value) for path, value in patches.items()}
        files[f"{root}/kustomization.yaml"] = dump(component(unit))
        files[f"{root}/inferencepool.yaml"] = dump(inference_pool(plan, unit))
        if unit.disaggregated:
            files[f"{root}/disaggregatedset.yaml"] = dump(disaggregated_set(plan, unit))
        values = modelservice(plan, unit)
        files[f"llm-d/modelservice/{unit.name}.values.yaml"] = header(plan, "llm-d-modelservice values") + dump(values)
    return files


def patch_name(unit: Unit, group: ReplicaGroup) -> str:
    """llm-d's own name of the patch file."""
    return f"patch-{group.role}.yaml" if unit.disaggregated else "patch-vllm.yaml"


def kind_of(group: ReplicaGroup) -> str:
    """What llm-d's base runs a group as."""
    return "LeaderWorkerSet" if group.nodes_per_replica > 1 else "Deployment"


def component(unit: Unit) -> dict[str, Any]:
    """Kustomize component; the workloads of llm-d's bases are called `prefill` and `decode`."""
    listed: list[dict[str, Any]] = []
    for _, group in unit.groups:
        target = {"kind": kind_of(group)}
        if unit.disaggregated:
            target["name"] = group.role
        listed.append({"path": patch_name(unit, group), "target": target})
    return {
        "apiVersion": "kustomize.config.k8s.io/v1alpha1",
        "kind": "Component",
        "resources": ["inferencepool.yaml"],
        "patches": sorted(listed, key=lambda one: str(one["path"])),
    }


def server(plan: Plan, unit: Unit, group: ReplicaGroup) -> dict[str, Any]:
    """The model server's container as llm-d names it."""
    behind = unit.disaggregated and group.role == "decode"
    made = container(plan, group, name="modelserver", port=BEHIND_SIDECAR if behind else PORT)
    return made | {"env": [*made["env"], KEEP_ALIVE]} if unit.disaggregated else made


def sidecar() -> dict[str, Any]:
    """Routing proxy in front of a decode server: sends the prompt to a prefill server first."""
    return {
        "name": "routing-proxy",
        "image": SIDECAR_IMAGE,
        "args": [f"--port={PORT}", f"--vllm-port={BEHIND_SIDECAR}", "--connector=nixlv2", "--secure-proxy=false"],
        "ports": [{"name": "sidecar", "containerPort": PORT}],
        "restartPolicy": "Always",
        "securityContext": {"allowPrivilegeEscalation": False, "runAsNonRoot": True},
    }


def patch(plan: Plan, unit: Unit, group: ReplicaGroup, name: str) -> dict[str, Any]:
    """Strategic merge patch of one Deployment of llm-d's base, or of its LeaderWorkerSet where a replica has nodes."""
    several = group.nodes_per_replica > 1
    pods = leader_worker(plan, unit, group, name)
    spec = {"leaderWorkerTemplate": pods} if several else {"template": pods["workerTemplate"]}
    return {
        "apiVersion": "leaderworkerset.x-k8s.io/v1" if several else "apps/v1",
        "kind": kind_of(group),
        "metadata": {"name": group.role if unit.disaggregated else name, "annotations": origin(plan)},
        "spec": {"replicas": group.replicas, **spec},
    }


def pool_name(unit: Unit) -> str:
    """Name of the pool; for a pair with a hash of both ends' settings."""
    if not unit.disaggregated:
        return unit.name
    return f"{unit.name}-{short_hash(''.join(identity(group) for _, group in unit.groups))}"


def inference_pool(plan: Plan, unit: Unit) -> dict[str, Any]:
    """GAIE InferencePool over the unit's pods; the picker is llm-d's router, installed under this name."""
    name = pool_name(unit)
    mine = labels(unit.decode, unit.decode_name)
    chosen = {key: mine[key] for key in ("fleetplan.io/intent", "llm-d.ai/inference-serving")} | {SERVES: "true"}
    if not unit.disaggregated:
        chosen["app.kubernetes.io/instance"] = unit.name
    return {
        "apiVersion": "inference.networking.k8s.io/v1",
        "kind": "InferencePool",
        "metadata": {"name": name, "annotations": origin(plan)},
        "spec": {
            "selector": {"matchLabels": chosen},
            "targetPorts": [{"number": PORT}],
            "endpointPickerRef": {"name": f"{name}-epp", "port": {"number": PICKER_PORT}},
        },
    }


def disaggregated_set(plan: Plan, unit: Unit) -> dict[str, Any]:
    """One object for both roles, rolled out together."""
    roles = [
        {
            "name": group.role,
            "spec": {
                "replicas": group.replicas,
                "rolloutStrategy": {"type": "RollingUpdate", "rollingUpdateConfiguration": surge(plan, group)},
                "leaderWorkerTemplate": leader_worker(plan, unit, group, name),
            },
        }
        for name, group in unit.groups
    ]
    return {
        "apiVersion": "disaggregatedset.x-k8s.io/v1",
        "kind": "DisaggregatedSet",
        "metadata": {"name": unit.name, "annotations": origin(plan)},
        "spec": {"slices": 1, "roles": roles},
    }


def leader_worker(plan: Plan, unit: Unit, group: ReplicaGroup, name: str) -> dict[str, Any]:
    """Pods of one replica: one, or a leader and its followers."""
    size = group.nodes_per_replica
    unit_server = server(plan, unit, group)
    template = pod(plan, group, name, unit_server)
    if group.role == "decode":
        template["spec"]["initContainers"] = [sidecar()]
    if size == 1:
        return {"size": 1, "workerTemplate": template}
    line = [*unit_server["args"], *joining(group)]
    template["spec"]["containers"] = [unit_server | {"args": line}]
    further = without_probes(unit_server) | {"args": [*line, "--headless"]}
    follower = pod(plan, group, name, further, serves=False)
    return {"size": size, "leaderTemplate": template, "workerTemplate": follower}


def modelservice(plan: Plan, unit: Unit) -> dict[str, Any]:
    """Values of the llm-d-modelservice chart; commands are given whole, so nothing is added behind the plan's back."""
    mine = labels(unit.decode, unit.decode_name)
    kept = ("llm-d.ai/inference-serving", "llm-d.ai/model", "fleetplan.io/intent")
    vendor = vendor_of(plan, unit.decode)
    several = any(group.nodes_per_replica > 1 for _, group in unit.groups)
    # one set of labels for a leader and its followers: a pool of ours can take pods of one node alone
    serves = {} if several else {SERVES: "true"}
    roles: dict[str, Any] = {
        group.role if unit.disaggregated else "decode": role(plan, unit, group) for _, group in unit.groups
    }
    return {
        "fullnameOverride": unit.name,
        "multinode": several,
        "accelerator": {"type": "intel-i915" if vendor == "intel" else vendor},
        "modelArtifacts": {
            "uri": f"hf://{unit.decode.checkpoint}",
            "name": unit.decode.model,
            "authSecretName": SECRET["name"],
            "labels": {key: mine[key] for key in kept} | serves,
        },
        "routing": {
            "servicePort": PORT,
            "proxy": {"enabled": unit.disaggregated, "connector": "nixlv2", "targetPort": BEHIND_SIDECAR},
        },
        "prefill": {"create": False, "replicas": 0},
        **roles,
    }


def role(plan: Plan, unit: Unit, group: ReplicaGroup) -> dict[str, Any]:
    """The chart's `decode` or `prefill` section."""
    port = BEHIND_SIDECAR if unit.disaggregated and group.role == "decode" else PORT
    made = container(plan, group, port=port)
    if group.nodes_per_replica > 1:
        made |= alike(group, made, port)
    kept = ("image", "command", "args", "ports", "resources", "lifecycle", "volumeMounts", *PROBES)
    local = max(1, group.dp // group.nodes_per_replica)
    whole = pod(plan, group, "", {})["spec"]
    return {
        "create": True,
        "replicas": group.replicas,
        "parallelism": {"tensor": group.tp, "data": group.dp, "dataLocal": local, "workers": group.nodes_per_replica},
        "nodeSelector": whole["nodeSelector"],
        "terminationGracePeriodSeconds": seconds_to_stop(plan, group),
        "tolerations": tolerations(plan, group),
        "containers": [
            {
                "name": "vllm",
                "modelCommand": "custom",
                "env": [variable for variable in made["env"] if variable["name"] != "HF_TOKEN"],
                **{key: made[key] for key in kept if key in made},
            }
        ],
        "volumes": whole["volumes"],
        "monitoring": {"podmonitor": {"enabled": True, "portName": "http"}},
    }


def alike(group: ReplicaGroup, made: dict[str, Any], port: int) -> dict[str, Any]:
    """One command and one set of probes for a leader and its followers: the chart has one template for all of them.

    Followers run headless and answer no HTTP, so each pod decides by its index in the LeaderWorkerSet.
    """
    script = '[ "$LWS_WORKER_INDEX" = 0 ] || set -- "$@" --headless; exec vllm serve "$@"'
    asked = ["/bin/sh", "-c", f'[ "$LWS_WORKER_INDEX" != 0 ] || exec python3 -c "{asking(port)}"']
    probes = {
        name: {key: value for key, value in made[name].items() if key != "httpGet"} | {"exec": {"command": asked}}
        for name in PROBES
    }
    return probes | {"command": ["/bin/sh", "-c", script, "vllm"], "args": [*made["args"], *joining(group)]}
