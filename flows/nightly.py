"""The flow `nightly`: one night from fleet.yaml to a published plan, shown as Prefect artifacts."""

from __future__ import annotations

from pathlib import Path

from prefect import flow
from prefect.logging import get_run_logger

from flows.artifacts import show
from flows.fleet import read_fleet
from flows.night import Night, plan_night
from flows.progress import Shown
from flows.site import site_at
from flows.tasks import tasks

#: A night that takes longer has hung: its successor needs the place.
NIGHT_S = 2 * 3600


@flow(
    name="nightly",
    flow_run_name="nightly-{fleet}",
    timeout_seconds=NIGHT_S,
    persist_result=False,
)
def nightly(fleet: str = "examples/fleet.yaml", root: str = "var", out: str = "plans") -> Night:
    """Plan the fleet and publish the plan.

    Args:
        fleet: Path of fleet.yaml, relative to the folder that was deployed from.
        root: Run data, a folder or a URL such as s3://bucket/prefix.
        out: Published plans, a folder or a URL; tonight's is out/serial/.
    """
    return run(fleet, root=root, out=out, dry_run=False)


def run(fleet: str, *, root: str, out: str, dry_run: bool) -> Night:
    """Plan inside a flow run: stages as tasks, the decision as artifacts."""
    loaded = read_fleet(Path(fleet))
    with Shown(tasks) as shown:
        night = plan_night(loaded, site_at(root, out), perform=shown, dry_run=dry_run)
    for note in night.notes:
        get_run_logger().warning(note)
    show(night)
    return night
