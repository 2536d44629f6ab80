"""What a flow run shows in Prefect: decisions as tables, difference and summary as markdown, plots, the report."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.logging import get_run_logger

from flows.night import Night
from flows.publish import REPORT
from flows.tables import dollars, seconds
from planner.diff import diff
from planner.plan import Plan
from planner.report import images

#: Prefect keeps larger tables but drops their event; the whole list is in plan.json.
TABLE_ROWS = 2000
ENDED = {
    "publish": "Published as `{folder}`",
    "review": "Waits for a review as `{folder}`: run the deployment publish",
    "shadow": "Shadow: nothing was published; what would have been is `{folder}`",
    "show": "Dry run: nothing was published",
}
PICTURES = {
    "pareto": "Cost against latency of each intent's options; the large dot was chosen, the line is the SLO",
    "utilisation": "GPUs used per node pool",
}


@contextmanager
def shown() -> Iterator[None]:
    """What Prefect's server cannot take now is missing from its pages; it never ends a night."""
    try:
        yield
    except httpx.HTTPError as error:
        get_run_logger().warning("not shown, since Prefect's server does not answer: %s", type(error).__name__)


class Progress:
    """A progress artifact of a run, in at most 20 steps."""

    def __init__(self, stage: str, description: str) -> None:
        self._id: Any = None
        self._twentieths = 0
        with shown():
            self._id = create_progress_artifact(0.0, key=f"progress-{stage}", description=description)

    def reach(self, share: float) -> None:
        """Show how far it is, 0 to 1."""
        if self._id is not None and int(share * 20) > self._twentieths:
            self._twentieths = int(share * 20)
            with shown():
                update_progress_artifact(self._id, 100.0 * share)


def show(night: Night) -> None:
    """Create every artifact of a run; keys stay the same from night to night, so Prefect keeps their history."""
    with shown():
        _show(night)


def _show(night: Night) -> None:
    plan, before = night.plan, night.in_force.plan
    create_table_artifact(decision_rows(plan), key="decisions", description=f"Decisions of plan {plan.serial}")
    create_table_artifact(placement_rows(plan), key="placements", description="Replicas by node pool")
    create_markdown_artifact(diff(before, plan).markdown(), key="difference", description=since(before))
    create_markdown_artifact(summary(night), key="summary", description="The night in short")
    for key, png in images(plan).items():
        create_image_artifact(data_url(png), key=key, description=PICTURES.get(key, key))
    for key, path in {"report": REPORT, "manifests": "manifests"}.items() if night.folder is not None else ():
        create_link_artifact(link(night.folder, path), key=key, link_text=f"plan {plan.serial}: {path}")


def data_url(png: bytes) -> str:
    """A picture as a URL that holds it."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def link(folder: str | None, path: str) -> str:
    """URL of what lies in a plan's folder, which is a URL itself or a path here."""
    where = f"{folder}/{path}"
    return where if "://" in where else Path(where).resolve().as_uri()


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
    lines += ["", ENDED[night.ending].format(folder=night.folder)]
    return "\n".join(lines) + "\n"
