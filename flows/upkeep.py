"""What of a catalog nothing needs any more, and its records taken elsewhere."""

from __future__ import annotations

import io
import json
from pathlib import Path

import polars as pl

from catalog.errors import BadInput
from catalog.store import RecordName, Store
from catalog.store.upkeep import copy, spent, superseded
from flows.probe import KIND, PROBED
from flows.site import Site, store_at


def unneeded(site: Site) -> tuple[RecordName, ...]:
    """Records that a night never reads again and no published plan cites, sorted."""
    names = site.store.names()
    finished = {name.key for name in names if name.kind in {KIND, PROBED}}
    cited = _cited(site)
    return tuple(sorted({*superseded(names, cited=cited), *spent(site.store, finished=finished)}))


def _cited(site: Site) -> set[str]:
    """Records that the provenance of any published plan names."""
    found: set[str] = set()
    for serial in site.plans.serials():
        provenance = json.loads(site.plans.read(serial)).get("provenance", {})
        found.update(name for value in provenance.values() if isinstance(value, list) for name in value)
    return found


def export_records(store: Store, to: str, *, kind: str | None) -> int:
    """Copy the newest record of each key to another root, or flatten them into one table; how many were written.

    Raises:
        BadInput: there is nothing to export, or the file cannot be written.
        CorruptRecord: a record is damaged.
    """
    names = tuple({(name.kind, name.key): name for name in store.names(kind)}.values())
    if not names:
        what = f"no records{f' of kind {kind!r}' if kind else ''} under {store.root}"
        raise BadInput(what, mend="see `fleetplan catalog ls`")
    if not to.endswith((".parquet", ".csv")):
        return copy(store, names, store_at(to))
    _write(pl.concat([_flat(store, name) for name in names], how="diagonal_relaxed"), Path(to))
    return len(names)


def _flat(store: Store, name: RecordName) -> pl.DataFrame:
    """A record's rows with its name and key beside each; one row where it has no table."""
    record = store.read(name)
    rows = (
        pl.DataFrame({"note": [json.dumps(dict(record.note), sort_keys=True)]})
        if record.frame is None
        else (record.frame)
    )
    about = {"record": str(name)} | {f"key_{part}": _text(value) for part, value in sorted(record.key.items())}
    return rows.select(*(pl.lit(value).alias(part) for part, value in about.items()), pl.all())


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _write(table: pl.DataFrame, path: Path) -> None:
    buffer = io.BytesIO()
    if path.suffix == ".csv":
        table.write_csv(buffer)
    else:
        table.write_parquet(buffer)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(buffer.getvalue())
    except OSError as error:
        raise BadInput(
            f"cannot be written: {error}", place=str(path), mend="name a file in a folder of yours"
        ) from None
