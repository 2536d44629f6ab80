"""`Options`: the candidates that an intent may use, as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from planner.placement.legal import Ground, objection
from planner.placement.placed import keys
from planner.placement.running import Running, standing_candidates, steps

if TYPE_CHECKING:
    from planner.intents import Fleet, Intent
    from planner.placement.rules import Rules
    from planner.strategies import Candidate

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassRow:
    """A capacity row: slots of `pool` in multiples of `size` GPUs take at most `limit` GPUs."""

    pool: str
    size: int
    limit: int
    parts: int = 1
    """Parts of a GPU that the row counts, where engines share it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Options:
    """The legal candidates of one intent as arrays, what runs now (if anything) at the end."""

    candidates: tuple[Candidate, ...]
    standing: tuple[int, ...]
    """Indices of the candidates that run now, together one column; empty = none."""
    refused: tuple[str, ...]
    """Why candidates were refused, each reason once."""
    share: Floats
    cost: Floats  # dollars per hour
    money: Floats  # cost plus start cost spread over the horizon and doubt, dollars per hour
    latency: Floats  # seconds
    starts: Floats
    start_gpus: Floats
    replicas: Floats
    first_key: Ints
    second_key: Ints
    load: Floats  # (options, class rows) GPUs charged
    nominal: Floats  # (options, pools) GPUs held
    shape: Floats  # (options, sizes of awkward classes) GPUs in slots of at least that size


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Offer:
    """What all intents may use."""

    options: tuple[Options, ...]
    rows: tuple[ClassRow, ...]
    pools: tuple[str, ...]


def offer(  # noqa: PLR0913 - the inputs of the whole problem
    fleet: Fleet,
    candidates: Mapping[str, Sequence[Candidate]],
    *,
    ground: Ground,
    now: Running,
    rules: Rules,
    standing: Mapping[str, Sequence[Candidate]],
) -> Offer:
    """Sort out what each intent may use, and what it takes of every class."""
    legal = [_legal(intent, candidates.get(intent.name, ()), ground, now, standing) for intent in fleet.intents]
    slots = _slots(legal, ground)
    rows = tuple(
        ClassRow(pool=name, size=size, limit=limit, parts=bins.parts)
        for name, bins in ground.classes.items()
        for size, limit in bins.thresholds(slots[name])
    )
    pools = tuple(ground.classes)
    awkward = tuple((name, size) for name in pools if not _chain(slots[name]) for size in sorted(slots[name]))
    options = tuple(
        _options(found, ground, now, rules, rows=rows, pools=pools, awkward=awkward, intent=intent)
        for intent, found in zip(fleet.intents, legal, strict=True)
    )
    return Offer(options=options, rows=rows, pools=pools)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Legal:
    candidates: tuple[Candidate, ...]
    standing: tuple[Candidate, ...]
    refused: tuple[str, ...]


def _legal(
    intent: Intent,
    tonight: Sequence[Candidate],
    ground: Ground,
    now: Running,
    given: Mapping[str, Sequence[Candidate]],
) -> _Legal:
    refused: dict[str, None] = {}
    allowed: list[Candidate] = []
    for candidate in tonight:
        if said := objection(candidate, intent, ground):
            refused.setdefault(said)
        else:
            allowed.append(candidate)
    runs = standing_candidates(intent.name, now, allowed, given.get(intent.name, ()))
    if runs is None or len(runs) > 2 or any(objection(part, intent, ground) for part in runs):
        runs = ()
    near = [step for step in steps(runs, allowed) if not objection(step, intent, ground)]
    return _Legal(candidates=(*allowed, *near), standing=runs, refused=tuple(refused))


def _slots(legal: Sequence[_Legal], ground: Ground) -> dict[str, set[int]]:
    """Slot sizes that the candidates put into each class."""
    slots: dict[str, set[int]] = {name: set() for name in ground.classes}
    for found in legal:
        for candidate in (*found.candidates, *found.standing):
            for pool in candidate.strategy.pools:
                slots[pool.node_pool].add(ground.slot(pool) or 0)
    return slots


def _chain(slots: set[int]) -> bool:
    """Whether each size divides the next, so that counting GPUs is exact."""
    order = sorted(slots)
    return all(large % small == 0 for small, large in pairwise(order))


def _options(  # noqa: PLR0913 - one loop over candidates fills every array
    found: _Legal,
    ground: Ground,
    now: Running,
    rules: Rules,
    *,
    rows: tuple[ClassRow, ...],
    pools: tuple[str, ...],
    awkward: tuple[tuple[str, int], ...],
    intent: Intent,
) -> Options:
    everything = (*found.candidates, *found.standing)
    n = len(everything)
    number = {name: index for index, name in enumerate(pools)}
    of_pool: dict[str, list[tuple[int, int]]] = {name: [] for name in pools}
    for index, row in enumerate(rows):
        of_pool[row.pool].append((index, row.size))
    load, nominal, shape = np.zeros((n, len(rows))), np.zeros((n, len(pools))), np.zeros((n, len(awkward)))
    scalars, named = np.zeros((n, 7)), np.full((n, 2), -1, dtype=np.int64)
    seen: dict[object, int] = {}
    for i, candidate in enumerate(everything):
        gpus, replicas = 0, 0
        for part, (key, count) in enumerate(keys(candidate)):
            name, configuration = key[1], key[2]
            slot = ground.slots[name, configuration] or 0
            for index, size in of_pool[name]:
                if slot % size == 0:
                    load[i, index] += slot * count
            for index, (where, size) in enumerate(awkward):
                if where == name and slot >= size:
                    shape[i, index] += slot * count
            nominal[i, number[name]] += configuration.gpus * count
            gpus, replicas = gpus + configuration.gpus * count, replicas + count
            named[i, part] = seen.setdefault(key, len(seen))
        starts, start_gpus = now.starts(intent.name, candidate)
        charge = starts * rules.start_gpu_hours / rules.horizon_hours
        charge += rules.doubt * now.untried(intent.name, candidate)
        money = candidate.cost_per_hour * (1 + charge * bool(now.replicas) / gpus)
        e2e = candidate.estimate.e2e.p90
        scalars[i] = (min(1.0, candidate.share), candidate.cost_per_hour, money, e2e, starts, start_gpus, replicas)
    share, cost, money_, latency, starts_, start_gpus_, replicas_ = np.ascontiguousarray(scalars.T)
    return Options(
        candidates=everything,
        standing=tuple(range(len(found.candidates), n)),
        refused=found.refused,
        share=share,
        cost=cost,
        money=money_,
        latency=latency,
        starts=starts_,
        start_gpus=start_gpus_,
        replicas=replicas_,
        first_key=named[:, 0].copy(),
        second_key=np.where(named[:, 1] < 0, -2 - np.arange(n), named[:, 1]),
        load=load,
        nominal=nominal,
        shape=shape,
    )
