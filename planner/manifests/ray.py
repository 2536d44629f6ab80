"""Ray Serve LLM: one application per endpoint, vLLM's arguments as `engine_kwargs`."""

from __future__ import annotations

import math
from typing import Any

from catalog.flags import negatives
from planner.manifests.arguments import arguments
from planner.manifests.deployments import Unit, units
from planner.manifests.names import dump, header
from planner.manifests.pods import drain
from planner.plan import Plan, ReplicaGroup

#: Catalog GPU -> Ray's accelerator type (ray.util.accelerators); a type that Ray does not name is left open.
ACCELERATORS = {
    "a100_sxm": "A100-80G",
    "h100_sxm": "H100",
    "h200_sxm": "H200",
    "b200_sxm": "B200",
    "b300_sxm": "B300",
    "l40s": "L40S",
    "l4": "L4",
    "a10g": "A10G",
    "mi300x": "AMD-Instinct-MI300X-OAM",
}
#: Ray serves HTTP and stops replicas itself; these are stated elsewhere, or belong to vLLM's own server.
SERVER_FLAGS = {"model", "served-model-name", "shutdown-timeout"}


def render(plan: Plan) -> dict[str, str]:
    """`ray/serve.yaml` for `serve deploy`."""
    applications = [application(plan, unit) for unit in units(plan)]
    if not applications:
        return {}
    what = "Ray Serve LLM: serve deploy serve.yaml"
    return {"ray/serve.yaml": header(plan, what) + dump({"applications": applications})}


def application(plan: Plan, unit: Unit) -> dict[str, Any]:
    """One application; a disaggregated pair uses Ray's prefill and decode builder."""
    made = {"name": unit.name, "route_prefix": f"/{unit.name}"}
    if unit.prefill is None:
        configs = {"llm_configs": [llm_config(plan, unit.decode)]}
        return made | {"import_path": "ray.serve.llm:build_openai_app", "args": configs}
    pair = {"prefill_config": llm_config(plan, unit.prefill), "decode_config": llm_config(plan, unit.decode)}
    return made | {"import_path": "ray.serve.llm:build_pd_openai_app", "args": pair}


def llm_config(plan: Plan, group: ReplicaGroup) -> dict[str, Any]:
    """One LLMConfig."""
    settings = {name: value for name, value in arguments(plan, group).items() if name not in SERVER_FLAGS}
    off = negatives(plan.vllm_version)
    engine = {off.get(name, name).replace("-", "_"): name not in off and value for name, value in settings.items()}
    made: dict[str, Any] = {
        "model_loading_config": {"model_id": group.model, "model_source": group.checkpoint},
        "engine_kwargs": engine,
        "deployment_config": {
            "num_replicas": group.replicas,
            "max_ongoing_requests": 2 * group.max_num_seqs * group.dp,
            "graceful_shutdown_timeout_s": drain(plan, group),
        },
    }
    if group.engines_per_gpu > 1:
        part = math.floor(1000 / group.engines_per_gpu) / 1000
        made["placement_group_config"] = {"bundles": [{"CPU": 1, "GPU": part}]}
    accelerator = ACCELERATORS.get(group.gpu)
    return made | ({"accelerator_type": accelerator} if accelerator else {})
