"""vLLM alone: one `vllm serve --config` YAML and one command line per replica group."""

from __future__ import annotations

import shlex

from planner.manifests.arguments import arguments, argv
from planner.manifests.names import dump, group_names, header
from planner.manifests.pairing import SIDE_CHANNEL_PORT
from planner.plan import Plan, ReplicaGroup


def render(plan: Plan) -> dict[str, str]:
    """`vllm/<group>.yaml` for `vllm serve --config`, and `vllm/<group>.sh` with the same as a command line."""
    files: dict[str, str] = {}
    for name, group in zip(group_names(plan), plan.placements, strict=True):
        settings = arguments(plan, group)
        files[f"vllm/{name}.yaml"] = header(plan, what(group)) + dump(settings)
        files[f"vllm/{name}.sh"] = "#!/bin/sh\n" + header(plan, what(group)) + command(group, argv(settings))
    return files


def what(group: ReplicaGroup) -> str:
    """One line that says what a group is."""
    role = "" if group.role == "both" else f" {group.role}"
    return f"{group.intent}{role}: {group.replicas} replicas, each on {group.gpus_per_replica} x {group.gpu}"


def command(group: ReplicaGroup, line: list[str]) -> str:
    """A shell command that starts one replica; further arguments go through, such as --port."""
    exports = ""
    if group.role != "both":
        exports = (
            ': "${VLLM_NIXL_SIDE_CHANNEL_HOST:?set it to the address that the other replicas reach}"\n'
            f'export VLLM_NIXL_SIDE_CHANNEL_HOST VLLM_NIXL_SIDE_CHANNEL_PORT="${{VLLM_NIXL_SIDE_CHANNEL_PORT:-'
            f'{SIDE_CHANNEL_PORT}}}"\n'
        )
    return exports + "exec vllm serve \\\n" + "".join(f"  {shlex.quote(part)} \\\n" for part in line) + '  "$@"\n'
