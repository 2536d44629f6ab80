"""`main`: the commands, and how each ending becomes an exit code and one line on standard error.

    0  every intent is met            1  failure; last night's plan stays in force
    3  a plan with unmet intents      2  bad input; nothing was written

Commands import what they need when they run, so that `fleetplan --help` answers at once.
"""

from __future__ import annotations

import os
import re
import sys
import traceback

import typer

from catalog.errors import BadInput, FleetplanError
from flows.cli import (
    doctor,
    measured,
    nights,
    observing,
    probing,
    publishing,
    reading,
    records,
    serving,
    sizing,
    whatif,
)

app = typer.Typer(
    help="Plan a fleet of vLLM: intents in, placements and manifests out.",
    epilog="Exit codes: 0 every intent met, 3 plan with unmet intents, 2 bad input, 1 failure. "
    "--debug anywhere shows tracebacks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
nights.register(app)
reading.register(app)
measured.register(app)
doctor.register(app)
probing.register(app)
publishing.register(app)
serving.register(app)
whatif.register(app)
observing.register(app)
sizing.register(app)
app.add_typer(records.app, name="catalog")


def main() -> None:
    """Run the command line."""
    debug = "--debug" in sys.argv
    sys.argv[1:] = [argument for argument in sys.argv[1:] if argument != "--debug"]
    if debug:
        os.environ.setdefault("PREFECT_LOGGING_LEVEL", "INFO")
    try:
        app()
    except BrokenPipeError:
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 - the last line of defence turns every failure into one line
        if debug:
            traceback.print_exc()
        sys.exit(fail(error))


def fail(error: Exception) -> int:
    """Say on standard error what went wrong and return the exit code."""
    match error:
        case BadInput():
            text, code = str(error), 2
        case FleetplanError():
            text, code = f"{error} (the plan in force stays)", 1
        case OSError():
            text, code = f"{error} (the plan in force stays)", 1
        case _:
            first = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().partition("\n")[0]
            fault = "a fault of fleetplan: --debug shows where"
            text, code = f"{type(error).__name__}: {first} ({fault}; the plan in force stays)", 1
    sys.stderr.write(f"fleetplan: {text}\n")
    return code
