"""Argo CD: one Application per node pool on the Kustomize overlays, and the text of the pull request.

Nothing is pruned by itself and nothing is synced by itself: a person merges, a person syncs. The repository's address
is the user's; `REPOSITORY` stands where it belongs.
"""

from __future__ import annotations

from planner.diff import cell, diff
from planner.explain import dollars, wish_of
from planner.manifests.names import dump, origin, safe
from planner.plan import Plan

REPOSITORY, FOLDER = "REPLACE_WITH_YOUR_REPOSITORY", "manifests"


def render(plan: Plan, *, folder: str = FOLDER) -> dict[str, str]:
    """`argocd/<pool>.yaml`; `folder` is where the manifests lie in the repository."""
    used = sorted({group.node_pool for group in plan.placements})
    return {f"argocd/{safe(pool)}.yaml": dump(application(plan, pool, folder)) for pool in used}


def application(plan: Plan, pool: str, folder: str = FOLDER) -> dict[str, object]:
    """One Application; where the pools stand in different clusters, each gets its own destination."""
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Application",
        "metadata": {"name": f"fleetplan-{safe(pool)}", "namespace": "argocd", "annotations": origin(plan)},
        "spec": {
            "project": "default",
            "source": {
                "repoURL": REPOSITORY,
                "targetRevision": "HEAD",
                "path": f"{folder}/kubernetes/overlays/{safe(pool)}",
            },
            "destination": {"name": "in-cluster", "namespace": "fleetplan"},
            "syncPolicy": {"syncOptions": ["CreateNamespace=true", "ApplyOutOfSyncOnly=true", "PruneLast=true"]},
        },
    }


def pull_request(plan: Plan, previous: Plan | None) -> str:
    """Body of the pull request that brings a plan in: what changes, what is not met, what it rests on."""
    difference = diff(previous, plan)
    unmet = [decision for decision in plan.intents if decision.status in ("unmet", "no_data")]
    served = f"{len(plan.intents) - len(unmet)} of {len(plan.intents)} intents are served"
    lines = [f"# Fleet plan {plan.serial}", "", f"{served} for {dollars(plan.cost_per_hour)}.", ""]
    lines += ["## Changes", "", difference.markdown()]
    if unmet:
        lines += ["## Not served", ""]
        lines += [f"- **{cell(d.name)}** ({cell(wish_of(d))}): {cell(d.reason)}" for d in unmet] + [""]
    lines += ["## Rests on", "", f"- plan `{plan.digest}`", f"- fleet `{plan.fleet_digest}`"]
    lines += [f"- vLLM {plan.vllm_version}, `{plan.image}`", f"- {cell(plan.provenance.tables)}"]
    return "\n".join(lines) + "\n"
