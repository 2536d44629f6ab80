"""Read fleet.yaml: every fault is one clear error that names file, line, key and what to do.

Checks run in an order in which the first error is the cause: the file, its YAML, its keys and values, names that stand
twice, names that nobody knows, files it points to, wishes that contradict each other. The first error in line order is
the message; the others follow it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from catalog.cluster import NodePool
from catalog.documents import Document, Loc, content_digest, read_yaml
from catalog.errors import BadInput, near_names
from catalog.gpus import find_gpu, load_gpus
from catalog.models import Model, find_model, read_config, split_quantization
from catalog.prices import price
from catalog.quality import quality
from flows.faults import placed, raise_first, validated
from planner.contradictions import Known, contradictions
from planner.intents import Fleet, Intent, Team

_SECTIONS: tuple[tuple[Loc, str], ...] = (
    (("cluster", "pools"), "pool"),
    (("intents",), "intent"),
    (("teams",), "team"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedFleet:
    """A checked fleet.yaml: GPU names are the catalog's, every model is known, every file it names exists."""

    fleet: Fleet
    models: Mapping[str, Model]
    """By the name that an intent writes."""
    digest: str
    """sha256 of everything that decides a plan: the fleet's content, the models' shapes, the traces' bytes."""
    folder: Path
    """Where relative paths start."""
    implied: Mapping[str, str]
    """Intent -> the format that its model's name tells (`...-AWQ`), which its `quantizations` now holds."""

    def only(self, name: str) -> LoadedFleet:
        """The same fleet with one of its intents alone."""
        chosen = tuple(intent for intent in self.fleet.intents if intent.name == name)
        return replace(self, fleet=self.fleet.model_copy(update={"intents": chosen}))

    def trace_path(self, intent: Intent) -> Path | None:
        """Where the intent's trace lies, `#model` kept; None where its load is declared."""
        return None if intent.workload.trace is None else self.folder / intent.workload.trace

    def with_fleet(self, fleet: Fleet) -> LoadedFleet:
        """The same models and files with another fleet, and the digest of both."""
        return replace(self, fleet=fleet, digest=_digest(fleet, self.models, self.folder))


def read_fleet(path: Path | str, *, amend: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None) -> LoadedFleet:
    """Read and check fleet.yaml; `amend` changes its content before it is checked.

    Raises:
        BadInput: `fleet.yaml:LINE: path.to.key: what is wrong; what to do`, and up to ten further errors below it.
    """
    document = read_yaml(path)
    folder = Path(path).resolve().parent
    if not isinstance(document.value, dict):
        raise BadInput("holds no keys", place=document.place(()), mend="write cluster: and intents:")
    if amend is not None:
        document = replace(document, value=amend(document.value))
    twice, crossed = list(_twice(document)), dict(_crossed(document))
    fleet = validated(Fleet, _uncrossed(document, crossed), known=[*twice, *crossed.values()])
    own, faults = _own_models(fleet, document, folder)
    models, unknown = _models(fleet, document, own)
    wrong = [*twice, *faults, *unknown, *_unknown_names(fleet, document), *_paths(fleet, document, folder)]
    raise_first([*crossed.values(), *wrong] if wrong else ())
    implied = dict(_implied(fleet))
    fleet = _canonical(fleet, implied)
    raise_first([*crossed.values(), *_contradictions(fleet, document, models)])
    return LoadedFleet(
        fleet=fleet, models=models, digest=_digest(fleet, models, folder), folder=folder, implied=implied
    )


def _twice(document: Document) -> Iterator[BadInput]:
    """Names declared twice, at the line of the second."""
    for section, what in _SECTIONS:
        rows: Any = document.value
        for key in section:
            rows = rows.get(key) if isinstance(rows, dict) else None
        seen: dict[str, int] = {}
        for position, row in enumerate(rows if isinstance(rows, list) else ()):
            name = row.get("name") if isinstance(row, dict) else None
            if not isinstance(name, str):
                continue
            loc = (*section, position, "name")
            if name in seen:
                yield BadInput(
                    f"{what} {name[:80]!r} is declared twice, first on line {seen[name]}",
                    place=document.place(loc),
                    mend=f"give each {what} a name of its own",
                )
            seen.setdefault(name, document.lines.get(loc, 1))


