"""What a flow run shows in Prefect: decisions as tables, difference and summary as markdown, plots, the report."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
)

from flows.night import Night
from flows.publish import REPORT
from flows.tables import dollars, seconds
from planner.diff import diff
from planner.plan import Plan
from planner.report import images

#: Prefect keeps larger tables but drops their event; the whole list is in plan.json.
TABLE_ROWS = 2000
PICTURES = {
    "pareto": "Cost against latency of each intent's options; the large dot was chosen, the line is the SLO",
    "utilisation": "GPUs used per node pool",
}


def show(night: Night) -> None:
    """Create every artifact of a run; keys stay the same from night to night, so Prefect keeps their history."""
    plan, before = night.plan, night.in_force.plan
    create_table_artifact(decision_rows(plan), key="decisions", description=f"Decisions of plan {plan.serial}")
    create_table_artifact(placement_rows(plan), key="placements", description="Replicas by node pool")
    create_markdown_artifact(diff(before, plan).markdown(), key="difference", description=since(before))
    create_markdown_artifact(summary(night), key="summary", description="The night in short")
    for key, png in images(plan).items():
        url = f"data:image/png;base64,{base64.b64encode(png).decode()}"
        create_image_artifact(url, key=key, description=PICTURES.get(key, key))
    if night.folder is not None and "://" not in night.folder:
        url = (Path(night.folder).resolve() / REPORT).as_uri()
        create_link_artifact(url, key="report", link_text="report.html", description="The whole report")


def since(before: Plan | None) -> str:
    """Say what the difference is from."""
    return "There was no plan before" if before is None else f"Since plan {before.serial}, the one in force"


def decision_rows(plan: Plan) -> list[dict[str, Any]]:
    """One row per intent."""
    return [
        {
            "intent": decision.name,
            "status": decision.status.replace("_", " "),
            "serves": f"{decision.served_share:.0%}",
            "strategy": " + ".join(choice.strategy for choice in decision.chosen) or "-",
            "TTFT": ", ".join(seconds(choice.ttft.high_s) for choice in decision.chosen) or "-",
            "TPOT": ", ".join(seconds(choice.tpot.high_s) for choice in decision.chosen) or "-",
            "USD/h": dollars(decision.cost_per_hour),
            "why": decision.reason,
        }
        for decision in plan.intents[:TABLE_ROWS]
    ]


def placement_rows(plan: Plan) -> list[dict[str, Any]]:
    """One row per replica group."""
    return [
        {"intent": group.intent, "role": group.role, "replicas": group.replicas, "GPUs each": group.gpus_per_replica,
         "node pool": group.node_pool, "checkpoint": group.checkpoint}
        for group in plan.placements[:TABLE_ROWS]
    ]  # fmt: skip


def summary(night: Night) -> str:
    """A page of markdown: cost, statuses, unmet intents with what would help, where the files are."""
    plan = night.plan
    lines = [f"# Plan {plan.serial}: {dollars(plan.cost_per_hour)} USD/h", ""]
    if plan.baseline_cost_per_hour is not None:
        lines += [f"{dollars(plan.baseline_cost_per_hour)} USD/h with: {plan.baseline}", ""]
    lines += [f"- **{d.name}** {d.status.replace('_', ' ')}: {d.reason}" for d in plan.intents]
    relaxations = [(d.name, relaxation.text) for d in plan.intents for relaxation in d.relaxations]
    lines += ["", "## What would help", "", *(f"- {name}: {text}" for name, text in relaxations)] if relaxations else []
    lines += ["", "## Notes", "", *(f"- {note}" for note in night.notes)] if night.notes else []
    lines += ["", f"Published as `{night.folder}`" if night.folder else "Dry run: nothing was published"]
    return "\n".join(lines) + "\n"
