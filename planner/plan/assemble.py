"""Assemble a `Plan` from what was wished, searched and placed."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from catalog.errors import BadInput
from catalog.fingerprints import SOURCES
from catalog.gpus import GPU
from catalog.models import Model
from catalog.quantizations import QUANTIZATIONS, QuantizationName
from planner.intents import Fleet, Intent
from planner.plan.baseline import baseline
from planner.plan.canonical import canonical_json, seal
from planner.plan.nouns import (
    Argument,
    Attention,
    Choice,
    IntentDecision,
    Latency,
    Movement,
    NodeShare,
    Plan,
    PoolUse,
    Provenance,
    RejectedFamily,
    Relaxation,
    ReplicaGroup,
    Status,
)
from planner.plan.order import order
from planner.strategies import Candidate, Configuration, Quantiles, Rejection

if TYPE_CHECKING:
    from planner.placement.placed import Placed, Seats, Served

#: Points of a front that a plan keeps for its plots.
FRONT_POINTS = 32
IMAGE = "vllm/vllm-openai:v{version}"
#: A share this close to one counts as all of the load.
WHOLE = 1.0 - 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What was found for one intent."""

    candidates: tuple[Candidate, ...] = ()
    rejections: tuple[Rejection, ...] = ()
    relaxations: tuple[Relaxation, ...] = ()
    rate: float | None = None
    """Requests per second that were planned for, where a trace or a forecast says it instead of the intent."""
    naive_cost: float | None = None
    """Dollars per hour of serving it naively (`planner.naive`); None where that was not or cannot be said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a plan states besides the decision itself."""

    models: Mapping[str, Model]
    """By the name that the configurations carry."""
    gpus: Mapping[str, GPU]
    prices: Mapping[str, float]
    """Node pool -> dollars per GPU and hour; a pool without a price is left out."""
    kv_bytes: Callable[[Configuration], int]
    """KV space of one GPU, bytes."""
    prefill_rate: Callable[[Configuration], float] | None = None
    """Prompt tokens per second of one replica; without it no queue limit is set."""
    provenance: Provenance
    overrides: Mapping[str, Mapping[str, Argument]] = field(default_factory=dict)
    """Intent -> long flags that win over what was planned and over the intent's own overrides."""
    image: str = IMAGE
    changed_from: str = ""
    """Digest of the plan in force."""
    baseline: tuple[float | None, str] | None = None
    """Cost and statement of the naive baseline; by default the sum of the searches' naive costs."""


def assemble(fleet: Fleet, placed: Placed, searches: Mapping[str, Search], facts: Facts, *, serial: int = 0) -> Plan:
    """Put the night's decision together and seal it: numbers rounded, digest written.

    `searches` is by intent name; an intent without an entry is reported as without data.
    """
    decisions = tuple(_decision(intent, placed[intent.name], searches.get(intent.name)) for intent in fleet.intents)
    naive = {name: search.naive_cost for name, search in searches.items()}
    cost, statement = facts.baseline or baseline(decisions, naive, fleet.cluster)
    placements = tuple(
        _group(served, seats, intent, facts)
        for intent, served in zip(fleet.intents, (placed[intent.name] for intent in fleet.intents), strict=True)
        for seats in served.seats
    )
    return seal(
        Plan(
            serial=serial,
            fleet_digest=digest_of_fleet(fleet),
            vllm_version=fleet.vllm_version,
            image=facts.image.format(version=fleet.vllm_version),
            cost_per_hour=math.fsum(decision.cost_per_hour for decision in decisions),
            baseline_cost_per_hour=cost,
            baseline=statement,
            intents=decisions,
            placements=placements,
            rejections=_rejected(fleet, searches),
            pools=_pools(fleet, placements, placed, facts),
            solved=placed.solved,
            provenance=facts.provenance.model_copy(update={"sources": _sources(decisions)}),
            waves=order(placed),
            changed_from=facts.changed_from,
            movement=Movement(share=fleet.movement, forced_gpus=placed.forced_gpus, settled=placed.settled),
            retired=fleet.retired,
        )
    )


def digest_of_fleet(fleet: Fleet) -> str:
    """Compute the sha256 of the fleet's canonical JSON."""
    return hashlib.sha256(canonical_json(fleet.model_dump(mode="json"))).hexdigest()


def checkpoint_of(model: Model, quantization: QuantizationName) -> tuple[str, str | None]:
    """Say what vLLM loads and what `--quantization` must say: `(Hugging Face name, online method or None)`.

    Raises:
        BadInput: nobody published the model in that format and vLLM cannot make it while loading.
    """
    if quantization == model.native:
        return model.name, None
    published = dict(model.checkpoints)
    if quantization in published:
        return published[quantization], None
    online = QUANTIZATIONS[quantization].vllm
    if online is None or model.native != "bf16":
        raise BadInput(
            f"{model.name!r} has no checkpoint in {quantization}",
            place="models",
            mend="name one in the model's checkpoints, or leave the format out of the intent's quantizations",
        )
    return model.name, online


