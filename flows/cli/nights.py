"""Commands that plan: `plan` on the library alone, `nightly` as the Prefect flow, `review` what it proposed."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from catalog.errors import BadInput
from flows.cli import options

if TYPE_CHECKING:
    from flows.night import Night
    from flows.proposals import Reviewed
    from flows.publish import Ending

UNMET = 3
Shadow = Annotated[bool, typer.Option("--shadow", help="Publish nothing; keep what would have been under ROOT.")]
Proposed = Annotated[bool, typer.Option("--propose", help="Publish nothing; keep the plan for `fleetplan review`.")]
Verdict = Literal["look", "publish", "reject"]

#: What Prefect is told unless the user says otherwise: its files under the root, no telemetry, patience at the start,
#: and to leave the talking to the command line.
PREFECT = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(plan)
    app.command()(nightly)
    app.command()(review)


def plan(  # noqa: PLR0913 - options
    fleet: options.Fleet,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Compute and show, publish nothing.")] = False,
    shadow: Shadow = False,
    proposed: Proposed = False,
    root: options.Root = options.ROOT,
    out: options.Out = options.OUT,
    as_json: options.Json = False,
) -> None:
    """Plan the fleet and publish OUT/<serial>/ with plan.json, manifests and report.html."""
    from flows.fleet import read_fleet  # noqa: PLC0415

    loaded = read_fleet(fleet)  # bad input is said before the compiled parts are loaded
    from flows.night import plan_night  # noqa: PLC0415
    from flows.progress import Shown  # noqa: PLC0415
    from flows.site import site_at  # noqa: PLC0415

    with Shown() as shown:
        ending: Ending = "show" if dry_run else ending_of(shadow=shadow, proposed=proposed)
        night = plan_night(loaded, site_at(root, out), perform=shown, ending=ending)
    show(night, as_json=as_json)


def nightly(  # noqa: PLR0913 - options
    fleet: options.Fleet,
    *,
    shadow: Shadow = False,
    proposed: Proposed = False,
    dask: Annotated[str, typer.Option(help="Search on the Dask cluster of this scheduler: tcp://HOST:PORT.")] = "",
    allow_anonymous: options.AllowAnonymous = False,
    root: options.Root = options.ROOT,
    out: options.Out = options.OUT,
    as_json: options.Json = False,
) -> None:
    """Run the nightly Prefect flow once, here: with your server if PREFECT_API_URL names one, else with its own."""
    from flows.fleet import read_fleet  # noqa: PLC0415

    read_fleet(fleet)  # bad input is said at once, not after Prefect's start
    tell_prefect(root, allow_anonymous=allow_anonymous)
    sys.stderr.write("starting Prefect (half a minute the first time)\n")
    from flows.nightly import nightly as flow  # noqa: PLC0415 - imports Prefect, seconds

    ending = ending_of(shadow=shadow, proposed=proposed)
    show(flow(fleet=str(fleet), root=root, out=out, ending=ending, dask=dask), as_json=as_json)


def ending_of(*, shadow: bool, proposed: bool) -> Literal["publish", "review", "shadow"]:
    """What becomes of the plan. Raises BadInput where both are asked for."""
    if shadow and proposed:
        raise BadInput("--shadow and --propose exclude each other", mend="give one of them")
    return "shadow" if shadow else "review" if proposed else "publish"


def review(  # noqa: PLR0913 - options
    proposal: Annotated[int, typer.Argument(help="Number of the proposal; by default the newest.", min=0)] = 0,
    *,
    publish: Annotated[bool, typer.Option("--publish", help="Put it in force.")] = False,
    reject: Annotated[bool, typer.Option("--reject", help="End the matter.")] = False,
    reason: Annotated[str, typer.Option(help="Why, for whoever reads it later.")] = "",
    window_hours: Annotated[float, typer.Option(help="Publish nothing that is older.", min=0.01)] = 24.0,
    root: options.Root = options.ROOT,
    out: options.Out = options.OUT,
    as_json: options.Json = False,
) -> None:
    """Look at a plan that `--propose` kept for a review, publish it or reject it."""
    if publish and reject:
        raise BadInput("--publish and --reject exclude each other", mend="give one of them")
    from flows.proposals import review as decide  # noqa: PLC0415
    from flows.site import site_at  # noqa: PLC0415

    verdict: Verdict = "publish" if publish else "reject" if reject else "look"
    found = decide(site_at(root, out), proposal, verdict, reason=reason, window_hours=window_hours)
    if as_json:
        where = {"number": found.number, "verdict": verdict, "folder": found.folder}
        options.print_json({**found.plan.model_dump(mode="json"), **where})
    else:
        options.print_tables(*lines_of(found))


def lines_of(found: Reviewed) -> list[str]:
    """A review in lines."""
    ended = {"look": "nothing was changed", "publish": f"published as {found.folder}", "reject": "rejected"}
    return [
        f"proposal {found.number}, to be plan {found.plan.serial}",
        found.difference.markdown(),
        ended[found.verdict],
    ]


def tell_prefect(root: str, *, allow_anonymous: bool = False) -> None:
    """Set Prefect's environment where the user has not."""
    if allow_anonymous:
        os.environ["FLEETPLAN_ALLOW_ANONYMOUS_SERVER"] = "1"
    home = Path(root if "://" not in root else options.ROOT) / "prefect"
    for name, value in {**PREFECT, "PREFECT_HOME": str(home.resolve())}.items():
        os.environ.setdefault(name, value)
    Path(os.environ["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)


def show(night: Night, *, as_json: bool) -> None:
    """Show the decision, say where its files lie, and exit with 3 if an intent is unmet."""
    from flows import tables  # noqa: PLC0415

    for note in night.notes:
        sys.stderr.write(f"note: {note}\n")
    if as_json:
        where = {"folder": night.folder} if night.folder else {}
        options.print_json({**night.plan.model_dump(mode="json"), **where})
    else:
        plan = night.plan
        decided = (tables.decisions(plan), *tables.unmet(plan), *tables.day(plan), *tables.margins(plan))
        options.print_tables(*decided, tables.pools(plan), *places(night))
    if not night.met:
        raise typer.Exit(UNMET)


def places(night: Night) -> list[str]:
    """Lines that say where the plan lies."""
    folder = night.folder
    if folder is None:
        return ["dry run: nothing was published"]
    said = {"shadow": "shadow: nothing was published; this is what would have been",
            "review": "proposed: fleetplan review --publish puts it in force"}.get(night.ending)  # fmt: skip
    return [
        *([said] if said else []),
        f"plan      {folder}/plan.json",
        f"manifests {folder}/manifests/",
        f"report    {folder}/report.html",
    ]
