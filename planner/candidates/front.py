"""Front: candidates with their price on every pool that can hold them, less those that another one beats.

Within one share and one set of pools a candidate stays when no other is at least as good in dollars, in latency at the
slow end and in quality. Pools are never compared with one another: when one is full, placement needs the next.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from catalog.cluster import NodePool
from planner.candidates.options import Question, replicas_in
from planner.candidates.pairs import SizedPair
from planner.candidates.sizing import ROUTER, with_reserve
from planner.candidates.verify import Sized
from planner.candidates.watts import of_pair, of_replicas
from planner.strategies import Candidate, Collocated, Estimate, Pool, Strategy

#: Kept of one share on one set of pools: the cheapest, and the fastest ones.
CHEAPEST, FASTEST = 5, 3
WATTS_PER_KILOWATT = 1000.0
#: Bytes of an activation.
BF16 = 2


def placed(question: Question, sized: Iterable[Sized]) -> Iterator[Candidate]:
    """Every pool that can hold a sized option, with spares and survivors; what exceeds the budget is counted out."""
    intent = question.wish.intent
    for found in sized:
        configuration, place = found.option.configuration, found.option.place
        rate = found.share * question.requests.rate
        watts = of_replicas(question, found.option, found.estimate, rate=rate, replicas=found.replicas)
        estimate = replace(found.estimate, watts_per_gpu=watts)
        for pool in place.pools:
            after = math.ceil(found.replicas * intent.availability.share)
            total = with_reserve(found.replicas, after, pool, intent.availability)
            total = max(total, intent.min_replicas)
            if total > replicas_in(question.wish, pool, place, configuration):
                said = f"{total} replicas do not fit {pool.name}"
                question.tally.reject(f"{configuration} in {pool.name}", "not_enough_gpus", said, judged=True)
                continue
            strategy = Collocated(
                pool=Pool(configuration=configuration, replicas=total, node_pool=pool.name), router=ROUTER
            )
            candidate = priced(question, strategy, estimate, quality=found.option.quality, share=found.share)
            if candidate is not None:
                yield _with_reserve(candidate, (total - intent.availability.spares) / found.replicas)


def _with_reserve(candidate: Candidate, grown: float) -> Candidate:
    """What it can serve with `grown` times the replicas of its estimate: in proportion, a bound on the safe side."""
    return replace(candidate, headroom=candidate.headroom * max(1.0, grown))


def placed_pairs(question: Question, sized: Iterable[SizedPair]) -> Iterator[Candidate]:
    """Pairs at their counts, spares and survivors on each side."""
    rules = question.wish.intent.availability
    for found in sized:
        prompts, tokens = (
            with_reserve(n, math.ceil(n * rules.share), pool, rules)
            for n, pool in zip(found.counts, found.pair.pools, strict=True)
        )
        tokens = max(tokens, question.wish.intent.min_replicas - prompts)
        strategy = found.pair.strategy((prompts, tokens))
        if not found.pair.fits(question, (prompts, tokens)):
            said = f"{strategy} with its spares does not fit"
            question.tally.reject(str(strategy), "not_enough_gpus", said, judged=True)
            continue
        rate = found.share * question.requests.rate
        watts = of_pair(question, found.pair, found.estimate, rate=rate, counts=found.counts)
        estimate = replace(found.estimate, watts_per_gpu=watts)
        candidate = priced(question, strategy, estimate, quality=found.pair.quality, share=found.share)
        if candidate is not None:
            sides = zip((prompts, tokens), found.counts, strict=True)
            yield _with_reserve(candidate, min((total - rules.spares) / needed for total, needed in sides))


def priced(
    question: Question, strategy: Strategy, estimate: Estimate, *, quality: float, share: float
) -> Candidate | None:
    """A candidate with its cost, energy of owned hardware included; None, and counted, beyond the intent's budget."""
    cost, pools = 0.0, {pool.name: pool for place in question.places for pool in place.pools}
    gpus: dict[str, int] = defaultdict(int)
    for pool in strategy.pools:
        gpus[pool.node_pool] += pool.gpus
        hourly = question.prices[pool.node_pool]
        if pools[pool.node_pool].tier == "owned":
            hourly += question.power * (estimate.watts_per_gpu or 0.0) / WATTS_PER_KILOWATT
        cost += hourly * pool.gpus
    budget = question.wish.intent.budget
    if budget is not None and cost > budget:
        said = f"{cost:.2f} USD/h is above the budget of {budget:.2f} USD/h"
        numbers = {"cost": cost, "cost_limit": budget}
        question.tally.reject(str(strategy), "over_budget", said, nearest=numbers, judged=True)
        return None
    notes = (*estimate.notes, *across_nodes(question, strategy, pools))
    return Candidate(
        intent=question.wish.intent.name,
        strategy=strategy,
        estimate=replace(estimate, notes=notes),
        cost_per_hour=cost,
        quality=quality,
        gpus=tuple(sorted(gpus.items())),
        share=share,
        headroom=max(1.0, estimate.goodput_low / (share * question.requests.rate)),
    )


