"""The flow `replan`: a plan on demand, published only when asked to."""

from __future__ import annotations

from prefect import flow

from flows.night import Night
from flows.nightly import NIGHT_S, run


def _name() -> str:
    from prefect.runtime import flow_run  # noqa: PLC0415 - known only inside a run

    return "dry-run" if flow_run.parameters.get("dry_run", True) else "live"


@flow(
    name="replan",
    flow_run_name=_name,
    timeout_seconds=NIGHT_S,
    persist_result=False,
)
def replan(fleet: str = "examples/fleet.yaml", root: str = "var", out: str = "plans", *, dry_run: bool = True) -> Night:
    """Plan the fleet now.

    Args:
        fleet: Path of fleet.yaml, relative to the folder that was deployed from.
        root: Run data, a folder or a URL such as s3://bucket/prefix.
        out: Published plans, a folder or a URL.
        dry_run: Show what would be decided and publish nothing.
    """
    return run(fleet, root=root, out=out, dry_run=dry_run)