def attention_of(model: Model) -> Attention:
    """How a model attends: latent, with attention sinks, over a window in some layers, or in full."""
    if model.mla is not None:
        return "mla"
    if model.architecture == "GptOssForCausalLM":
        return "sinks"
    return "sliding" if any(layer.attention == "sliding" for layer, _ in model.layers) else "full"


def _status(served: Served, search: Search | None) -> tuple[Status, str]:
    """Status and its sentence; an intent that nothing was known about is without data, whatever else was said."""
    if search is None:
        return "no_data", "Nothing was searched for it."
    unknown = [rejection for rejection in search.rejections if rejection.reason in ("no_data", "no_price")]
    if not search.candidates and not served.candidates and unknown and len(unknown) == len(search.rejections):
        return "no_data", unknown[0].detail
    return served.status, served.reason


def _decision(intent: Intent, served: Served, search: Search | None) -> IntentDecision:
    found = search or Search()
    status, reason = _status(served, search)
    slo = intent.slo.model_dump(exclude_none=True) if intent.slo else {}
    return IntentDecision(
        name=intent.name,
        model=intent.model,
        goal=intent.goal,
        status=status,
        reason=reason,
        served_share=served.share,
        rate=found.rate if found.rate is not None else intent.workload.rate or 0.0,
        slo={name: float(value) for name, value in slo.items()},
        budget=intent.budget,
        quality_floor=intent.quality,
        chosen=tuple(choice(candidate) for candidate in served.candidates),
        runner_up=blend(served.runner_up),
        runner_up_extra_per_hour=served.runner_up_extra,
        binding=served.binding,
        relaxations=found.relaxations,
        front=front([*found.candidates, *served.candidates]),
        priority=intent.priority,
        cost_per_hour=math.fsum(candidate.cost_per_hour for candidate in served.candidates),
    )


def _latency(quantiles: Quantiles, high: float | None) -> Latency:
    finite = [value if value is not None and math.isfinite(value) else None for value in (
        quantiles.p50, quantiles.p90, quantiles.p99, high)]  # fmt: skip
    return Latency(p50_s=finite[0], p90_s=finite[1], p99_s=finite[2], high_s=finite[3])


def choice(candidate: Candidate) -> Choice:
    """State a candidate with its numbers."""
    estimate = candidate.estimate
    return Choice(
        strategy=str(candidate.strategy),
        cost_per_hour=candidate.cost_per_hour,
        quality=candidate.quality,
        ttft=_latency(estimate.ttft, estimate.ttft_high),
        tpot=_latency(estimate.tpot, estimate.tpot_high),
        e2e=_latency(estimate.e2e, None),
        goodput=estimate.goodput,
        goodput_low=estimate.goodput_low,
        slo_probability=estimate.slo_probability,
        utilisation=min(1.0, estimate.utilisation),
        watts_per_gpu=estimate.watts_per_gpu,
        method=estimate.method,
        source=estimate.source,
    )


def blend(candidates: Sequence[Candidate]) -> Choice | None:
    """State a mix as one choice: costs and goodputs add up, of everything else the worst part counts."""
    parts = [choice(candidate) for candidate in candidates]
    if len(parts) < 2:
        return parts[0] if parts else None
    worst = max(parts, key=lambda part: part.tpot.high_s if part.tpot.high_s is not None else math.inf)
    update = {
        "strategy": " + ".join(part.strategy for part in parts),
        "cost_per_hour": math.fsum(part.cost_per_hour for part in parts),
        "goodput": math.fsum(part.goodput for part in parts),
        "goodput_low": math.fsum(part.goodput_low for part in parts),
        "quality": min(part.quality for part in parts),
        "slo_probability": min(part.slo_probability for part in parts),
        "source": max((part.source for part in parts), key=_weakness),
    }
    return worst.model_copy(update=update)


def front(candidates: Sequence[Candidate]) -> tuple[Choice, ...]:
    """Pareto front of cost, TTFT, TPOT (slow ends) and quality over candidates that serve the whole rate, by cost."""
    whole = {str(candidate.strategy): candidate for candidate in candidates if candidate.share >= WHOLE}
    ranked = sorted(whole.values(), key=lambda c: (*_coordinates(c), str(c.strategy)))
    kept: list[Candidate] = []
    for candidate in ranked:
        mine = _coordinates(candidate)
        if not any(all(a <= b for a, b in zip(_coordinates(other), mine, strict=True)) for other in kept):
            kept.append(candidate)
    step = max(1, math.ceil(len(kept) / FRONT_POINTS))
    return tuple(choice(candidate) for candidate in kept[::step])


