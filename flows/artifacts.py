"""What a flow run shows in Prefect: decisions as tables, difference and summary as markdown, plots, the report."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
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
from planner.plan import IntentDecision, Plan
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
    table(decision_rows(plan), key="decisions", description=f"Decisions of plan {plan.serial}")
    table(placement_rows(plan), key="placements", description="Replicas by node pool")
    create_markdown_artifact(diff(before, plan).markdown(), key="difference", description=since(before))
    drawn = {key: data_url(png) for key, png in images(plan).items()}
    pictures = "".join(f"\n## {PICTURES[key]}\n\n![{key}]({url})\n" for key, url in drawn.items())
    create_markdown_artifact(summary(night) + pictures, key="summary", description="The night in short")
    for key, url in drawn.items():
        create_image_artifact(url, key=key, description=PICTURES[key])
    for key, path in {"report": REPORT, "manifests": "manifests"}.items() if night.folder is not None else ():
        # a browser opens no file of a page from elsewhere: the path is said too
        where, text = link(night.folder, path), f"plan {plan.serial}: {path}"
        create_link_artifact(where, key=key, link_text=text, description=where.removeprefix("file://"))


def table(rows: Sequence[Mapping[str, Any]], *, key: str, description: str) -> None:
    """Create a table; what is not there is a dash, since Prefect reads cells as markdown and a hyphen as a bullet."""
    cells = [{name: "–" if value == "-" else value for name, value in row.items()} for row in rows[:TABLE_ROWS]]
    create_table_artifact(cells, key=key, description=description)


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
    """One row per intent, latencies at the slow end beside their limits; why it is so stands in the summary."""
    return [
        {
            "intent": decision.name,
            "status": decision.status.replace("_", " "),
            "strategy": " + ".join(choice.strategy for choice in decision.chosen) or "-",
            "USD/h": dollars(decision.cost_per_hour),
            "TTFT (limit)": _within([choice.ttft.high_s for choice in decision.chosen], decision.slo.get("ttft")),
            "TPOT (limit)": _within([choice.tpot.high_s for choice in decision.chosen], decision.slo.get("tpot")),
            "requests/s": f"{decision.rate:.4g}",
        }
        for decision in plan.intents
    ]


def _within(found: Sequence[float | None], limit: float | None) -> str:
    told = ", ".join(seconds(each) for each in found) or "–"
    return told if limit is None else f"{told} ({seconds(limit)})"


def placement_rows(plan: Plan) -> list[dict[str, Any]]:
    """One row per replica group."""
    return [
        {"intent": group.intent, "role": group.role, "replicas": group.replicas, "GPUs each": group.gpus_per_replica,
         "node pool": group.node_pool, "checkpoint": group.checkpoint}
        for group in plan.placements
    ]  # fmt: skip


def summary(night: Night) -> str:
    """A page of markdown: cost, statuses, unmet intents with what would help, where the files are."""
    plan = night.plan
    lines = [f"# Plan {plan.serial}: {dollars(plan.cost_per_hour)} USD/h", ""]
    if plan.baseline_cost_per_hour is not None:
        lines += [f"It would be {dollars(plan.baseline_cost_per_hour)} USD/h with {plan.baseline}.", ""]
    lines += [f"- **{d.name}** {d.status.replace('_', ' ')}{_share(d)}: {d.reason}" for d in plan.intents]
    relaxations = [(d.name, relaxation.text) for d in plan.intents for relaxation in d.relaxations]
    lines += ["", "## What would help", "", *(f"- {name}: {text}" for name, text in relaxations)] if relaxations else []
    lines += ["", "## Notes", "", *(f"- {note}" for note in night.notes)] if night.notes else []
    lines += ["", ENDED[night.ending].format(folder=night.folder)]
    return "\n".join(lines) + "\n"


def _share(decision: IntentDecision) -> str:
    """How much of the load is served, where it is not all."""
    return "" if decision.served_share >= 1.0 else f" ({decision.served_share:.0%} of its load is served)"
