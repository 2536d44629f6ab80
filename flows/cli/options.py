"""Options that commands share, and how a result is shown: JSON or Rich tables on standard output."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

Fleet = Annotated[Path, typer.Argument(help="fleet.yaml: the cluster and the intents.")]
Root = Annotated[str, typer.Option(help="Run data: a folder or a URL such as s3://bucket/prefix.")]
Out = Annotated[str, typer.Option(help="Published plans: a folder or a URL; each plan is OUT/<serial>/.")]
AllowAnonymous = Annotated[
    bool, typer.Option("--allow-anonymous", help="Accept a Prefect server beyond this machine that asks for no key.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]

ROOT = "var"
OUT = "plans"


def print_json(value: Any) -> None:  # noqa: ANN401 - anything in JSON
    """Write JSON to standard output, sorted and indented."""
    json.dump(value, sys.stdout, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    sys.stdout.write("\n")


def print_tables(*renderables: Any) -> None:  # noqa: ANN401 - whatever Rich can show
    """Show Rich tables and lines; where standard output is no terminal, wide enough for nothing to be cut."""
    from rich.console import Console  # noqa: PLC0415 - a twentieth of a second that --json need not wait for

    console = Console()
    if not console.is_terminal:
        console = Console(width=128)
    for renderable in renderables:
        console.print(renderable, highlight=False)