def _coordinates(candidate: Candidate) -> tuple[float, float, float, float]:
    estimate = candidate.estimate
    return (candidate.cost_per_hour, estimate.ttft_high, estimate.tpot_high, -candidate.quality)


def _group(served: Served, seats: Seats, intent: Intent, facts: Facts) -> ReplicaGroup:
    configuration = seats.pool.configuration
    checkpoint, online = checkpoint_of(facts.models[configuration.model], configuration.quantization)
    routers = {candidate.strategy.router for candidate in served.candidates if seats.pool in candidate.strategy.pools}
    return ReplicaGroup(
        intent=intent.name,
        role=seats.role,
        model=configuration.model,
        checkpoint=checkpoint,
        gpu=configuration.gpu,
        node_pool=seats.pool.node_pool,
        replicas=len(seats.nodes),
        gpus_per_replica=configuration.gpus,
        tp=configuration.tp,
        pp=configuration.pp,
        dp=configuration.dp,
        expert_parallel=configuration.expert_parallel,
        quantization=configuration.quantization,
        kv_dtype=configuration.kv_dtype,
        max_num_seqs=configuration.max_num_seqs,
        max_num_batched_tokens=configuration.max_num_batched_tokens,
        max_model_len=configuration.max_model_len,
        enable_prefix_caching=configuration.enable_prefix_caching,
        kv_cache_memory_bytes=facts.kv_bytes(configuration),
        router=min(routers, default="least_requests"),
        nodes=tuple(tuple(NodeShare(node=node, gpus=gpus) for node, gpus in replica) for replica in seats.nodes),
        engines_per_gpu=configuration.engines_per_gpu,
        online_quantization=online,
        max_num_queued_tokens=_queue_limit(seats, intent, facts),
        overrides={**intent.overrides, **facts.overrides.get(intent.name, {})},
        attention=attention_of(facts.models[configuration.model]),
    )


def _queue_limit(seats: Seats, intent: Intent, facts: Facts) -> int | None:
    """Prompt tokens that one replica can prefill within the TTFT target, and never less than one whole request."""
    if seats.role == "decode" or intent.slo is None or intent.slo.ttft is None or facts.prefill_rate is None:
        return None
    configuration = seats.pool.configuration
    return max(int(intent.slo.ttft * facts.prefill_rate(configuration)), configuration.max_model_len)


def _rejected(fleet: Fleet, searches: Mapping[str, Search]) -> tuple[RejectedFamily, ...]:
    """One row per intent and reason, most frequent first: counts add up, the first one found speaks for the family."""
    rows: list[RejectedFamily] = []
    for intent in fleet.intents:
        families: dict[str, list[Rejection]] = {}
        for rejection in searches.get(intent.name, Search()).rejections:
            families.setdefault(rejection.reason, []).append(rejection)
        counts = {reason: sum(rejection.count for rejection in family) for reason, family in families.items()}
        rows += [
            RejectedFamily(
                intent=intent.name,
                strategy=families[reason][0].strategy,
                reason=reason,
                detail=families[reason][0].detail,
                count=counts[reason],
                nearest={key: value for key, value in families[reason][0].nearest.items() if math.isfinite(value)},
            )
            for reason in sorted(families, key=lambda reason: (-counts[reason], reason))
        ]
    return tuple(rows)


def _pools(fleet: Fleet, placements: Sequence[ReplicaGroup], placed: Placed, facts: Facts) -> tuple[PoolUse, ...]:
    used: Counter[str] = Counter()
    for group in placements:
        used[group.node_pool] += sum(share.gpus for replica in group.nodes for share in replica)
    used = Counter({pool.name: -(-used[pool.name] // pool.engines_per_gpu) for pool in fleet.cluster.pools})
    return tuple(
        PoolUse(
            name=pool.name,
            gpu=pool.gpu,
            gpus=pool.gpus,
            used=used[pool.name],
            price_per_gpu_hour=facts.prices.get(pool.name),
            shadow_price=placed.shadow_prices.get(pool.name),
            vendor=facts.gpus[pool.gpu].vendor if pool.gpu in facts.gpus else "nvidia",
            gpus_per_node=pool.gpus_per_node,
            tier=pool.tier,
        )
        for pool in fleet.cluster.pools
    )


def _weakness(source: str) -> int:
    return [str(name) for name in SOURCES].index(source)


def _sources(decisions: Sequence[IntentDecision]) -> dict[str, int]:
    counts = Counter(part.source for decision in decisions for part in decision.chosen)
    return {source: counts[source] for source in SOURCES if counts[source]}
