"""The flow `replan`: a plan on demand from a form, published only when asked to."""

from __future__ import annotations

from functools import partial

from prefect import flow

from flows.forms import Intents, Pools, Where, amended
from flows.night import Night
from flows.nightly import NIGHT_S, Dask, run
from flows.observe import last_load
from flows.site import store_at


def _name() -> str:
    from prefect.runtime import flow_run  # noqa: PLC0415 - known only inside a run

    return "dry-run" if flow_run.parameters.get("dry_run", True) else "live"


@flow(
    name="replan",
    flow_run_name=_name,
    timeout_seconds=NIGHT_S,
    persist_result=False,
    result_serializer="json",
)
def replan(  # noqa: PLR0913 - a form
    fleet: Where = "examples/fleet.yaml",
    intents: Intents = [],  # noqa: B006 - a literal default shows in the form, and nobody changes it
    pools: Pools = [],  # noqa: B006
    *,
    dry_run: bool = True,
    root: Where = "var",
    out: Where = "plans",
    dask: Dask = "",
) -> Night:
    """Plan the fleet now, with changes if you like.

    Args:
        fleet: Path of fleet.yaml, relative to the folder that was deployed from.
        intents: Services to add, or to plan otherwise than the fleet file says. What is left empty stays as it is.
        pools: GPU pools to add, or to plan with otherwise than the fleet file says.
        dry_run: Show what would be decided and publish nothing.
        root: Run data, a folder or a URL such as s3://bucket/prefix. No credential belongs here.
        out: Published plans, a folder or a URL.
        dask: Address of a Dask scheduler such as tcp://10.0.0.5:8786 that searches are sent to; empty: this machine.
    """
    amend = partial(amended, intents=intents, pools=pools, last=lambda row: last_load(row, store_at(root)))
    return run(fleet, root=root, out=out, ending="show" if dry_run else "publish", dask=dask, amend=amend)
