"""Pairs: prefill and decode on replicas of their own, KV blocks over the network, counts `xPyD` sized together.

What NIXL checks when two vLLM engines shake hands rules out most pairs (kv_connector/v1/nixl, 0.32): both sides load
the same checkpoint with the same KV dtype on the same attention backend, so one GPU generation; decode's tp is at
least prefill's; pools exchange blocks inside one fabric. Each side is first sized alone, where the closed form needs no
pair: prompts with one output token against TTFT, outputs whose prompts are all cached against TPOT. Then both together.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product

import numpy as np

from catalog.cluster import NodePool
from planner.candidates.judge import Method
from planner.candidates.options import Option, Question, replicas_in
from planner.candidates.screen import SHARES
from planner.candidates.sizing import IDLE, ROUTER, Sizer
from planner.candidates.space import MAX_NUM_BATCHED_TOKENS
from planner.candidates.tally import Tally
from planner.candidates.verify import covers, estimated_at
from planner.intents import SLO
from planner.queueing import Engine, Transfer
from planner.strategies import Disaggregated, Estimate, Pool
from planner.workload import Requests

#: Token budgets of prefill replicas; decode replicas take the smallest.
PREFILL_TOKENS = (8192, 16384)
#: Shapes of prefill replicas per GPU type and format, by cost; and of decode replicas that go with each of them.
SIDES = 2
#: Pairs looked at more closely per two pools, by cost.
KEPT, MOST = 2, 6
#: A pair is simulated when the closed form finds it at most so many times as dear as the cheapest collocated strategy.
WORTH = 1.25
#: Steps of the search for counts.
GROW = 24
Counts = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pair:
    """A prefill and a decode option on two pools (or one), with the network between one replica of each."""

    prefill: Option
    decode: Option
    pools: tuple[NodePool, NodePool]
    transfer: Transfer
    ranks: tuple[float, float] = (0.0, 0.0)
    """What each side was chosen by: dollars per hour and request per second alone, or idle seconds."""

    @property
    def engines(self) -> tuple[Engine, Engine]:
        """At the middle of their intervals."""
        return self.prefill.engine, self.decode.engine

    @property
    def slow(self) -> tuple[Engine, Engine]:
        """At the slow end."""
        return self.prefill.slow, self.decode.slow

    @property
    def quality(self) -> float:
        """Of the weaker side."""
        return min(self.prefill.quality, self.decode.quality)

    def fits(self, question: Question, counts: Counts) -> bool:
        """Whether so many replicas stand on the pools and within the intent's most."""
        sides = zip((self.prefill, self.decode), self.pools, counts, strict=True)
        if any(n > replicas_in(question.wish, pool, side.place, side.configuration) for side, pool, n in sides):
            return False
        need = counts[0] * self.prefill.configuration.gpus + counts[1] * self.decode.configuration.gpus
        most = question.wish.intent.max_replicas
        shared = self.pools[0].name == self.pools[1].name
        return (not shared or need <= self.pools[0].gpus) and (most is None or sum(counts) <= most)

    def cost(self, question: Question, counts: Counts) -> float:
        """Dollars per hour."""
        sides = zip((self.prefill, self.decode), self.pools, counts, strict=True)
        return sum(question.prices[pool.name] * side.configuration.gpus * n for side, pool, n in sides)

    def strategy(self, counts: tuple[int, ...]) -> Disaggregated:
        """As it would run."""
        prefill, decode = (
            Pool(configuration=side.configuration, replicas=n, node_pool=pool.name)
            for side, pool, n in zip((self.prefill, self.decode), self.pools, counts, strict=True)
        )
        return Disaggregated(
            prefill=prefill,
            decode=decode,
            transfer_bandwidth=self.transfer.bandwidth,
            transfer_latency=self.transfer.latency_s,
            router=ROUTER,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SizedPair:
    """A pair at counts that carry a share of the rate, and what it does there."""

    pair: Pair
    share: float
    counts: Counts
    estimate: Estimate


def pairs(question: Question, found: Sequence[Option], *, quick: Collection[str] = ()) -> Iterator[Pair]:
    """Yield the pairs worth sizing; what NIXL would refuse is counted.

    Of each side the cheapest shapes are taken; for the limits in `quick` (`ttft`, `tpot`) those that answer soonest.
    """
    slo = question.wish.intent.slo
    if slo is None or question.wish.intent.disaggregated == "forbidden":
        return
    alike = [option for option in found if option.configuration.engines_per_gpu == 1]  # KV moves from whole GPUs alone
    single = [option for option in alike if option.configuration.pp == 1 and option.most > 0]
    widest = [option for option in single if option.configuration.max_num_batched_tokens in PREFILL_TOKENS]
    narrow = [option for option in single if option.configuration.max_num_batched_tokens == MAX_NUM_BATCHED_TOKENS[0]]
    prompt_by, token_by = ("ttft" if "ttft" in quick else None), ("tpot" if "tpot" in quick else None)
    prompts = _side(question, _fullest(widest), _beside(question, alone, _only(slo, "ttft")), soonest=prompt_by)
    tokens = _side(question, narrow, _beside(question, remote, _only(slo, "tpot")), soonest=token_by)
    for (place, other), kinds in _joined(question).items():
        for kind in sorted({k[1:] for k in prompts if k[0] == place} & {k[1:] for k in tokens if k[0] == other}):
            for first, prefill in prompts[place, *kind][:SIDES]:
                for second, decode in _partners(question, prefill, tokens[other, *kind], len(kinds)):
                    for pools in kinds:
                        network = transfer(prefill, decode, pools)
                        yield Pair(prefill=prefill, decode=decode, pools=pools, transfer=network, ranks=(first, second))


def _partners(
    question: Question, prefill: Option, ranked: Sequence[tuple[float, Option]], ways: int
) -> Iterator[tuple[float, Option]]:
    """The first decode shapes that a prefill shape may be paired with; those before them are counted out."""
    found = 0
    for rank, decode in ranked:
        said = refusal(prefill, decode)
        if said:
            name = f"{prefill.configuration} / {decode.configuration}"
            question.tally.reject(name, "pairing_not_allowed", said, count=ways)
            continue
        yield rank, decode
        found += 1
        if found == SIDES:
            return


def refusal(prefill: Option, decode: Option) -> str:
    """Why two engines would not exchange KV blocks; empty where they would."""
    one, other = prefill.place.gpu, decode.place.gpu
    if one.vendor != other.vendor or one.compute_capability // 10 != other.compute_capability // 10:
        return f"{one.name} and {other.name} choose different attention backends"
    if decode.configuration.tp < prefill.configuration.tp:
        return f"decode tp {decode.configuration.tp} is below prefill tp {prefill.configuration.tp}"
    return ""


def transfer(prefill: Option, decode: Option, pools: tuple[NodePool, NodePool]) -> Transfer:
    """The network between one replica of each side: every GPU of the smaller one at its pool's rate."""
    ranks = min(prefill.configuration.gpus, decode.configuration.gpus)
    return Transfer(
        bandwidth=ranks * min(pool.network.bandwidth for pool in pools),
        latency_s=max(pool.network.latency for pool in pools),
        kv_bytes_per_token=prefill.engine.kv_bytes_per_token or 0.0,
    )


@lru_cache(maxsize=32)
def alone(requests: Requests) -> Requests:
    """What a prefill replica sees: every prompt, one output token."""
    return replace(requests, output=np.ones_like(requests.output))


@lru_cache(maxsize=32)
def remote(requests: Requests) -> Requests:
    """What a decode replica sees: prompts whose KV is there but for the last token."""
    return replace(requests, cached=requests.prompt - 1)


def _beside(question: Question, side: Callable[[Requests], Requests], slo: SLO | None) -> Sizer:
    """What sizes one side alone; a side is no strategy, so nobody hears of it."""
    unheard = Tally(intent=question.wish.intent.name)
    return Sizer(judge=question.judge, requests=side(question.requests), slo=slo, tally=unheard)


def _only(slo: SLO, limit: str) -> SLO | None:
    kept = getattr(slo, limit)
    return None if kept is None else SLO.model_construct(**{limit: kept, "attainment": slo.attainment})


def _joined(question: Question) -> dict[tuple[str, str], list[tuple[NodePool, NodePool]]]:
    """(prefill GPU, decode GPU) -> the pools that can exchange blocks: one pool, or two of one fabric."""
    joined = defaultdict(list)
    everywhere = [(place.gpu.name, pool) for place in question.places for pool in place.pools]
    for (one, p), (other, d) in product(everywhere, everywhere):
        if p.name == d.name or (p.network.fabric is not None and p.network.fabric == d.network.fabric):
            joined[one, other].append((p, d))
    return joined


def _fullest(found: Sequence[Option]) -> list[Option]:
    """Of each shape and token budget the option with the most sequences: prompts alone are never too many."""
    most = {
        replace(option.configuration, max_num_seqs=1): option
        for option in sorted(found, key=lambda option: option.configuration.max_num_seqs)
    }
    return list(most.values())


def _side(
    question: Question, found: Sequence[Option], sizer: Sizer, *, soonest: str | None
) -> dict[tuple[str, str, str], list[tuple[float, Option]]]:
    """(GPU, weight format, KV format) -> shapes for one side alone, best first, with their best batch limits and rank.

    Best is the cheapest, or where `soonest` names a latency that with the least of it.
    """
    best: dict[str, tuple[float, Option]] = {}
    for option in _fullest(found) if soonest else found:
        name = str(option.configuration)
        least = best[name][0] if name in best else math.inf
        rank = _idle_s(sizer, option, soonest) if soonest else _cost_alone(question, sizer, option, least)
        if rank < least:
            best[name] = (rank, option)
    kept: dict[tuple[str, str, str], list[tuple[float, Option]]] = defaultdict(list)
    for rank, option in sorted(best.values(), key=lambda entry: (entry[0], str(entry[1].configuration))):
        configuration = option.configuration
        kept[configuration.gpu, configuration.quantization, configuration.kv_dtype].append((rank, option))
    return kept


def _cost_alone(question: Question, sizer: Sizer, option: Option, least: float) -> float:
    """Dollars per hour for each request per second within the side's own limit.

    Infinite where none is, and where not even the capacity makes it less than `least`.
    """
    each = min(question.prices[pool.name] for pool in option.place.pools) * option.configuration.gpus
    if each >= least * sizer.capacity(option):
        return math.inf
    served = sizer.goodput(option, option.most) / option.most
    return each / served if served > 0 else math.inf


def _idle_s(sizer: Sizer, option: Option, limit: str) -> float:
    """The side's own latency when all replicas are nearly idle."""
    rate, most = IDLE * max(sizer.capacity(option), 1e-9) * option.most, option.most
    return sizer.judge.latency(option.slow, sizer.requests, sizer.slo, rate=rate, replicas=most)[limit]


def size(question: Question, pair: Pair, rate: float) -> Counts | None:
    """Counts that carry a rate: from one of each, add where a dollar brings most goodput; None where nothing does."""
    counts = _first(question, pair, rate)
    for _ in range(GROW):
        if not pair.fits(question, counts):
            return None
        reached = goodput(question, pair, counts)
        if reached >= rate:
            return counts
        more = [
            grown for grown in ((counts[0] + 1, counts[1]), (counts[0], counts[1] + 1)) if pair.fits(question, grown)
        ]
        if not more:
            return None
        counts = max(more, key=lambda grown: _worth(question, pair, grown, counts, reached))
    return None


def _worth(question: Question, pair: Pair, grown: Counts, before: Counts, reached: float) -> float:
    """Goodput beyond `reached` for each dollar that more replicas cost; hardware may cost nothing."""
    added = pair.cost(question, grown) - pair.cost(question, before)
    return (goodput(question, pair, grown) - reached) / max(added, 1e-9)


def _first(question: Question, pair: Pair, rate: float) -> Counts:
    """As many of each side as keep it stable."""
    sides = question.judge.sides(pair.slow, question.requests, pair.transfer)
    prompts, tokens = (max(1, math.ceil(rate / side)) if side > 0 else 1 << 20 for side in sides)
    return prompts, tokens


def goodput(question: Question, pair: Pair, counts: Counts) -> float:
    """Requests per second within the SLO at the slow end, in closed form."""
    slo = question.wish.intent.slo
    assert slo is not None  # noqa: S101 - pairs are made under an SLO alone
    question.tally.judged += 1
    return question.judge.goodput(pair.slow, question.requests, slo, replicas=counts, transfer=pair.transfer)


def worthwhile(question: Question, made: Iterator[Pair], beside: Mapping[str, float]) -> list[tuple[Pair, Counts]]:
    """Pairs that carry the whole rate at a price near the cheapest collocated one of their GPU types, a few per pools.

    `beside` maps a GPU type to that price.
    """
    sized: dict[tuple[str, str], list[tuple[float, Pair, Counts]]] = defaultdict(list)
    for pair in made:
        name = f"{pair.prefill.configuration} / {pair.decode.configuration}"
        counts = size(question, pair, question.requests.rate)
        if counts is None:
            said = "no counts of prefill and decode replicas that fit carry the rate"
            question.tally.reject(name, "goodput_below_rate", said, judged=True)
            continue
        cost = pair.cost(question, counts)
        cheapest = min(beside.get(side.configuration.gpu, math.inf) for side in (pair.prefill, pair.decode))
        if cost > WORTH * cheapest:
            numbers = {"cost": cost, "cost_limit": cheapest}
            said = "a collocated strategy serves the same for less"
            question.tally.reject(name, "dominated", said, nearest=numbers, judged=True)
            continue
        sized[pair.pools[0].name, pair.pools[1].name].append((cost, pair, counts))
    chosen: list[tuple[float, Pair, Counts]] = []
    for pools in sorted(sized):
        chosen += sorted(sized[pools], key=_by_cost)[:KEPT]
    most = MOST if question.replay is None else MOST // 2
    return [(pair, counts) for _, pair, counts in sorted(chosen, key=_by_cost)[:most]]


def _by_cost(entry: tuple[float, Pair, Counts]) -> tuple[float, str]:
    cost, pair, counts = entry
    return cost, f"{pair.strategy(counts)} {pair.pools[0].name} {pair.pools[1].name}"


def sized_pairs(question: Question, chosen: list[tuple[Pair, Counts]], method: Method) -> Iterator[SizedPair]:
    """What chosen pairs do: by `method` at the whole rate, in closed form at smaller shares."""
    for pair, counts in chosen:
        whole = verified(question, pair, counts, share=1.0, method=method)
        if whole is None:
            name, said = str(pair.strategy(counts)), f"the counts that fit fall short of the rate when {method}"
            question.tally.reject(name, "goodput_below_rate", said, judged=True)
            continue
        yield whole
        for share in SHARES[1:]:
            prompts, tokens = (math.ceil(n * share) for n in whole.counts)
            part = verified(question, pair, (prompts, tokens), share=share, method="closed_form")
            if part is not None:
                yield part


def verified(question: Question, pair: Pair, counts: Counts, *, share: float, method: Method) -> SizedPair | None:
    """A pair's estimate at a share of the load, its counts grown where the screen was too bright."""
    for _ in range(3):
        if not pair.fits(question, counts):
            return None
        found = estimated_at(question, pair.strategy, pair.engines, counts, share=share, method=method)
        cover = covers(question, found, share)
        if cover >= 1:
            return SizedPair(pair=pair, share=share, counts=counts, estimate=found)
        growth = 1 / max(cover, 0.5)
        counts = (max(counts[0] + 1, math.ceil(counts[0] * growth)), max(counts[1] + 1, math.ceil(counts[1] * growth)))
    return None
