"""The flow `fit`: what every prediction of a fleet rests on, pair by pair, the widest interval first."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.settings import get_current_settings

from catalog.predictors import Predictor
from flows import events
from flows.artifacts import shown as showing
from flows.artifacts import table
from flows.fleet import read_fleet
from flows.forms import Where
from flows.night import fitted
from flows.probe import distinct, shown
from flows.search import pairs
from flows.security import check_server
from flows.site import site_at
from flows.tasks import tasks

FIT_S = 3600


@flow(name="fit", flow_run_name="fit-{fleet}", timeout_seconds=FIT_S, persist_result=False, result_serializer="json")
def fit(fleet: Where = "examples/fleet.yaml", root: Where = "var") -> int:
    """Probe what is missing, fit every pair of the fleet, and show the widest intervals first.

    Args:
        fleet: Path of fleet.yaml, relative to the folder that was deployed from.
        root: Run data, a folder or a URL.
    """
    check_server(get_current_settings().api.url)
    with events.refusals_told():
        facts, predictors = fitted(read_fleet(Path(fleet)), site_at(root, "plans"), perform=tasks)
    wanted = distinct(pair for intent in facts.loaded.fleet.intents for pair in pairs(intent, facts))
    found = [(shown(pair.key), predictors(pair.configuration)) for pair in wanted]
    found.sort(key=lambda row: (-_width(row[1]), row[0]))
    rows = [_row(label, predictor) for label, predictor in found]
    told = [f"- {count} of {len(found)} pairs: {note}" for note, count in _notes(found)]
    with showing():
        table(rows, key="predictors", description=f"What {len(found)} predictions rest on")
        create_markdown_artifact("\n".join(["# Notes", "", *told]), key="predictor-notes", description="Of the pairs")
    return len(found)


def _width(predictor: Predictor) -> float:
    low, high = predictor.decode_interval
    return high / low


def _row(label: str, predictor: Predictor) -> dict[str, str]:
    ends = {"decode step": predictor.decode_interval, "prefill step": predictor.prefill_interval}
    shares = {name: f"{low:.2f} to {high:.2f}" for name, (low, high) in ends.items()}
    return {"pair": label, "source": predictor.source, **shares}


def _notes(found: list[tuple[str, Predictor]]) -> list[tuple[str, int]]:
    """What is said of pairs, the commonest first; a table has no room for it."""
    return Counter(note for _, predictor in found for note in predictor.notes).most_common(100)