def _crossed(document: Document) -> Iterator[tuple[int, BadInput]]:
    """(position, fault) of intents that ask for more replicas at least than at most."""
    intents = document.value.get("intents") if isinstance(document.value, dict) else None
    for position, row in enumerate(intents if isinstance(intents, list) else ()):
        low, high = (row.get("min_replicas", 1), row.get("max_replicas")) if isinstance(row, dict) else (0, None)
        if type(low) is int and type(high) is int and high >= 1 and low > high:
            name = str(row.get("name"))[:80]
            yield (
                position,
                BadInput(
                    f"intent {name!r} has min_replicas {low} above max_replicas {high}",
                    place=document.place(("intents", position, "max_replicas")),
                    mend="lower min_replicas or raise max_replicas",
                ),
            )


def _uncrossed(document: Document, crossed: Mapping[int, BadInput]) -> Document:
    """The document with the most replicas of those intents left open, so that what else is wrong is found too."""
    if not crossed:
        return document
    intents = [
        {key: item for key, item in row.items() if key != "max_replicas"} if position in crossed else row
        for position, row in enumerate(document.value["intents"])
    ]
    return replace(document, value={**document.value, "intents": intents})


def _contradictions(fleet: Fleet, document: Document, models: Mapping[str, Model]) -> Iterator[BadInput]:
    """Wishes that no fleet could keep, each at its line."""
    prices = {
        pool.name: price(pool.gpu, pool.tier).value if pool.own_price is None else pool.own_price
        for pool in fleet.cluster.pools
    }
    known = Known(models=models, gpus=load_gpus(), prices=prices, quality_of=quality)
    for found in contradictions(fleet, known):
        yield BadInput(found.what, place=document.place(found.at), mend=found.mend)


def _own_models(fleet: Fleet, document: Document, folder: Path) -> tuple[list[Model], list[BadInput]]:
    """Models of the config.json files under `models:`."""
    found: dict[str, Model] = {}
    faults: list[BadInput] = []
    for position, text in enumerate(fleet.models):
        loc = ("models", position)
        try:
            model = read_config(_inside(text, folder))
        except BadInput as fault:
            faults.append(placed(fault, document, loc))
            continue
        if model.name in found:
            what = f"{text!r} gives a second model named {model.name!r}"
            faults.append(BadInput(what, place=document.place(loc), mend="rename its folder"))
        found[model.name] = model
    return list(found.values()), faults


def _inside(text: str, folder: Path) -> Path:
    """A path of fleet.yaml: absolute as it is, relative only below the folder (links followed)."""
    path = folder / text
    try:
        leaves = not Path(text).is_absolute() and not path.resolve().is_relative_to(folder)
    except (OSError, ValueError, RuntimeError) as error:
        raise BadInput(f"{text[:80]!r} is no path: {error}", mend="write the path of a file") from error
    if leaves:
        raise BadInput(
            f"{text[:80]!r} leaves the folder of the fleet file", mend="move the file, or write its full path"
        )
    if not path.exists():
        raise BadInput(f"{text[:80]!r}: no such file", mend="check the path: it is relative to the fleet file")
    return path


def _models(fleet: Fleet, document: Document, own: list[Model]) -> tuple[dict[str, Model], list[BadInput]]:
    models: dict[str, Model] = {}
    faults: list[BadInput] = []
    for position, intent in enumerate(fleet.intents):
        if intent.model in models:
            continue
        try:
            models[intent.model] = find_model(intent.model, own)
        except BadInput as fault:
            faults.append(placed(fault, document, ("intents", position, "model")))
    return models, faults


def _unknown_names(fleet: Fleet, document: Document) -> Iterator[BadInput]:
    """GPU types, prices, pools and teams that a name refers to and that are not there."""
    for position, pool in enumerate(fleet.cluster.pools):
        yield from _pool_faults(pool, document, ("cluster", "pools", position))
    for position, intent in enumerate(fleet.intents):
        yield from _intent_faults(intent, fleet, document, ("intents", position))
    for position, team in enumerate(fleet.teams):
        for name, most in team.quota.items():
            loc: Loc = ("teams", position, "quota", name)
            yield from (placed(fault, document, loc) for fault in _gpu_fault(name))
            if not 0 <= most <= 1_000_000:
                yield BadInput(f"{most} is no possible quota", place=document.place(loc), mend="write 0 to 1000000")


