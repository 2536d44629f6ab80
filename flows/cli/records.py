"""`fleetplan catalog`: list, show, verify, thin out and export the records of the catalog."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from flows.cli import options

app = typer.Typer(help="The catalog's records: what was measured.", no_args_is_help=True)
Kind = Annotated[str | None, typer.Option(help="Only records of this kind, such as fingerprint.")]


@app.command("ls")
def list_records(*, root: options.Root = options.ROOT, kind: Kind = None, as_json: options.Json = False) -> None:
    """List the newest record of each key, and how many there are."""
    from flows import tables  # noqa: PLC0415
    from flows.site import store_at  # noqa: PLC0415

    store = store_at(root)
    names = store.names(kind)
    rows = [(name, store.read(name)) for name in {(name.kind, name.key): name for name in names}.values()]
    if as_json:
        options.print_json([{"record": str(name), "key": dict(record.key)} for name, record in rows])
    else:
        options.print_tables(tables.records(rows), f"{len(names):,} records in all under {store.root}")


@app.command("show")
def show(
    record: Annotated[str, typer.Argument(help="Name of a record, as `ls` prints it, or the start of it.")],
    *,
    root: options.Root = options.ROOT,
    as_json: options.Json = False,
) -> None:
    """Show one record: its key, its note and its table."""
    from catalog.errors import BadInput, near_names  # noqa: PLC0415
    from flows.site import store_at  # noqa: PLC0415

    store = store_at(root)
    found = [name for name in store.names() if str(name).startswith(record)]
    if len(found) != 1:
        what = f"{len(found)} records start with {record!r}" if found else f"no record starts with {record!r}"
        raise BadInput(what, mend=near_names(record, map(str, found or store.names())))
    content = store.read(found[0])
    rows = [] if content.frame is None else content.frame.to_dicts()
    if as_json:
        shown = {"record": str(found[0]), "key": dict(content.key), "note": dict(content.note), "rows": rows}
        options.print_json(shown)
        return
    frame = [] if content.frame is None else [str(content.frame)]
    options.print_tables(str(found[0]), dict(content.key), dict(content.note), *frame)


@app.command()
def verify(*, root: options.Root = options.ROOT, as_json: options.Json = False) -> None:
    """Read every record and check it against its digest; exit 1 if any is damaged."""
    from flows.site import store_at  # noqa: PLC0415

    store = store_at(root)
    names = store.names()
    wrong = store.verify(names)
    if as_json:
        options.print_json({"records": len(names), "damaged": {str(name): why for name, why in wrong.items()}})
    else:
        sys.stdout.write(f"{len(names):,} records, {len(wrong)} damaged\n")
    for why in wrong.values():
        sys.stderr.write(f"damaged: {why}\n")
    if wrong:
        raise typer.Exit(1)


@app.command()
def gc(
    *,
    root: options.Root = options.ROOT,
    out: options.Out = options.OUT,
    delete: Annotated[bool, typer.Option("--delete", help="Delete them; without it they are only listed.")] = False,
    as_json: options.Json = False,
) -> None:
    """List (or delete) records that nothing needs: older ones of a key, and pieces of probes that were finished.

    The newest record of each key stays, and so does whatever a plan under --out cites.
    """
    from flows.site import site_at  # noqa: PLC0415
    from flows.upkeep import unneeded  # noqa: PLC0415

    site = site_at(root, out)
    names = unneeded(site)
    for name in names if delete else ():
        site.store.remove(name)
    if as_json:
        options.print_json({"records": [str(name) for name in names], "deleted": delete})
        return
    for name in names:
        sys.stdout.write(f"{name}\n")
    sys.stdout.write(f"{len(names):,} records {'deleted' if delete else 'not needed; --delete deletes them'}\n")


@app.command("export")
def export(
    to: Annotated[str, typer.Argument(help="A .parquet or .csv file for one table, or a root (folder or URL).")],
    *,
    root: options.Root = options.ROOT,
    kind: Kind = None,
    as_json: options.Json = False,
) -> None:
    """Write the newest record of each key elsewhere: as they are into another root, or as one flat table."""
    from flows.site import store_at  # noqa: PLC0415
    from flows.upkeep import export_records  # noqa: PLC0415

    count = export_records(store_at(root), to, kind=kind)
    if as_json:
        options.print_json({"exported": count, "to": to})
    else:
        sys.stdout.write(f"{count:,} records exported to {to}\n")
