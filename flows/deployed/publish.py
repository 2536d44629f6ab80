"""The flow `publish`: review a proposed plan in a form: look at it, publish it, or reject it."""

from __future__ import annotations

from typing import Annotated, Literal

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.settings import get_current_settings
from pydantic import Field

from flows import events
from flows.artifacts import decision_rows, shown, since, table
from flows.forms import Where
from flows.proposals import Reviewed, review
from flows.security import check_server
from flows.site import site_at

PUBLISH_S = 600


@flow(
    name="publish",
    flow_run_name="{verdict}-{proposal}",
    timeout_seconds=PUBLISH_S,
    persist_result=False,
    result_serializer="json",
)
def publish(  # noqa: PLR0913 - a form
    proposal: Annotated[int, Field(ge=0, le=10_000_000)] = 0,
    verdict: Literal["look", "publish", "reject"] = "look",
    *,
    reason: Annotated[str, Field(max_length=2000)] = "",
    window_hours: Annotated[float, Field(gt=0, le=720)] = 24.0,
    root: Where = "var",
    out: Where = "plans",
) -> str | None:
    """Review the plan that a night with ending review proposed.

    Args:
        proposal: Its number, as the night's summary says; 0 is the newest.
        verdict: look shows the difference from the plan in force and changes nothing; publish puts the plan in force;
            reject ends the matter.
        reason: Why, for whoever reads it later.
        window_hours: A proposal older than this is not published any more.
        root: Run data of the night that proposed it.
        out: Published plans.
    """
    check_server(get_current_settings().api.url)
    with events.refusals_told():
        found = review(site_at(root, out), proposal, verdict, reason=reason, window_hours=window_hours)
    show(found)
    if found.folder is not None:
        about = {"serial": found.plan.serial, "digest": found.plan.digest, "cost_per_hour": found.plan.cost_per_hour}
        there = {"folder": found.folder, "changed": bool(found.difference)}
        events.emit(events.ENDED["publish"], "plan.fleet", {**about, **there})
    return found.folder


def show(found: Reviewed) -> None:
    """Artifacts of a review."""
    ended = {"look": "nothing was changed", "publish": f"published as `{found.folder}`", "reject": "rejected"}
    head = f"# Proposal {found.number}, to be plan {found.plan.serial}: {ended[found.verdict]}\n\n"
    text = head + found.difference.markdown()
    with shown():
        create_markdown_artifact(text, key="review", description=since(found.in_force.plan))
        table(decision_rows(found.plan), key="decisions", description=f"Proposal {found.number}")