def _intent_faults(intent: Intent, fleet: Fleet, document: Document, at: Loc) -> Iterator[BadInput]:
    pools, teams = [pool.name for pool in fleet.cluster.pools], [team.name for team in fleet.teams]
    for key in ("pools", "forbidden_pools"):
        for position, name in enumerate(getattr(intent, key) or ()):
            if name not in pools:
                where = document.place((*at, key, position))
                yield BadInput(f"unknown pool {name[:80]!r}", place=where, mend=near_names(name[:80], pools))
    for key in ("gpus", "forbidden_gpus"):
        for position, name in enumerate(getattr(intent, key) or ()):
            yield from (placed(fault, document, (*at, key, position)) for fault in _gpu_fault(name))
    if intent.team is not None and intent.team not in teams:
        mend = near_names(intent.team, teams) if teams else "declare it under teams:"
        yield BadInput(f"unknown team {intent.team!r}", place=document.place((*at, "team")), mend=mend)


def _pool_faults(pool: NodePool, document: Document, at: Loc) -> Iterator[BadInput]:
    unknown = list(_gpu_fault(pool.gpu))
    if unknown:
        yield placed(unknown[0], document, (*at, "gpu"))
    elif pool.own_price is None:
        try:
            price(pool.gpu, pool.tier)
        except BadInput as fault:
            yield placed(fault, document, at)


def _gpu_fault(name: str) -> list[BadInput]:
    try:
        find_gpu(name)
    except BadInput as fault:
        return [fault]
    return []


def _paths(fleet: Fleet, document: Document, folder: Path) -> Iterator[BadInput]:
    """Traces that are not there."""
    for position, intent in enumerate(fleet.intents):
        if intent.workload.trace is None:
            continue
        loc = ("intents", position, "workload", "trace")
        try:
            path = _inside(_file_part(intent.workload.trace), folder)
        except BadInput as fault:
            yield placed(fault, document, loc)
            continue
        if not path.is_file():
            yield BadInput(f"{intent.workload.trace!r} is no file", place=document.place(loc), mend="name a trace file")


def _implied(fleet: Fleet) -> Iterator[tuple[str, str]]:
    for intent in fleet.intents:
        tells = split_quantization(intent.model)[1]
        if tells is not None and intent.quantizations is None:
            yield intent.name, tells


def _canonical(fleet: Fleet, implied: Mapping[str, str]) -> Fleet:
    """The same fleet with the catalog's GPU names, and the format that a checkpoint's name tells."""
    pools = tuple(pool.model_copy(update={"gpu": find_gpu(pool.gpu).name}) for pool in fleet.cluster.pools)
    return fleet.model_copy(
        update={
            "cluster": fleet.cluster.model_copy(update={"pools": pools}),
            "intents": tuple(_canonical_intent(intent, implied.get(intent.name)) for intent in fleet.intents),
            "teams": tuple(_canonical_team(team) for team in fleet.teams),
        }
    )


def _canonical_intent(intent: Intent, tells: str | None) -> Intent:
    update: dict[str, Any] = {"quantizations": (tells,)} if tells else {}
    if intent.gpus is not None:
        update["gpus"] = tuple(find_gpu(name).name for name in intent.gpus)
    update["forbidden_gpus"] = tuple(find_gpu(name).name for name in intent.forbidden_gpus)
    return intent.model_copy(update=update)


def _canonical_team(team: Team) -> Team:
    return team.model_copy(update={"quota": {find_gpu(name).name: most for name, most in team.quota.items()}})


def _digest(fleet: Fleet, models: Mapping[str, Model], folder: Path) -> str:
    traces = sorted({intent.workload.trace for intent in fleet.intents if intent.workload.trace is not None})
    return content_digest(
        {
            "fleet": json.loads(fleet.model_dump_json(exclude={"models"})),
            "models": {name: [model.name, model.digest, model.checkpoints] for name, model in models.items()},
            "traces": {name: _file_digest(folder / _file_part(name)) for name in traces},
        }
    )


def _file_part(trace: str) -> str:
    """A trace's path without the model that it may name (`client_rates.parquet#m-large`)."""
    return trace.partition("#")[0]


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
