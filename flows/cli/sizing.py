"""`fleetplan size`: how many nodes of each pool to rent or buy, at least cost, for every intent to be met."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from catalog.errors import BadInput
from flows.cli import options

if TYPE_CHECKING:
    from flows.size import Sizing

UNMET = 3
AtMost = Annotated[
    list[str] | None,
    typer.Option(
        "--at-most",
        metavar="[POOL=]NODES",
        help="Most nodes of every pool, or of one; by default each pool's at_most, else what it has.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(size)


def size(
    fleet: options.Fleet,
    *,
    at_most: AtMost = None,
    spare: Annotated[int, typer.Option(help="Nodes to add to every pool in use.", min=0, max=1000)] = 0,
    root: options.Root = options.ROOT,
    as_json: options.Json = False,
) -> None:
    """Say how many nodes of each pool to prepare: the cheapest fleet that meets every intent; nothing is published."""
    everywhere, limits = limits_of(at_most or [])
    from flows.fleet import read_fleet  # noqa: PLC0415

    loaded = read_fleet(fleet)
    from flows.progress import Shown  # noqa: PLC0415
    from flows.site import site_at  # noqa: PLC0415
    from flows.size import size_fleet  # noqa: PLC0415

    with Shown() as shown:
        site = site_at(root, options.OUT)
        found = size_fleet(loaded, site, perform=shown, limits=limits, everywhere=everywhere, spare=spare)
    if as_json:
        options.print_json(found.json())
    else:
        show(found)
    if found.unmet:
        raise typer.Exit(UNMET)


def limits_of(words: list[str]) -> tuple[int | None, dict[str, int]]:
    """`20` for all pools, `h100-eu=20` for one; the last of each counts."""
    everywhere, limits = None, {}
    for word in words:
        name, _, number = word.rpartition("=")
        if not number.isdecimal() or not 0 <= int(number) <= 100_000 or ("=" in word and not name):
            what = f"--at-most {word[:80]!r} is no number of nodes"
            raise BadInput(what, mend="write --at-most 20, or --at-most h100-eu=20")
        if name:
            limits[name] = int(number)
        else:
            everywhere = int(number)
    return everywhere, limits


def show(found: Sizing) -> None:
    """The counts as a table, the proof, and who is not met."""
    from rich.table import Table  # noqa: PLC0415

    from catalog.cluster import TIER_WORDS  # noqa: PLC0415

    sized = found.sized
    proof = "nothing is proven" if sized.bound is None else f"gap {sized.gap:.2%} to the proven bound"
    energy = f", energy {sized.energy_per_hour:,.2f}" if sized.energy_per_hour else ""
    caption = f"{sized.cost_per_hour:,.2f} USD/h in all{energy}; {sized.cost_per_hour * 730:,.0f} USD a month; {proof}"
    table = Table(title="Nodes to prepare", title_justify="left", caption=caption, caption_justify="left")
    heads = ("pool", "GPU", "tier", "have", "nodes", "spare", "at most", "GPUs used", "USD/h a node", "USD/h")
    for name in heads:
        table.add_column(name, justify="left" if name in heads[:3] else "right")
    for row in found.rows:
        counts = (row["have"], row["nodes"], row["spare"], row["at_most"], row["gpus_used"])
        money = (f"{row['node_price_per_hour']:,.2f}", f"{row['cost_per_hour']:,.2f}")
        table.add_row(row["pool"], f"{row['gpus_per_node']} x {row['gpu']}", row["tier"], *map(str, counts), *money)
    lines = [f"{tier}: {TIER_WORDS[tier]}" for tier in dict.fromkeys(pool.tier for pool in found.cluster.pools)]
    lines += [f"note: {note}" for note in sized.notes if note]
    lines += [f"{name} is not met by any fleet within these limits: {why}" for name, why in found.unmet.items()]
    options.print_tables(table, *lines)
