"""The stage observe of a fleet whose services are watched: each one's load for the next day, and what to say of it.

A service whose telemetry is missing, too little or impossible keeps its last good load; without one, the load that
fleet.yaml declares; without that, it has no load and is reported as without data. Each of these is said.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from catalog.errors import FleetplanError
from catalog.metrics import metric_names
from catalog.store import Store
from flows.fleet import LoadedFleet
from flows.observe.good import Good, keep, last_good
from flows.observe.reading import HOUR_S, day_of, read_service
from flows.prometheus import NoTelemetry, Prometheus, Unreachable
from planner.forecast import Forecast, expected, forecast
from planner.intents import Intent
from planner.plan import Plan
from planner.workload import Observed, Telemetry, Workload
from planner.workload.observed import MOST_CHANGE, bounded, peak, too_little

#: Services that are read at once: waiting for a server is no work of this machine.
AT_ONCE = 4
#: Readings that are so many hours apart are of different nights.
NIGHT_HOURS = 12
Client = Callable[[Telemetry], Prometheus]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What became of one service's telemetry."""

    intent: str
    workload: Workload | None
    """What to plan for; None where nobody knows."""
    source: str
    """`observed`, `kept`, `declared` or `none`."""
    observed: Observed | None = None
    """Tonight's telemetry, where it is sound."""
    forecast: Forecast | None = None
    notes: tuple[str, ...] = ()
    record: str | None = None
    """Where the load was kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """A fleet with the loads of its watched services in place."""

    loaded: LoadedFleet
    at_hour: int
    services: Mapping[str, Seen] = field(default_factory=dict)
    """Watched services, by intent."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the plan must know, in the order of the intents."""
        return tuple(note for seen in self.services.values() for note in seen.notes)

    @property
    def missing(self) -> dict[str, str]:
        """Intents without any load, with the reason."""
        return {name: seen.notes[0] for name, seen in self.services.items() if seen.workload is None}


def sight(loaded: LoadedFleet, store: Store, *, at_s: float, client: Client = Prometheus) -> Sighting:
    """Read every watched service up to the whole hour before `at_s` (seconds since 1970) and forecast its next day."""
    at_hour = int(at_s // HOUR_S)
    watched = [intent for intent in loaded.fleet.intents if intent.workload.prometheus is not None]
    telemetry = loaded.fleet.prometheus
    if not watched or telemetry is None:
        return Sighting(loaded=loaded, at_hour=at_hour)
    with client(telemetry) as prometheus, ThreadPoolExecutor(AT_ONCE) as pool:
        read = _Reader(prometheus, telemetry, loaded.fleet.vllm_version, at_hour)
        found = list(pool.map(read, watched))
    seen = {intent.name: _seen(intent, answer, store, at_hour) for intent, answer in zip(watched, found, strict=True)}
    return Sighting(loaded=_with_loads(loaded, seen), at_hour=at_hour, services=seen)


def refuse_blind(missing: Mapping[str, str], in_force: Plan | None) -> None:
    """End the night where a service that runs would be planned without any load: it would be switched off.

    Raises:
        FleetplanError: the plan in force stays.
    """
    running = {group.intent for group in in_force.placements} if in_force is not None else set()
    blind = sorted(running & set(missing))
    if blind:
        msg = f"{missing[blind[0]]}; it runs, and without a load it would be switched off: declare one"
        raise FleetplanError(msg)


class _Reader:
    """Reads services of one server, and stops asking a server that does not answer."""

    def __init__(self, prometheus: Prometheus, telemetry: Telemetry, version: str, at_hour: int) -> None:
        self._prometheus = prometheus
        self._telemetry = telemetry
        self._names = metric_names(version)
        self._at_hour = at_hour
        self._down = threading.Event()
        self._why = ""

    def __call__(self, intent: Intent) -> Observed | str:
        """What was observed, or why nothing was."""
        scraped = intent.workload.prometheus
        if scraped is None or self._down.is_set():
            return self._why
        try:
            return read_service(
                self._prometheus, scraped, telemetry=self._telemetry, names=self._names, at_hour=self._at_hour
            )
        except Unreachable as error:
            self._why = str(error)
            self._down.set()
            return self._why
        except NoTelemetry as error:
            return str(error)


def _seen(intent: Intent, answer: Observed | str, store: Store, at_hour: int) -> Seen:
    last = last_good(intent, store, until_hour=at_hour)
    if isinstance(answer, str):
        return _fallback(intent, answer, last)
    reason = too_little(answer, at_hour)
    if reason is not None:
        return _fallback(intent, reason, last)
    known = intent.workload
    if last is not None:
        known = known.model_copy(update={"prompt": last.workload.prompt, "output": last.workload.output})
    ahead = forecast(answer, at_hour)
    workload = expected(answer, ahead, known)
    if workload is None:
        return _fallback(intent, "its histograms of lengths are empty and it declares none", last)
    # several readings of one night may not each move the peak: the bound is from an earlier night, where there is one
    before = last_good(intent, store, until_hour=at_hour - NIGHT_HOURS) or last
    workload, cut = bounded(workload, None if before is None else before.workload)
    notes = (*cut, *_surprise(workload, intent.workload if last is None else None), *_lacking(answer))
    record = keep(intent, Good(at_hour=at_hour, workload=workload, observed=answer), store)
    return Seen(
        intent=intent.name, workload=workload, source="observed", observed=answer, forecast=ahead, record=record,
        notes=tuple(f"{intent.name}: {note}" for note in notes),
    )  # fmt: skip


def _fallback(intent: Intent, reason: str, last: Good | None) -> Seen:
    if last is not None:
        text = f"{reason}; planned for its last good load, that of {day_of(last.at_hour)}"
        workload, source = intent.workload.model_copy(update=_load(last.workload)), "kept"
    elif intent.workload.declares:
        text, workload, source = f"{reason}; planned for the load that it declares", intent.workload, "declared"
    else:
        text, workload, source = f"{reason}; it was never observed and declares no load", None, "none"
    return Seen(intent=intent.name, workload=workload, source=source, notes=(f"{intent.name}: {text}",))


def _load(workload: Workload) -> dict[str, object]:
    names = ("rate", "prompt", "output", "arrival_cv", "prefix_hit_share", "diurnal")
    return {name: getattr(workload, name) for name in names}


def _surprise(observed: Workload, declared: Workload | None) -> list[str]:
    """A first observation far from what was declared: it counts, and is said."""
    if declared is None or declared.rate is None:
        return []
    ratio = peak(observed) / peak(declared)
    if 1 / MOST_CHANGE <= ratio <= MOST_CHANGE:
        return []
    return [f"a peak of {peak(observed):.4g} requests/s is forecast where {peak(declared):.4g} is declared"]


def _lacking(observed: Observed) -> list[str]:
    lacks = [name for name in ("prompt", "output") if getattr(observed, name) is None]
    said = [f"its {' and '.join(lacks)} lengths were not observed: known ones are used"] if lacks else []
    return said + ["its burstiness was not observed: taken as Poisson"] * (observed.dispersion is None)


def _with_loads(loaded: LoadedFleet, seen: Mapping[str, Seen]) -> LoadedFleet:
    """The fleet with each watched workload as it is planned for, and the digest of that."""
    intents = []
    for intent in loaded.fleet.intents:
        workload = seen[intent.name].workload if intent.name in seen else None
        intents.append(intent if workload is None else intent.model_copy(update={"workload": workload}))
    return loaded.with_fleet(loaded.fleet.model_copy(update={"intents": tuple(intents)}))
