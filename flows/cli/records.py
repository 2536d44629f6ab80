"""`fleetplan catalog`: list, show and verify the records of the catalog."""

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
