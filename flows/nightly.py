"""The flow `nightly`: one night from fleet.yaml to a published plan, shown as Prefect artifacts."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from prefect import flow
from prefect.logging import get_run_logger
from prefect.settings import get_current_settings
from pydantic import StringConstraints

from flows import events
from flows.artifacts import show
from flows.fleet import read_fleet
from flows.forms import Where
from flows.night import Night, plan_night
from flows.progress import Shown
from flows.publish import Ending
from flows.security import check_server
from flows.site import site_at
from flows.steps import Perform
from flows.tasks import tasks

#: A night that takes longer has hung: its successor needs the place.
NIGHT_S = 2 * 3600
Dask = Annotated[str, StringConstraints(pattern=r"^$|^(tcp|tls)://[A-Za-z0-9._:\[\]-]{1,200}$")]
Amend = Callable[[Mapping[str, Any]], dict[str, Any]]


@flow(
    name="nightly",
    flow_run_name="nightly-{fleet}",
    timeout_seconds=NIGHT_S,
    persist_result=False,
    result_serializer="json",
)
def nightly(
    fleet: Where = "examples/fleet.yaml",
    root: Where = "var",
    out: Where = "plans",
    *,
    ending: Literal["publish", "review", "shadow"] = "publish",
    dask: Dask = "",
) -> Night:
    """Plan the fleet and publish the plan.

    Args:
        fleet: Path of fleet.yaml, relative to the folder that was deployed from.
        root: Run data, a folder or a URL such as s3://bucket/prefix.
        out: Published plans, a folder or a URL; tonight's is out/serial/.
        ending: publish: the plan is in force. review: it waits among the proposals for the deployment publish.
            shadow: only the report of what would have happened is kept.
        dask: Address of a Dask scheduler such as tcp://10.0.0.5:8786 that searches are sent to; empty: this machine.
    """
    return run(fleet, root=root, out=out, ending=ending, dask=dask)


def run(  # noqa: PLR0913 - a run by name
    fleet: str, *, root: str, out: str, ending: Ending, dask: str = "", amend: Amend | None = None
) -> Night:
    """Plan inside a flow run: stages as tasks, the decision as artifacts, what became of it as events."""
    check_server(get_current_settings().api.url)
    with events.refusals_told():
        loaded = read_fleet(Path(fleet), amend=amend)
        site = site_at(root, out)
        if ending != "show":
            events.register(dict(loaded.models), site.store)
        with Shown(tasks) as shown:
            night = plan_night(loaded, site, perform=spread(dask, shown), ending=ending)
    for note in night.notes:
        get_run_logger().warning(note)
    show(night)
    events.tell(night)
    return night


def spread(dask: str, perform: Perform) -> Perform:
    """Searches on a Dask cluster where one is named."""
    if not dask:
        return perform
    os.environ.setdefault("DISTRIBUTED__COMM__TIMEOUTS__CONNECT", "30s")
    from flows.spread import Spread  # noqa: PLC0415 - needs the extra `dask`

    return Spread(dask, perform)
