"""From an intent and a cluster to a `Question`: which GPUs may be used, how long requests are, what is counted out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Protocol

import numpy as np

from catalog.cluster import Cluster, NodePool
from catalog.errors import BadInput
from catalog.gpus import GPU
from catalog.models import Model
from catalog.power import PowerConstants
from catalog.quantizations import KVDtype, QuantizationName
from planner.candidates.judge import Judge, Queueing
from planner.candidates.options import Facts, Question, typical_tokens
from planner.candidates.space import GRID, KV_DTYPES, Place, Wish, offered, splits
from planner.candidates.tally import Tally
from planner.intents import Intent
from planner.strategies import Reason
from planner.workload import Requests, demand, lawful

#: Share of prompts that may not fit the model's context where no max_model_len is asked for: vLLM refuses them.
REFUSED_SHARE = 0.01
#: max_model_len is rounded up to a multiple of this.
LENGTH_STEP = 256


class Valued(Protocol):
    """Whatever carries a quality as `value`."""

    @property
    def value(self) -> float:
        """Share of the unquantized model's score."""
        ...


QualityOf = Callable[[Model, QuantizationName, KVDtype], Valued]


def ask(  # noqa: PLR0913 - the inputs of a search
    intent: Intent,
    *,
    cluster: Cluster,
    gpus: Mapping[str, GPU],
    model: Model,
    requests: Requests,
    facts: Facts,
    judge: Judge | None,
    prices: Mapping[str, float],
    quality_of: QualityOf,
    watts: PowerConstants | None = None,
) -> Question:
    """Put the question of one intent: sized for its demand, over the pools that it may use and that have a price."""
    if not (math.isfinite(requests.rate) and requests.rate > 0):
        what = f"intent {intent.name!r} has a rate of {requests.rate!r} requests/s"
        raise BadInput(what, mend="give a rate above 0")
    scores = {(name, kv): quality_of(model, name, kv).value for name in offered(model) for kv in KV_DTYPES}
    wish = Wish(
        intent=intent,
        model=model,
        max_model_len=needed_length(intent, model, requests),
        quality_of=lambda name, kv: scores[name, kv],
    )
    tally = Tally(intent=intent.name)
    law = lawful(requests)
    sized = replace(law, rate=demand(requests), peak_rate=None)
    return Question(
        wish=wish,
        places=_places(wish, cluster, gpus, prices, tally),
        requests=sized,
        replay=replace(requests, peak_rate=None) if requests.arrival_s is not None else None,
        facts=facts,
        judge=judge or Queueing(),
        tally=tally,
        prices=_per_part(cluster, prices),
        power=(cluster.power_price or 0.0) * cluster.power_overhead,
        watts=watts,
        typical=typical_tokens(law),
    )


def needed_length(intent: Intent, model: Model, requests: Requests) -> int:
    """max_model_len: what the intent says, else what its longest request needs, rounded up, within the model's context.

    Answers that do not fit the context end there, as with vLLM. Where the prompts of a few requests (up to 1 %) do not,
    vLLM refuses those; where more do not, the length asked for stays beyond the context, so that the search says so.
    """
    if intent.max_model_len is not None:
        return intent.max_model_len
    total = requests.prompt + requests.output
    longest = math.ceil(int(total.max()) / LENGTH_STEP) * LENGTH_STEP
    within = float(np.mean(requests.prompt < model.max_position_embeddings))
    return min(longest, model.max_position_embeddings) if within >= 1 - REFUSED_SHARE else longest


def _per_part(cluster: Cluster, prices: Mapping[str, float]) -> dict[str, float]:
    """Prices per GPU, and per part of one where engines share it."""
    parts = {pool.name: pool.engines_per_gpu for pool in cluster.pools}
    return {name: price / parts.get(name, 1) for name, price in prices.items()}


def find(gpus: Mapping[str, GPU], name: str) -> GPU | None:
    """The GPU of that name or alias."""
    if name in gpus:
        return gpus[name]
    return next((gpus[key] for key in sorted(gpus) if name == gpus[key].name or name in gpus[key].aliases), None)


def _places(
    wish: Wish, cluster: Cluster, gpus: Mapping[str, GPU], prices: Mapping[str, float], tally: Tally
) -> tuple[Place, ...]:
    usable: dict[str, list[NodePool]] = {}
    known: dict[str, GPU] = {}
    for pool in cluster.pools:
        gpu = find(gpus, pool.gpu)
        if gpu is None:
            tally.reject(pool.gpu, "no_data", f"GPU {pool.gpu} of pool {pool.name} is not in the catalog")
            continue
        said = _pool_refused(wish.intent, pool, gpu, gpus, prices)
        if said is not None:
            strategies = space_size(Place(gpu=gpu, pools=(pool,)), wish.model)
            tally.reject(f"{gpu.name} in {pool.name}", *said, count=strategies)
            continue
        usable.setdefault(gpu.name, []).append(pool)
        known[gpu.name] = gpu
    return tuple(Place(gpu=known[name], pools=tuple(usable[name])) for name in sorted(usable))


def _pool_refused(
    intent: Intent, pool: NodePool, gpu: GPU, gpus: Mapping[str, GPU], prices: Mapping[str, float]
) -> tuple[Reason, str] | None:
    def named(names: Iterable[str]) -> set[str]:
        return {found.name if (found := find(gpus, name)) else name for name in names}

    if pool.name in intent.forbidden_pools or (intent.pools is not None and pool.name not in intent.pools):
        return "forbidden_by_intent", f"the intent may not use pool {pool.name}"
    if gpu.name in named(intent.forbidden_gpus) or (intent.gpus is not None and gpu.name not in named(intent.gpus)):
        return "forbidden_by_intent", f"the intent may not use {gpu.name}"
    if pool.gpus < 1:
        return "not_enough_gpus", f"pool {pool.name} has no GPU left"
    price = prices.get(pool.name)
    if price is None or not (math.isfinite(price) and price >= 0):
        return "no_price", f"pool {pool.name} has no price"
    return None


def space_size(place: Place, model: Model) -> int:
    """Strategies of one GPU type without pipeline stages: splits x formats x batch limits."""
    formats = len(offered(model)) * len(KV_DTYPES)
    return len(list(splits(place, model))) * formats * len(GRID)
