"""`contradictions`: wishes that no fleet could keep, found by arithmetic alone before anything is searched.

What is merely infeasible tonight is an unmet intent with its nearest relaxation. What contradicts itself is an error:

    pools, GPUs      allowed and forbidden at once, or none left that both lists allow
    quality          a floor above every format that the model is published in and some allowed GPU computes
    quota            fewer GPUs than the least replicas take:  sum over types of floor(quota / least GPUs)  <  replicas
    budget           below the least replicas on the cheapest GPUs that hold the weights, at the pool's price

`least GPUs` is the weights of the smallest allowed format over the memory of one GPU, rounded up: a lower bound, so
that nothing feasible is refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import product

from catalog.cluster import NodePool
from catalog.gpus import GPU
from catalog.models import Model
from catalog.quantizations import QuantizationName
from planner.candidates.asking import QualityOf
from planner.candidates.space import KV_DTYPES, computes, offered
from planner.intents import Fleet, Intent
from planner.memory.weights import weights_bytes
from planner.strategies import Configuration

Loc = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contradiction:
    """What contradicts itself, where it is written, and what to do."""

    at: Loc
    what: str
    mend: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """The facts that wishes are held against."""

    models: Mapping[str, Model]
    """By the name that an intent writes."""
    gpus: Mapping[str, GPU]
    prices: Mapping[str, float]
    """Node pool -> dollars per GPU and hour."""
    quality_of: QualityOf
    weighed: dict[tuple[str, str], float] = field(default_factory=dict)
    """(model, format) -> bytes of all weights, each asked once."""

    def weights(self, model: Model, quantization: QuantizationName) -> float:
        """Bytes of a model's weights on one GPU that would hold them all."""
        key = (model.name, quantization)
        if key not in self.weighed:
            whole = Configuration(model=model.name, gpu="", quantization=quantization)
            self.weighed[key] = weights_bytes(model, whole)
        return self.weighed[key]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Least:
    """The least that an intent takes if it is served at all."""

    position: int
    intent: Intent
    gpus: Mapping[str, Fraction]
    """GPU type -> GPUs of its smallest replica, a part of one where engines share it."""
    cost: float
    """Dollars per hour of its least replicas."""

    @property
    def replicas(self) -> int:
        return max(1, self.intent.min_replicas)


def contradictions(fleet: Fleet, known: Known) -> tuple[Contradiction, ...]:
    """Name every contradiction of a fleet whose names are all known and spelled as the catalog does."""
    found = list(_empty_pools(fleet))
    least: list[_Least] = []
    for position, intent in enumerate(fleet.intents):
        found += _both_ways(intent, position)
        wish = _pinned(intent)
        if outside := [*_no_pool(wish, fleet, position)]:
            found += outside
            continue
        needs = _least(wish, fleet, known, position)
        found += [*_floor(wish, fleet, known, position), *_own_budget(needs)]
        least.append(needs)
    return (*found, *_teams(fleet, least))


def _empty_pools(fleet: Fleet) -> Iterator[Contradiction]:
    for position, pool in enumerate(fleet.cluster.pools):
        if pool.nodes == 0 and pool.at_most is None:
            what = f"pool {pool.name!r} has no nodes"
            mend = "write how many it has, or remove it; nodes that are away tonight are counted by lost:"
            yield Contradiction(at=("cluster", "pools", position, "nodes"), what=what, mend=mend)


def _both_ways(intent: Intent, position: int) -> Iterator[Contradiction]:
    """Pools and GPU types that stand in both lists."""
    for allowed, forbidden, what in (("pools", "forbidden_pools", "pool"), ("gpus", "forbidden_gpus", "GPU")):
        out = getattr(intent, forbidden)
        for at, name in enumerate(getattr(intent, allowed) or ()):
            if name in out:
                said = f"intent {intent.name!r} pins {what} {name!r} and forbids it"
                mend = f"remove it from {allowed} or from {forbidden}"
                yield Contradiction(at=("intents", position, allowed, at), what=said, mend=mend)


def _pinned(intent: Intent) -> Intent:
    """The wish with what stands in both lists allowed: what else is wrong with it is found beside."""
    return intent.model_copy(
        update={
            "forbidden_pools": tuple(name for name in intent.forbidden_pools if name not in (intent.pools or ())),
            "forbidden_gpus": tuple(name for name in intent.forbidden_gpus if name not in (intent.gpus or ())),
        }
    )


def usable(intent: Intent, fleet: Fleet) -> tuple[NodePool, ...]:
    """The pools that an intent may use; whether GPUs are left in them tonight does not matter here."""
    return tuple(
        pool
        for pool in fleet.cluster.pools
        if (intent.pools is None or pool.name in intent.pools)
        and pool.name not in intent.forbidden_pools
        and (intent.gpus is None or pool.gpu in intent.gpus)
        and pool.gpu not in intent.forbidden_gpus
    )


def _no_pool(intent: Intent, fleet: Fleet, position: int) -> Iterator[Contradiction]:
    if usable(intent, fleet):
        return
    lists = ("pools", "gpus", "forbidden_pools", "forbidden_gpus")
    said = [name for name in lists if getattr(intent, name)]
    key = said[0] if said else "name"
    what = f"intent {intent.name!r} may use no pool of the cluster: {' and '.join(said)} leave none"
    mend = "the cluster has " + ", ".join(f"{pool.name} ({pool.gpu})" for pool in fleet.cluster.pools[:12])
    yield Contradiction(at=("intents", position, key), what=what, mend=mend)


