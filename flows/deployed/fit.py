"""The flow `fit`: what every prediction of a fleet rests on, pair by pair, the widest interval first."""

from __future__ import annotations

from pathlib import Path

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.settings import get_current_settings

from catalog.predictors import Predictor
from flows.artifacts import TABLE_ROWS
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
    facts, predictors = fitted(read_fleet(Path(fleet)), site_at(root, "plans"), perform=tasks)
    wanted = distinct(pair for intent in facts.loaded.fleet.intents for pair in pairs(intent, facts))
    found = [(shown(pair.key), predictors(pair.configuration)) for pair in wanted]
    found.sort(key=lambda row: (-_width(row[1]), row[0]))
    rows = [_row(label, predictor) for label, predictor in found[:TABLE_ROWS]]
    create_table_artifact(rows, key="predictors", description=f"What {len(found)} predictions rest on")
    return len(found)


def _width(predictor: Predictor) -> float:
    low, high = predictor.decode_interval
    return high / low


def _row(label: str, predictor: Predictor) -> dict[str, str]:
    ends = {"decode step": predictor.decode_interval, "prefill step": predictor.prefill_interval}
    shares = {name: f"{low:.2f} to {high:.2f}" for name, (low, high) in ends.items()}
    return {"pair": label, "source": predictor.source, **shares, "notes": "; ".join(predictor.notes)}