def across_nodes(question: Question, strategy: Strategy, pools: Mapping[str, NodePool]) -> Iterator[str]:
    """What step times leave out where a replica spans nodes: they price every link as one inside a node."""
    for pool in strategy.pools:
        configuration, node_pool = pool.configuration, pools[pool.node_pool]
        nodes = math.ceil(configuration.gpus / node_pool.gpus_per_node)
        if nodes == 1:
            continue
        network = node_pool.network
        sent = configuration.max_num_batched_tokens * question.wish.model.hidden_size * BF16 / configuration.tp
        added = (nodes - 1) * (network.latency + sent / network.bandwidth)
        what = (
            "the exchange between experts is not priced"
            if configuration.expert_parallel
            else (f"hand-over between stages adds up to {added * 1e3:.2g} ms to a full step")
        )
        yield f"a replica spans {nodes} nodes of {node_pool.name}, whose network step times leave out: {what}"


def front(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """The candidates that no other of the same pools and at least their share beats: the cheapest and fastest few."""
    groups: dict[tuple[float, tuple[str, ...]], list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        groups[candidate.share, tuple(name for name, _ in candidate.gpus)].append(candidate)
    kept: list[Candidate] = []
    for share, pools in sorted(groups, reverse=True):
        wider = [c for c in kept if tuple(name for name, _ in c.gpus) == pools]
        survivors = [c for c in undominated(groups[share, pools]) if not any(_serves_more(w, c) for w in wider)]
        if not survivors:
            continue
        fast = sorted(survivors, key=lambda c: (slowness(c), c.cost_per_hour, str(c.strategy)))[:FASTEST]
        best = [min(survivors, key=lambda c: (-c.quality, c.cost_per_hour, str(c.strategy)))]
        kept += unique([*survivors[:CHEAPEST], *fast, *best])
    return tuple(sorted(kept, key=order))


def _serves_more(wider: Candidate, candidate: Candidate) -> bool:
    """Whether one that serves a larger share costs no more and is no worse."""
    return wider.cost_per_hour <= candidate.cost_per_hour and wider.quality >= candidate.quality


def undominated(group: Iterable[Candidate]) -> list[Candidate]:
    """Candidates that none before them in the order of cost beats in latency and quality."""
    survivors: list[Candidate] = []
    for candidate in sorted(group, key=order):
        beaten = any(
            slowness(other) <= slowness(candidate) and other.quality >= candidate.quality for other in survivors
        )
        if not beaten:
            survivors.append(candidate)
    return survivors


def unique(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Each candidate once, in order."""
    return list({id(candidate): candidate for candidate in candidates}.values())


def slowness(candidate: Candidate) -> float:
    """Seconds of a slow request: the 90th percentile of the whole."""
    return candidate.estimate.e2e.p90


def order(candidate: Candidate) -> tuple[float, float, float, float, str]:
    """Largest share first, then cheapest, fastest, best; the name settles ties."""
    pools = ",".join(f"{name}:{count}" for name, count in candidate.gpus)
    return (-candidate.share, candidate.cost_per_hour, slowness(candidate), -candidate.quality,
            f"{candidate.strategy}{pools}")  # fmt: skip
