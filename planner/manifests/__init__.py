"""DECISIONS -> files: every format is a pure function from a plan to `{path: text}`.

All formats derive from one plan, so they cannot disagree; equal plans give equal bytes, and the serial, which names a
night and not a decision, stands in none of them. Objects carry the plan's and the fleet's digest on themselves and
never on their pods: an unchanged replica does not restart because another one moved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from catalog.errors import BadInput, near_names
from planner.manifests import (
    argocd,
    autoscaling,
    compose,
    dynamo,
    kserve,
    kubernetes,
    llmd,
    production_stack,
    ray,
    readme,
    skypilot,
    systemd,
    vllm,
)
from planner.manifests.argocd import pull_request
from planner.manifests.arguments import arguments, argv
from planner.manifests.names import group_names
from planner.manifests.pairing import pairing_problems
from planner.plan import Plan

__all__ = ["FORMATS", "arguments", "argv", "group_names", "pull_request", "render"]

#: Format -> its renderer, in the order of how many people take it up.
FORMATS: dict[str, Callable[[Plan], dict[str, str]]] = {
    "vllm": vllm.render,
    "kubernetes": kubernetes.render,
    "production-stack": production_stack.render,
    "llm-d": llmd.render,
    "kserve": kserve.render,
    "argocd": argocd.render,
    "dynamo": dynamo.render,
    "compose": compose.render,
    "systemd": systemd.render,
    "ray": ray.render,
    "skypilot": skypilot.render,
    "autoscaling": autoscaling.render,
    "readme": readme.render,
}


def render(plan: Plan, *, formats: Sequence[str] | None = None, folder: str = argocd.FOLDER) -> dict[str, str]:
    """Write the plan in the wanted formats (by default all): `{relative path: text}`, paths sorted.

    `folder` is where the files will lie in a repository; Argo CD alone must know it.

    Raises:
        BadInput: an unknown format, a vLLM version without a recorded table of arguments, an argument that it would
            refuse, or a prefill and decode pair that NixlConnector would refuse.
    """
    wanted = list(FORMATS if formats is None else formats)
    for name in wanted:
        if name not in FORMATS:
            raise BadInput(f"unknown manifest format {name!r}", place="formats", mend=near_names(name, FORMATS))
    problems = pairing_problems(plan)
    if problems:
        raise BadInput(
            "; ".join(problems), place="placements", mend="plan the pair with equal formats and wider decode"
        )
    files: dict[str, str] = {}
    for name in wanted:
        files |= argocd.render(plan, folder=folder) if name == "argocd" else FORMATS[name](plan)
    return dict(sorted(files.items()))
