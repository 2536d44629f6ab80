"""The last good load of each service: a record of the catalog per night, read back when telemetry fails."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from catalog.errors import CorruptRecord
from catalog.store import Store
from catalog.store.records import canonical_json, key_digest
from planner.intents import Intent
from planner.workload import Observed, Workload

KIND = "observed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Good:
    """A load that was planned for, and the telemetry that it came from."""

    at_hour: int
    """Hours since 1970: telemetry up to then."""
    workload: Workload
    observed: Observed


def key_of(intent: Intent) -> dict[str, Any]:
    """A service is its name and its labels: other labels are another service."""
    scraped = intent.workload.prometheus
    return {"intent": intent.name, "select": dict(scraped.select) if scraped is not None else {}}


def keep(intent: Intent, good: Good, store: Store) -> str:
    """Write a good load and return its record."""
    note = {
        "at_hour": good.at_hour,
        "workload": json.loads(good.workload.model_dump_json()),
        "observed": json.loads(good.observed.model_dump_json()),
    }
    return str(store.put(KIND, key_of(intent), note=note))


def last_good(intent: Intent, store: Store, *, until_hour: int | None = None) -> Good | None:
    """The newest good load of a service that can be read, of no later than an hour; damaged records are passed over."""
    return _newest(key_of(intent), store, until_hour)


def last_load(row: Mapping[str, Any], store: Store) -> dict[str, Any]:
    """The last good load of an intent as fleet.yaml writes it, as keys of its workload; none where there is none."""
    workload = row.get("workload")
    scraped = workload.get("prometheus") if isinstance(workload, dict) else None
    select = scraped.get("select") if isinstance(scraped, dict) else None
    if not isinstance(select, dict):
        return {}
    good = _newest({"intent": row.get("name"), "select": select}, store, None)
    if good is None:
        return {}
    written = good.workload.model_dump_json(exclude_none=True, exclude_defaults=True, exclude={"prometheus"})
    return dict(json.loads(written))


def _newest(key: dict[str, Any], store: Store, until_hour: int | None) -> Good | None:
    start = key_digest(key)
    for name in sorted((name for name in store.names(KIND) if name.key == start), reverse=True):
        try:
            note = store.read(name).note
            good = Good(
                at_hour=int(note["at_hour"]),
                workload=Workload.model_validate_json(canonical_json(note["workload"])),
                observed=Observed.model_validate_json(canonical_json(note["observed"])),
            )
        except (CorruptRecord, ValidationError, KeyError, TypeError, ValueError):
            continue
        if until_hour is None or good.at_hour <= until_hour:
            return good
    return None
