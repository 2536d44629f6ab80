"""`Way`: a strategy at replica counts, collocated or apart, as relaxations weigh it; and the counts it may have."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from planner.candidates.judge import Engines, Method
from planner.candidates.options import Option, Question, replicas_in
from planner.candidates.pairs import Counts, Pair, pairs
from planner.candidates.sizing import ROUTER
from planner.candidates.verify import estimated_at, holds
from planner.intents import SLO
from planner.strategies import Collocated, Configuration, Estimate, Pool, Strategy

#: Pairs looked at per question, nearest first by what their sides do alone.
PAIRS = 8
#: Splits of a pair's replicas tried, best balanced first.
SPLITS = 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Way:
    """An option, or a pair of them, at replica counts without spares."""

    of: Option | Pair
    counts: tuple[int, ...]

    def strategy(self, counts: tuple[int, ...]) -> Strategy:
        """As it would run with so many replicas."""
        if isinstance(self.of, Pair):
            return self.of.strategy(counts)
        name = self.of.place.pools[0].name
        pool = Pool(configuration=self.of.configuration, replicas=counts[0], node_pool=name)
        return Collocated(pool=pool, router=ROUTER)

    def __str__(self) -> str:
        """Short form, as the strategy's."""
        return str(self.strategy(self.counts))

    @property
    def quality(self) -> float:
        """Share of the unquantized model's score."""
        return self.of.quality

    @property
    def slow(self) -> Engines:
        """The engines at the slow end of their intervals, prefill first."""
        return self.of.slow if isinstance(self.of, Pair) else (self.of.slow,)

    @property
    def sides(self) -> tuple[tuple[Configuration, int], ...]:
        """Configurations with their counts, prefill first."""
        parts = (self.of.prefill, self.of.decode) if isinstance(self.of, Pair) else (self.of,)
        return tuple((part.configuration, n) for part, n in zip(parts, self.counts, strict=True))

    @property
    def standings(self) -> list[tuple[str, ...]]:
        """Node pools that may hold it, one per side."""
        if isinstance(self.of, Pair):
            return [(self.of.pools[0].name, self.of.pools[1].name)]
        return [(pool.name,) for pool in self.of.place.pools]

    def estimate(self, question: Question, *, share: float = 1.0, method: Method, slow: bool = False) -> Estimate:
        """What it does with a share of the load; `slow`: with the slow end as its middle."""
        if isinstance(self.of, Pair):
            engines: Engines = self.of.slow if slow else self.of.engines
        else:
            engines = (self.of.slow if slow else self.of.engine,)
        return estimated_at(question, self.strategy, engines, self.counts, share=share, method=method)

    def reaches(self, question: Question) -> dict[str, float]:
        """TTFT and TPOT at the SLO's quantile and the P90 of the whole, at the whole rate and the slow end."""
        got = self.estimate(question, method="closed_form", slow=True)
        return {"ttft": got.ttft_high, "tpot": got.tpot_high, "e2e": got.e2e.p90}

    def holds(self, question: Question, slo: SLO) -> bool:
        """Whether it keeps an SLO at the whole rate and the slow end, by one simulation or replay."""
        transfer = self.of.transfer if isinstance(self.of, Pair) else None
        return holds(question, self.slow, self.counts, slo, transfer=transfer)


def affordable(question: Question, option: Option) -> int:
    """Most replicas that one pool can hold within the budget, spares left out."""
    budget, need = question.wish.intent.budget, option.configuration.gpus
    counts = [0]
    for pool in option.place.pools:
        room = replicas_in(question.wish, pool, option.place, option.configuration)
        price = question.prices[pool.name] * need
        counts.append(room if budget is None or price <= 0 else min(room, int(budget / price)))
    return max(counts) - question.wish.intent.availability.spares


def affords(question: Question, pair: Pair, counts: Counts) -> bool:
    """Whether a pair with its spares stands on its pools and within the budget."""
    budget, spares = question.wish.intent.budget, question.wish.intent.availability.spares
    running = counts[0] + spares, counts[1] + spares
    return pair.fits(question, running) and (budget is None or pair.cost(question, running) <= budget)


def apart(
    question: Question, found: Sequence[Option], *, quick: Collection[str] = (), by: str | None = None
) -> list[Pair]:
    """The pairs that one question is put to, of those that fit at all.

    The cheapest, or with `quick` sides those that answer soonest, by the limit `by` where one is to give way.
    """
    if question.wish.intent.slo is None:
        return []
    made = [pair for pair in pairs(question, found, quick=quick) if affords(question, pair, (1, 1))]
    later = float(question.requests.output.mean()) - 1.0

    def rank(pair: Pair) -> tuple[float, float, str]:
        first, second = pair.ranks
        if by == "ttft":
            keys = first, second
        elif by == "tpot":
            keys = second, first
        else:
            keys = first + (later * second if quick else second), 0.0
        return (*keys, f"{pair.strategy((1, 1))} {pair.pools[0].name} {pair.pools[1].name}")

    return sorted(made, key=rank)[:PAIRS]


def grown(question: Question, pair: Pair, counts: Counts, side: int) -> Counts:
    """All replicas of one side (0 prefill, 1 decode) that can be had beside the other's."""
    while affords(question, pair, more := _one_more(counts, side)):
        counts = more
    return counts


def splits(question: Question, pair: Pair) -> Iterator[Counts]:
    """All that an intent may use, split between the sides so that neither waits for the other, best first."""
    prompts, tokens = question.judge.sides(pair.slow, question.requests, pair.transfer)
    made: list[tuple[float, Counts]] = []
    counts = grown(question, pair, (1, 1), 1)
    while counts[1] >= 1:
        if affords(question, pair, counts):
            made.append((-min(counts[0] * prompts, counts[1] * tokens), counts))
            counts = _one_more(counts, 0)
        else:
            counts = counts[0], counts[1] - 1
    yield from (counts for _, counts in sorted(made)[:SPLITS])


def nodes_for(sides: Sequence[tuple[Configuration, int]], node: int) -> int:
    """Nodes of so many GPUs that replicas take, largest first; a replica beyond one node takes whole ones."""
    free: list[int] = []
    whole = 0
    for need in sorted((one.gpus for one, n in sides for _ in range(n)), reverse=True):
        if need > node:
            whole += math.ceil(need / node)
            continue
        at = next((i for i, left in enumerate(free) if left >= need), None)
        if at is None:
            free.append(node - need)
        else:
            free[at] -= need
    return whole + len(free)


def _one_more(counts: Counts, side: int) -> Counts:
    return (counts[0] + 1, counts[1]) if side == 0 else (counts[0], counts[1] + 1)
