"""The flow `whatif`: how the best answer to one intent changes with price, SLO, load, lengths or network."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import polars as pl
from prefect import flow
from prefect.artifacts import create_image_artifact, create_markdown_artifact
from prefect.settings import get_current_settings

from flows import events
from flows.artifacts import data_url, shown, table
from flows.fleet import read_fleet
from flows.forms import Factors, IntentName, Intents, Pools, Sweep, Where, amended
from flows.observe import last_load
from flows.security import check_server
from flows.site import site_at
from flows.sweeps import sweep
from flows.tables import dollars, seconds
from flows.tasks import tasks
from planner.report.sweeps import plot

WHATIF_S = 3600


@flow(
    name="whatif",
    flow_run_name="whatif-{intent}-{vary}",
    timeout_seconds=WHATIF_S,
    persist_result=False,
    result_serializer="json",
)
def whatif(  # noqa: PLR0913 - a form
    intent: IntentName = "chat",
    vary: Sweep = "rate",
    factors: Factors = [0.5, 0.75, 1.0, 1.5, 2.0],  # noqa: B006 - a literal default shows in the form
    intents: Intents = [],  # noqa: B006
    pools: Pools = [],  # noqa: B006
    *,
    fleet: Where = "examples/fleet.yaml",
    root: Where = "var",
) -> int:
    """Ask what one service would cost if its load, its limits or the market were different. Publishes nothing.

    Args:
        intent: Name of the intent that is studied.
        vary: What is varied: the request rate, all prices, a limit of the SLO, prompt or output lengths, the network.
        factors: Multiples of what it is today, one point each.
        intents: Services to add, or to study otherwise than the fleet file says. What is left empty stays as it is.
        pools: GPU pools to add, or to study with otherwise than the fleet file says.
        fleet: Path of fleet.yaml, relative to the folder that was deployed from.
        root: Run data, a folder or a URL.
    """
    check_server(get_current_settings().api.url)
    with events.refusals_told():
        site = site_at(root, "plans")
        amend = partial(amended, intents=intents, pools=pools, last=partial(last_load, store=site.store))
        loaded = read_fleet(Path(fleet), amend=amend)
        frame = sweep(loaded, site, intent, vary, factors=factors, perform=tasks)
    show(frame, intent, vary)
    return frame.height


def show(frame: pl.DataFrame, intent: str, vary: str) -> None:
    """A table, a page and a plot of a sweep."""
    about = f"{intent} over {vary}"
    rows = [row(point) for point in frame.iter_rows(named=True)]
    with shown():
        table(rows, key="whatif", description=about)
        drawn = data_url(plot(frame, about=about))
        create_markdown_artifact(f"# {about}\n\n![{about}]({drawn})\n", key="whatif-summary", description=about)
        create_image_artifact(drawn, key="whatif-plot", description=f"Cost of {about}")


def row(point: dict[str, object]) -> dict[str, object]:
    """One point as it is shown."""

    def number(key: str) -> float | None:
        value = point[key]
        return value if isinstance(value, float) else None

    return {
        "at": f"{number('value'):.4g} {point['unit']}",
        "feasible": "yes" if point["feasible"] else "no",
        "USD/h": dollars(number("cost_per_hour")) if point["feasible"] else "-",
        "strategy": point["strategy"] or "-",
        "GPUs": point["gpus"] if point["feasible"] else 0,
        "TTFT": seconds(number("ttft_high_s")),
        "TPOT": seconds(number("tpot_high_s")),
    }
