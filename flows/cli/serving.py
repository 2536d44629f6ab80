"""Commands that set Prefect up: `deploy` to a server, `ui` to have server, deployments and workers on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from catalog.errors import BadInput, FleetplanError
from flows.cli import options
from flows.cli.nights import tell_prefect

#: Work pools of prefect.yaml: plans, and probes on GPU nodes.
POOLS = ("fleetplan", "fleetplan-gpu")
Notify = Annotated[str, typer.Option(help="Notification block of Prefect, TYPE/NAME, such as slack-webhook/night.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(deploy)
    app.command()(ui)


def deploy(
    *,
    notify: Notify = "",
    allow_anonymous: options.AllowAnonymous = False,
    root: options.Root = options.ROOT,
    as_json: options.Json = False,
) -> None:
    """Set up work pools, the deployments of ./prefect.yaml and the automations on the server of PREFECT_API_URL."""
    tell_prefect(root, allow_anonymous=allow_anonymous)
    done = deployed(notify=notify)
    if as_json:
        options.print_json({"automations": done})
    else:
        options.print_tables(*(f"{state:<9} {name}" for name, state in done.items()))


def deployed(*, notify: str = "") -> dict[str, str]:
    """Deploy everything; changes only what is not so yet. Returns what became of each automation.

    Raises:
        BadInput: no server or no prefect.yaml is named, or the server answers anybody.
        FleetplanError: Prefect refused; its own words are on standard error.
    """
    if not os.environ.get("PREFECT_API_URL"):
        mend = "export PREFECT_API_URL=http://127.0.0.1:4200/api, or run `fleetplan ui`"
        raise BadInput("no Prefect server is named", place="PREFECT_API_URL", mend=mend)
    if not Path("prefect.yaml").is_file():
        raise BadInput("no such file", place="prefect.yaml", mend="run this where fleetplan's prefect.yaml lies")
    from flows.security import check_server  # noqa: PLC0415 - seconds that `--help` need not wait for

    check_server(os.environ["PREFECT_API_URL"])
    for pool in POOLS:
        if not _prefect("work-pool", "inspect", pool, quiet=True):
            _must("work-pool", "create", pool, "--type", "process")
    _must("deploy", "--all")
    from flows.automations import set_up  # noqa: PLC0415

    return set_up(notify=notify)


def _must(*arguments: str) -> None:
    if not _prefect(*arguments):
        msg = f"prefect {' '.join(arguments)} failed"
        raise FleetplanError(msg)


def _prefect(*arguments: str, quiet: bool = False) -> bool:
    """Run Prefect's command line; whether it succeeded. What it says goes to standard error."""
    to = subprocess.DEVNULL if quiet else sys.stderr.fileno()
    done = subprocess.run([*PREFECT, *arguments], check=False, stdout=to, stderr=to)  # noqa: S603 - our own interpreter
    return done.returncode == 0


PREFECT = (sys.executable, "-m", "prefect", "--no-prompt")


def ui(
    *,
    notify: Notify = "",
    root: options.Root = options.ROOT,
    port: Annotated[int, typer.Option(help="Port of Prefect's server on this machine.", min=1, max=65535)] = 4200,
) -> None:
    """Serve Prefect on this machine with the deployments of prefect.yaml and its workers, until Ctrl-C."""
    tell_prefect(root)
    os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
    server = subprocess.Popen([*PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(port)])  # noqa: S603
    workers: list[subprocess.Popen[bytes]] = []
    try:
        wait_for(f"http://127.0.0.1:{port}/api/health", server)
        deployed(notify=notify)
        workers += [subprocess.Popen([*PREFECT, "worker", "start", "--pool", pool]) for pool in POOLS]  # noqa: S603
        sys.stderr.write(f"Prefect's UI: http://127.0.0.1:{port} (Ctrl-C stops it)\n")
        workers[0].wait()
    except KeyboardInterrupt:
        pass
    finally:
        for process in (*workers, server):
            process.terminate()
        for process in (*workers, server):
            end(process)


def end(process: subprocess.Popen[bytes], *, seconds: float = 30.0) -> None:
    """Wait for a process that was asked to end, and end it if it does not."""
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


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
