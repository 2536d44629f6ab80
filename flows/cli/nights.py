"""Commands that plan: `plan` on the library alone, `nightly` as the Prefect flow, `ui` to serve and schedule it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli import options

if TYPE_CHECKING:
    from flows.night import Night

UNMET = 3

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
    app.command()(ui)


def plan(
    fleet: options.Fleet,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Compute and show, publish nothing.")] = False,
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
        night = plan_night(loaded, site_at(root, out), perform=shown, dry_run=dry_run)
    show(night, as_json=as_json)


def nightly(
    fleet: options.Fleet,
    *,
    root: options.Root = options.ROOT,
    out: options.Out = options.OUT,
    as_json: options.Json = False,
) -> None:
    """Run the nightly Prefect flow once, here: with your server if PREFECT_API_URL names one, else with its own."""
    from flows.fleet import read_fleet  # noqa: PLC0415

    read_fleet(fleet)  # bad input is said at once, not after Prefect's start
    tell_prefect(root)
    sys.stderr.write("starting Prefect (half a minute the first time)\n")
    from flows.nightly import nightly as flow  # noqa: PLC0415 - imports Prefect, seconds

    show(flow(fleet=str(fleet), root=root, out=out), as_json=as_json)


def tell_prefect(root: str) -> None:
    """Set Prefect's environment where the user has not."""
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
        decided = (tables.decisions(night.plan), *tables.unmet(night.plan))
        options.print_tables(*decided, tables.pools(night.plan), *places(night.folder))
    if not night.met:
        raise typer.Exit(UNMET)


def places(folder: str | None) -> list[str]:
    """Lines that say where the plan lies."""
    if folder is None:
        return ["dry run: nothing was published"]
    return [f"plan      {folder}/plan.json", f"manifests {folder}/manifests/", f"report    {folder}/report.html"]


def ui(
    *,
    root: options.Root = options.ROOT,
    port: Annotated[int, typer.Option(help="Port of Prefect's server on this machine.", min=1, max=65535)] = 4200,
) -> None:
    """Serve Prefect on this machine with the deployments of prefect.yaml and a worker, until Ctrl-C."""
    tell_prefect(root)
    os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
    prefect = [sys.executable, "-m", "prefect", "--no-prompt"]
    server = subprocess.Popen([*prefect, "server", "start", "--host", "127.0.0.1", "--port", str(port)])  # noqa: S603 - our own interpreter
    try:
        wait_for(f"http://127.0.0.1:{port}/api/health", server)
        pool = ["work-pool", "create", "fleetplan", "--type", "process", "--overwrite"]
        subprocess.run([*prefect, *pool], check=True)  # noqa: S603
        subprocess.run([*prefect, "deploy", "--all"], check=True)  # noqa: S603
        sys.stderr.write(f"Prefect's UI: http://127.0.0.1:{port} (Ctrl-C stops it)\n")
        subprocess.run([*prefect, "worker", "start", "--pool", "fleetplan"], check=False)  # noqa: S603
    except KeyboardInterrupt:
        pass
    finally:
        server.terminate()
        server.wait(timeout=30)


def wait_for(url: str, server: subprocess.Popen[bytes], *, seconds: float = 120.0) -> None:
    """Wait until the server answers; OSError if it ends or takes too long."""
    import urllib.request  # noqa: PLC0415

    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2):  # noqa: S310 - loopback
                return
        except OSError:
            time.sleep(0.5)
    msg = f"Prefect's server did not answer at {url}"
    raise OSError(msg)
