"""The manifests' own README: how each tool takes its folder up, and what a format leaves out."""

from __future__ import annotations

from planner.manifests import kserve, production_stack, skypilot
from planner.manifests.deployments import units
from planner.manifests.names import DOMAIN, comment, label_value, origin
from planner.manifests.pods import SECRET
from planner.manifests.waves import folders, gone
from planner.plan import Plan

COMMANDS = {
    "vllm": "`vllm serve --config vllm/<group>.yaml`, or `sh vllm/<group>.sh --port 8000`",
    "kubernetes": "`kubectl apply -k kubernetes/base`, or one pool: `kubectl apply -k kubernetes/overlays/<pool>`",
    "production-stack": "`helm upgrade --install vllm vllm/vllm-stack -f production-stack/values.yaml`, each "
    "disaggregated pair as a release of its own",
    "llm-d": "list `llm-d/<unit>` under `components` of an overlay on llm-d's base; or `kubectl apply -f "
    "llm-d/<unit>/disaggregatedset.yaml`; or `helm install -f llm-d/modelservice/<unit>.values.yaml`",
    "kserve": "`kubectl apply -f kserve/`",
    "argocd": "set `repoURL`, then `kubectl apply -f argocd/`; syncing stays with you",
    "dynamo": "`kubectl apply -f dynamo/`",
    "compose": "on each node: `NODE_ADDRESS=... docker compose -f compose/<node>.yaml up -d`",
    "systemd": "on each node: write `/etc/fleetplan/vllm.env` (`PATH=` of vLLM, the token, for pairs "
    "`VLLM_NIXL_SIDE_CHANNEL_HOST=`), copy `systemd/<node>/*` to `/etc/systemd/system/`, `systemctl daemon-reload`, "
    "`systemctl enable --now fleetplan.target`",
    "ray": "`serve deploy ray/serve.yaml`",
    "skypilot": "`sky serve up -n <group> --secret HF_TOKEN skypilot/<group>.yaml`",
    "autoscaling": "one of `kubectl apply -f autoscaling/{keda,hpa,wva}/`, on top of kubernetes; from then on take "
    "`replicas` out of the Deployments before they are applied again, or the autoscaler starts anew",
}

WHO_NEEDS_IT = "only gated models need it, production-stack's pods wait for it anyway"
ROUTING = (
    "A Service picks at random, production-stack's router takes turns, compose and systemd give each replica an "
    "address: put a router in front that chooses so."
)
ORDER = (
    "Step by step nothing is served less than before and after, but where the table says so. Argo CD keeps this order "
    "by itself within one Application (`argocd.argoproj.io/sync-wave`); what a plan runs no more is pruned at the end, "
    "so scale it away in its step where another one waits for its GPUs. `kubectl apply -k kubernetes/base` ends it."
)


def render(plan: Plan) -> dict[str, str]:
    """`README.md`."""
    lines = ["# Manifests", "", "One plan in every format; apply one of them.", ""]
    lines += [f"- {key}: `{comment(value)}`" for key, value in sorted(origin(plan).items())] + [""]
    lines += ["| folder | take it up |", "|---|---|"]
    lines += [f"| `{name}/` | {command} |" for name, command in COMMANDS.items()] + [""]
    lines += [*before(plan), *change(plan)]
    left = left_out(plan)
    if left:
        lines += ["## Left out", "", *(f"- {text}" for text in left), ""]
    return {"README.md": "\n".join(lines)}


def before(plan: Plan) -> list[str]:
    """What the formats rely on and do not make themselves."""
    pools = ", ".join(f"`{label_value(pool)}`" for pool in sorted({group.node_pool for group in plan.placements}))
    routers = " and ".join(f"`{router}`" for router in sorted({group.router for group in plan.placements}))
    return [
        "## Before",
        "",
        f"- Nodes of Kubernetes carry the label `{DOMAIN}/node-pool`: {pools}.",
        f"- The token lies in the secret `{SECRET['name']}` under `{SECRET['key']}`; {WHO_NEEDS_IT}.",
        "- Pods fetch weights into an `emptyDir` called `models`: patch in a volume that lasts where that takes long.",
        f"- The plan counts on {routers} to choose a replica. {ROUTING}",
        "",
    ]


def change(plan: Plan) -> list[str]:
    """The order of the change for Kubernetes: what to apply after what, and what is to be scaled away by hand."""
    if not plan.waves:
        return []
    groups = folders(plan)
    lines = ["## Order of the change", "", ORDER, "", "| step | take it up, then wait until it serves | until then |"]
    lines += ["|---:|---|---|"]
    for number, wave in enumerate(plan.waves):
        dips = "; ".join(f"{dip.served_share:.0%} of `{comment(dip.intent)}` is served" for dip in wave.dips)
        for step in (2 * number + 1, 2 * number + 2):
            stopping = (step % 2 == 0) != wave.stops_first
            told = [f"`kubectl apply -k kubernetes/waves/step-{step:03d}`"] if step in groups else []
            told += [f"`kubectl scale deployment/{name} --replicas=0`" for name in gone(wave, plan) if stopping]
            lines += [f"| {step} | {', '.join(told)} | {dips if step % 2 else ''} |"] * bool(told)
    return [*lines, ""]


def left_out(plan: Plan) -> list[str]:
    """What a format cannot express, one sentence each."""
    told: list[str] = []
    if any(production_stack.fits(plan, group) for group in plan.placements):
        told.append("production-stack: the chart gives every pod 30 s to stop, which cuts longer answers off")
    told.append(f"dynamo: the image's tag is Dynamo's own, take the release that carries vLLM {plan.vllm_version}")
    told.append("dynamo: queue limits and histogram edges are those of its frontend")
    for unit in units(plan):
        if not all(kserve.fits(group) for _, group in unit.groups):
            told.append(f"kserve: `{unit.name}` spans nodes in a way that KServe has no template for")
        if any(group.nodes_per_replica > 1 for _, group in unit.groups):
            told.append(f"production-stack: `{unit.name}` spans nodes, which the chart does with Ray alone")
        elif not all(production_stack.fits(plan, group) for _, group in unit.groups):
            old = f"the chart turns it off by a flag that vLLM {plan.vllm_version} has no more"
            told.append(f"production-stack: `{unit.name}` has no prefix caching, and {old}")
        if unit.disaggregated:
            told.append(f"skypilot: `{unit.name}` serves prefill and decode apart, SkyServe does not")
            told.append(f"autoscaling: `{unit.name}` keeps its counts, its two ends hold requests in flight")
        elif not skypilot.fits(unit.decode):
            told.append(f"skypilot: `{unit.name}` does not fit one node or an accelerator that SkyPilot names")
        if not unit.disaggregated and unit.decode.nodes_per_replica > 1:
            told.append(f"autoscaling: `{unit.name}` spans nodes and keeps its count")
    return sorted(told)
