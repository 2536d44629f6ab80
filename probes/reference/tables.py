"""Where the published kernel tables lie, which version is read, and which of their rows are refused.

The tables are data files of the package `aiconfigurator-core` (Apache-2.0), located by its import spec and read by
polars: none of its code is imported. A path is always <system>/<operation>/<engine>/<version>/<name>_perf.parquet
under the package's `systems/data`; the only names that become part of a path come from our catalog and this module.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from functools import cache
from pathlib import Path

import polars as pl

from catalog.errors import BadInput

PACKAGE = "aiconfigurator-core"
#: The vLLM release that most systems were measured with; older or newer ones stand in where it is absent.
PREFERRED = "0.24.0"
_NAME = re.compile(r"^[a-z0-9_]+$")


@cache
def root() -> Path:
    """Folder that holds one folder per GPU system."""
    spec = importlib.util.find_spec("aiconfigurator_core")
    if spec is None or not spec.submodule_search_locations:
        what, mend = f"the kernel tables ({PACKAGE}) are not installed", f"pip install {PACKAGE}"
        raise BadInput(what, mend=mend)
    return Path(spec.submodule_search_locations[0]) / "systems" / "data"


@cache
def provenance() -> str:
    """Package and version of the tables."""
    return f"{PACKAGE} {importlib.metadata.version(PACKAGE)}"


@cache
def versions(system: str, operation: str, engine: str, name: str) -> tuple[str, ...]:
    """Measured versions of a table, the preferred one first, then newest to oldest; empty if there is none."""
    if not all(map(_NAME.match, (system, operation, engine, name))):
        msg = f"{system!r}/{operation!r}/{engine!r}/{name!r} is no name of a table"
        raise BadInput(msg)
    folder = root() / system / operation / engine
    found = sorted((path.parent.name for path in folder.glob(f"*/{name}_perf.parquet")), key=_number, reverse=True)
    return tuple(sorted(found, key=lambda version: version != PREFERRED))


@cache
def read(system: str, operation: str, name: str, *, version: str, columns: tuple[str, ...],  # noqa: PLR0913 - one table is four names
         engine: str = "vllm",
         where: tuple[tuple[str, str], ...] = ()) -> pl.DataFrame:  # fmt: skip
    """Read some columns, and of them the rows where text columns have given values; `time_s` in seconds.

    Rows with a missing, NaN, zero or negative time are refused (`refusals` counts them). Of equal rows (several
    kernels measured for one shape) the fastest stays: vLLM's kernel oracles choose by measured speed.
    """
    path = root() / system / operation / engine / version / f"{name}_perf.parquet"
    frame = pl.scan_parquet(path)
    # Columns that older tables lack: what they measured then is the plain case, 0.
    absent = [column for column in columns if column not in frame.collect_schema()]
    frame = frame.with_columns(pl.lit(0).alias(column) for column in absent)
    for column, value in where:
        frame = frame.filter(pl.col(column) == value)
    rows = frame.select(*columns, (pl.col("latency") * 1e-3).alias("time_s")).collect()
    good = rows.filter(pl.col("time_s").is_finite() & (pl.col("time_s") > 0))
    _REFUSED[(system, operation, name, version)] = rows.height - good.height
    return good.group_by(columns, maintain_order=True).agg(pl.col("time_s").min())


_REFUSED: dict[tuple[str, str, str, str], int] = {}


def refusals() -> dict[str, str]:
    """Tables of which rows were refused so far, with the reason."""
    return {
        "/".join(table): f"{count} rows refused: the time is missing, NaN, zero or negative"
        for table, count in sorted(_REFUSED.items())
        if count
    }


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))