def _formats(intent: Intent, gpu: GPU, model: Model) -> list[QuantizationName]:
    """Weight formats that the intent allows, the model is published in, and the GPU computes."""
    allowed = offered(model) if intent.quantizations is None else intent.quantizations
    return [name for name in offered(model) if name in allowed and computes(gpu, name)]


def _floor(intent: Intent, fleet: Fleet, known: Known, position: int) -> Iterator[Contradiction]:
    model = known.models[intent.model]
    formats = {name for pool in usable(intent, fleet) for name in _formats(intent, known.gpus[pool.gpu], model)}
    scores = {
        name if kv == "bf16" else f"{name} with KV in {kv}": known.quality_of(model, name, kv).value
        for name, kv in product(sorted(formats), intent.kv_dtypes or KV_DTYPES)
    }
    if not scores or max(scores.values()) >= intent.quality:
        return
    best = max(scores, key=lambda name: (scores[name], name))
    what = (
        f"intent {intent.name!r} asks for a quality of {intent.quality:g}, and no format that it may use on its GPUs"
        f" keeps more than {scores[best]:.4g} ({best})"
    )
    mend = "lower the floor, or allow further quantizations, kv_dtypes or GPUs"
    yield Contradiction(at=("intents", position, "quality"), what=what, mend=mend)


def _least(intent: Intent, fleet: Fleet, known: Known, position: int) -> _Least:
    model = known.models[intent.model]
    gpus: dict[str, Fraction] = {}
    cost = math.inf
    for pool in usable(intent, fleet):
        gpu = known.gpus[pool.gpu]
        weights = [known.weights(model, name) for name in _formats(intent, gpu, model)]
        if weights:
            part = Fraction(1, pool.engines_per_gpu)
            whole = max(1, math.ceil(min(weights) / gpu.memory))
            needed = part if min(weights) <= gpu.memory * part else Fraction(whole)
            gpus[pool.gpu] = min(needed, gpus.get(pool.gpu, needed))
            cost = min(cost, float(needed) * known.prices[pool.name])
    return _Least(position=position, intent=intent, gpus=gpus, cost=cost * max(1, intent.min_replicas))


def _own_budget(needs: _Least) -> Iterator[Contradiction]:
    intent = needs.intent
    if intent.budget is None or not math.isfinite(needs.cost) or intent.budget >= needs.cost * (1 - 1e-9):
        return
    what = (
        f"intent {intent.name!r} has a budget of {intent.budget:g} USD/h, and {_replicas(needs.replicas)} on the"
        f" cheapest GPUs that hold its weights cost {needs.cost:.4g} USD/h"
    )
    mend = "raise the budget, or allow cheaper pools, fewer replicas or smaller formats"
    yield Contradiction(at=("intents", needs.position, "budget"), what=what, mend=mend)


def _teams(fleet: Fleet, least: list[_Least]) -> Iterator[Contradiction]:
    for position, team in enumerate(fleet.teams):
        mine = [needs for needs in least if needs.intent.team == team.name and needs.gpus]
        short = [needs for needs in mine if _room(needs, team.quota) < needs.replicas]
        for needs in short:
            types = ", ".join(f"{gpu}: {team.quota[gpu]}" for gpu in sorted(needs.gpus))
            what = (
                f"team {team.name!r} has a quota of {{{types}}}, and {needs.intent.name!r} takes at least"
                f" {_replicas(needs.replicas)} of {' or '.join(f'{n} {gpu}' for gpu, n in sorted(needs.gpus.items()))}"
            )
            mend = "raise the quota, or lower min_replicas"
            yield Contradiction(at=("teams", position, "quota"), what=what, mend=mend)
        if not short:
            yield from _together(position, team.name, team.quota, mine)
        cost = math.fsum(needs.cost for needs in mine)
        if team.budget is not None and team.budget < cost * (1 - 1e-9):
            what = (
                f"team {team.name!r} has a budget of {team.budget:g} USD/h, and the least replicas of"
                f" {_intents(mine)} cost {cost:.4g} USD/h on the cheapest GPUs that hold their weights"
            )
            mend = "raise the budget, or move an intent to another team"
            yield Contradiction(at=("teams", position, "budget"), what=what, mend=mend)


def _room(needs: _Least, quota: Mapping[str, int]) -> float:
    """Replicas that a quota holds at most; without a limit on some type, any number."""
    return sum(quota[gpu] // each if gpu in quota else math.inf for gpu, each in needs.gpus.items())


def _together(position: int, team: str, quota: Mapping[str, int], mine: list[_Least]) -> Iterator[Contradiction]:
    """All intents of a team at once, each on the type where it takes fewest GPUs."""
    types = sorted({gpu for needs in mine for gpu in needs.gpus})
    if not types or any(gpu not in quota for gpu in types):
        return
    needed, held = sum(needs.replicas * min(needs.gpus.values()) for needs in mine), sum(quota[gpu] for gpu in types)
    if needed > held:
        what = f"team {team!r} has a quota of {held} GPUs in all, and {_intents(mine)} take at least {needed}"
        yield Contradiction(
            at=("teams", position, "quota"), what=what, mend="raise the quota, or move an intent to another team"
        )


def _intents(mine: list[_Least]) -> str:
    names = [repr(needs.intent.name) for needs in mine]
    return " and ".join(names) if len(names) <= 2 else f"its {len(names)} intents"


def _replicas(count: int) -> str:
    return "1 replica" if count == 1 else f"{count} replicas"
