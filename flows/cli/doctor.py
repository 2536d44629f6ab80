"""`fleetplan doctor`: whether this machine has what a night needs."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import typer

from flows.cli import options

Verdict = Literal["ok", "note", "fault"]
NEEDED = ("aiconfigurator-core", "highspy", "matplotlib", "numba", "numpy", "obstore", "polars", "prefect", "pulp",
          "pydantic", "pyyaml", "rich", "typer")  # fmt: skip
OPTIONAL = {"torch": "probes on this machine's own device", "prefect-dask": "search on a Dask cluster"}
LEAST_FREE_BYTES = 500e6


class Finding(NamedTuple):
    """One thing that was looked at."""

    what: str
    verdict: Verdict
    detail: str


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)


def doctor(*, root: options.Root = options.ROOT, out: options.Out = options.OUT, as_json: options.Json = False) -> None:
    """Check versions, measured tables, disk space and write access; exit 1 if a night could not run."""
    found = [*versions(), *tables_present(), *prefect_server(), *folders(root, out)]
    if as_json:
        options.print_json([finding._asdict() for finding in found])
    else:
        from rich.table import Table  # noqa: PLC0415

        table = Table("what", "verdict", "detail")
        for finding in found:
            table.add_row(*finding)
        options.print_tables(table)
    if any(finding.verdict == "fault" for finding in found):
        raise typer.Exit(1)


def versions() -> Iterator[Finding]:
    """Python and the packages."""
    sound = (3, 11) <= sys.version_info[:2] < (3, 13)
    yield Finding("python", "ok" if sound else "fault", platform.python_version())
    for name in NEEDED:
        version = version_of(name)
        yield Finding(name, "ok" if version else "fault", version or "not installed")
    for name, purpose in OPTIONAL.items():
        version = version_of(name)
        yield Finding(name, "ok" if version else "note", version or f"not installed: needed for {purpose}")


def version_of(name: str) -> str | None:
    """Version of an installed distribution."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def tables_present() -> Iterator[Finding]:
    """Whether the measured kernel tables can be found."""
    spec = importlib.util.find_spec("aiconfigurator_core")
    folder = Path(spec.origin).parent if spec and spec.origin else None
    count = sum(1 for _ in folder.rglob("*.parquet")) if folder else 0
    detail = f"{count} Parquet tables" if count else "none: a night rests on rooflines and says so"
    yield Finding("kernel tables", "ok" if count else "note", detail)


#: What Prefect's server runs with: newer FastAPI keeps it from starting, newer SQLAlchemy its scheduler from working.
SERVER_NEEDS = {"fastapi": ((0, 139), (0, 151)), "sqlalchemy": ((2, 0), (2, 1))}


def prefect_server() -> Iterator[Finding]:
    """Whether Prefect's server can start and schedule."""
    for name, (low, high) in SERVER_NEEDS.items():
        version = version_of(name) or "0.0"
        known = low <= tuple(int(part) for part in version.split(".")[:2]) < high
        needs = f"need >={low[0]}.{low[1]},<{high[0]}.{high[1]} for Prefect's server"
        yield Finding(name, "ok" if known else "fault", version if known else f"{version}: {needs}")


def folders(root: str, out: str) -> Iterator[Finding]:
    """Write access and free space of the root and of the plans."""
    for name, where in (("root", root), ("plans", out)):
        if "://" in where:
            yield Finding(name, "note", f"{where}: an object store, tried at the first write")
            continue
        existing = next(path for path in (Path(where).resolve(), *Path(where).resolve().parents) if path.exists())
        free = shutil.disk_usage(existing).free
        if not writable(existing):
            yield Finding(name, "fault", f"cannot write below {existing}")
        elif free < LEAST_FREE_BYTES:
            yield Finding(name, "fault", f"{free / 1e6:,.0f} MB free below {existing}: need 500 MB")
        else:
            yield Finding(name, "ok", f"{free / 1e9:,.1f} GB free below {existing}")


def writable(folder: Path) -> bool:
    """Whether a file can be made and removed in the folder."""
    trial = folder / f".tmp-{secrets.token_hex(8)}"
    try:
        trial.write_bytes(b"x")
        trial.unlink()
    except OSError:
        return False
    return True
