"""`Queue`: a strategy under a workload, ready to be asked for capacity, latencies and goodput in closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from catalog.errors import BadInput
from planner.intents import SLO
from planner.predict import Tables, pack
from planner.queueing.clumps import clumps
from planner.queueing.engine import RULES, Engine, EngineRules
from planner.queueing.pace import HELD1, ITERATIONS, weigh
from planner.queueing.side import (
    AFTER,
    BY_BUDGET,
    BY_KV,
    BY_SEQS,
    CAPACITY,
    LEAST_REQUESTS,
    N1,
    RANDOM,
    ROUND_ROBIN,
    Side,
    open_side,
    seen_ca2,
)  # fmt: skip
from planner.queueing.solve import (
    JOINT,
    STAMP,
    STEADY,
    TPOT,
    TTFT,
    Ask,
    Link,
    Pair,
    Swing,
    goodput_of,
    latencies_of,
    measure_side,
)  # fmt: skip
from planner.queueing.summary import Summary, first_token_only, remote, summarize
from planner.strategies import Quantiles, Router
from planner.workload import Requests

Floats = NDArray[np.float64]

ROUTERS: dict[Router, int] = {"round_robin": ROUND_ROBIN, "least_requests": LEAST_REQUESTS, "random": RANDOM}
#: Quantiles of N that stand for its law: 3 where a share is asked for, 5 where quantiles are.
COARSE, FINE = 3, 5
Binding = Literal["max_num_seqs", "kv", "max_num_batched_tokens", "link"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """KV transfer between the sides of a disaggregated pair."""

    bandwidth: float
    """Bytes per second from one prefill replica."""
    latency_s: float
    kv_bytes_per_token: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """Highest stable rate of all replicas, requests per second, and what each limit alone would allow."""

    rate: float
    by_seqs: float
    by_kv: float
    by_budget: float
    binding: Binding


@dataclass(frozen=True, slots=True, kw_only=True)
class Latencies:
    """Latencies at one rate, seconds. `stable` False: the rate is beyond capacity, and no number is given (NaN)."""

    stable: bool
    ttft: Quantiles
    tpot: Quantiles
    e2e: Quantiles
    ttft_at: float
    """At the level asked for."""
    tpot_at: float
    attainment: float
    """Share of requests within the SLO, in its own sense (marginal: the worst limit); 1 without one."""
    joint: float
    """Share within all limits at once."""
    kv_utilisation: float


class Queue(NamedTuple):
    """Both sides of a strategy (one and the same for a collocated one), measured, and room to solve them."""

    pair: Pair
    ca2: float
    """Squared coefficient of variation of the arrivals before the router."""
    router: Router
    ranks: tuple[int, ...]
    """Engines of one replica of each pool."""
    door_s: float
    token_s: float
    kv_tokens: float
    beside: Beside | None = None
    """Of the slow end of an interval: what bounds its TTFT as well."""


class Beside(NamedTuple):
    """The middle of an interval, with the multiplier that the slow end's TTFT reaches at least.

    That multiplier was learned on measured TTFT as a whole; slow steps alone explain less of it.
    """

    queue: Queue
    ttft: float
    steps: float
    """The multiplier of the steps of decodes."""

    def eased(self, slo: SLO) -> SLO:
        """What the middle must keep for the slow end to keep the SLO: jointly with the others, or TTFT by itself."""
        limits = {"ttft": slo.ttft and slo.ttft / self.ttft, "tpot": None, "e2e": None}
        if slo.joint:
            limits |= {"tpot": slo.tpot and slo.tpot / self.steps, "e2e": slo.e2e and slo.e2e / self.steps}
        return slo.model_copy(update=limits)


def ready(  # noqa: PLR0913 - keywords
    engines: tuple[Engine, ...],
    requests: Requests,
    *,
    replicas: tuple[int, ...] = (1,),
    router: Router = "least_requests",
    transfer: Transfer | None = None,
    tables: tuple[Tables, ...] | None = None,
    quantiles: int = COARSE,
    rules: EngineRules = RULES,
    whole: bool = True,
) -> Queue:
    """Measure a collocated engine, or a (prefill, decode) pair with its transfer, under a workload.

    `tables` stand in for the predictors' own. An engine at its slow end (`Engine.slowest`) brings its middle along,
    unless not the `whole` is wanted but capacity alone. Raises BadInput when no request fits.
    """
    if len(engines) != len(replicas) or len(engines) not in (1, 2) or (len(engines) == 2) != (transfer is not None):
        what = f"{len(engines)} engines, replicas {replicas!r}, transfer {transfer!r}"
        raise BadInput(what, mend="give one engine, or a prefill and a decode engine with their transfer")
    if min(replicas) < 1:
        what = f"replicas {replicas!r}"
        raise BadInput(what, mend="give at least one")
    packed = tables or tuple(pack(engine.predictor) for engine in engines)
    prompt_engine, token_engine = engines[0], engines[-1]
    longest = min(engine.max_model_len for engine in engines)
    ca2 = requests.arrival_cv**2
    summary = summarize(requests, prompt_engine.block_size, longest)
    if transfer is None:
        prompts = tokens = _side(prompt_engine, packed[0], summary, replicas[0], router, ca2, rules, quantiles)
        link = Link(0, 0.0, 0.0)
    else:
        prompts = _side(prompt_engine, packed[0], first_token_only(summary), replicas[0], router, ca2, rules, quantiles)
        tokens = _side(token_engine, packed[1], remote(summary), replicas[1], router, ca2, rules, quantiles)
        link = Link(replicas[0], transfer.latency_s, transfer.kv_bytes_per_token / transfer.bandwidth)
    beside = None
    if whole and prompt_engine.middle is not None:
        calm = ready(
            middle_of(engines), requests, replicas=replicas, router=router, transfer=transfer, quantiles=quantiles,
            rules=rules,
        )  # fmt: skip
        beside = beside_of(prompt_engine.middle, calm)
    return Queue(
        pair=Pair(prompts, tokens, link, np.zeros(AFTER), np.zeros(4)), ca2=ca2, router=router,
        ranks=tuple(engine.predictor.engines for engine in engines), door_s=prompt_engine.predictor.request_s,
        token_s=token_engine.predictor.output_token_s, kv_tokens=float(token_engine.kv_tokens), beside=beside,
    )  # fmt: skip


def middle_of(engines: tuple[Engine, ...]) -> tuple[Engine, ...]:
    """The engines at the middle of their intervals, as far as they know it."""
    return tuple(engine.middle or engine for engine in engines)


def beside_of(middle: Engine, queue: Queue) -> Beside:
    """The queue of middle engines as it stands beside that of slow ones; `middle` computes the prompts."""
    predictor = middle.predictor
    return Beside(queue=queue, ttft=predictor.ttft_ends[1], steps=predictor.decode_interval[1])


def with_replicas(queue: Queue, replicas: tuple[int, ...]) -> Queue:
    """The same queue with other replica counts: what was measured of its engines does not depend on them.

    Exactly what `ready` would make anew, without measuring; the room to solve it is shared with `queue`.
    """
    counts = [n * ranks for n, ranks in zip(replicas, queue.ranks, strict=True)]
    tokens = prompts = _regrouped(queue, queue.pair.tokens, counts[-1])
    link = queue.pair.link
    if len(counts) == 2:
        prompts, link = _regrouped(queue, queue.pair.prompts, counts[0]), link._replace(links=replicas[0])
    beside = queue.beside and queue.beside._replace(queue=with_replicas(queue.beside.queue, replicas))
    return queue._replace(pair=queue.pair._replace(prompts=prompts, tokens=tokens, link=link), beside=beside)


def _regrouped(queue: Queue, side: Side, servers: int) -> Side:
    seen = seen_ca2(queue.ca2, servers, ROUTERS[queue.router])
    return side._replace(servers=float(servers), ca2=seen, near=clumps(seen))


def _side(  # noqa: PLR0913, PLR0917 - one call site gathers them
    engine: Engine,
    tables: Tables,
    summary: Summary,
    replicas: int,
    router: Router,
    ca2: float,
    rules: EngineRules,
    quantiles: int,
) -> Side:
    servers = replicas * engine.predictor.engines
    side = open_side(
        summary, seqs=engine.seqs, budget=engine.max_num_batched_tokens, tokens=engine.blocks * engine.block_size,
        servers=servers, router=ROUTERS[router], ca2=ca2, ahead=engine.ahead(rules), quantiles=quantiles,
    )  # fmt: skip
    measure_side(STAMP, tables, side)
    return side


def asked(queue: Queue, slo: SLO | None) -> Ask:
    """An SLO as the closed form compares with it: those that vLLM serves must make up for those that it refuses."""
    if slo is None:
        return Ask(math.inf, math.inf, math.inf, 0.0, False, queue.door_s, queue.token_s)
    ttft, tpot, e2e = (math.inf if limit is None else float(limit) for limit in (slo.ttft, slo.tpot, slo.e2e))
    attainment = slo.attainment / queue.pair.prompts.summary.taken
    return Ask(ttft, tpot, e2e, attainment, slo.joint, queue.door_s, queue.token_s)


def capacity_of(queue: Queue) -> Capacity:
    """Highest stable rate: the least of what max_num_seqs, the KV space, the token budget and the link allow."""
    by: dict[Binding, int] = {"max_num_seqs": BY_SEQS, "kv": BY_KV, "max_num_batched_tokens": BY_BUDGET}
    sides = (queue.pair.tokens,) if queue.pair.link.links == 0 else (queue.pair.prompts, queue.pair.tokens)
    rates = {name: min(float(side.bound[at]) * side.servers for side in sides) for name, at in by.items()}
    if queue.pair.link.links:
        rates["link"] = queue.pair.link.links * link_rate(queue.pair)
    binding = min(rates, key=lambda name: rates[name])
    return Capacity(
        rate=rates[binding], by_seqs=rates["max_num_seqs"], by_kv=rates["kv"],
        by_budget=rates["max_num_batched_tokens"], binding=binding,
    )  # fmt: skip


def link_rate(pair: Pair) -> float:
    """Prompts per second that the link of one prefill replica carries; it moves one at a time."""
    summary = pair.prompts.summary
    return 1.0 / float(pair.link.latency_s + pair.link.per_token_s * (summary.share @ summary.prompt))


def stable_rate(queue: Queue) -> float:
    """The rate of `capacity_of`, without what each limit alone would allow."""
    prompts, tokens, link = queue.pair.prompts, queue.pair.tokens, queue.pair.link
    rate = float(tokens.bound[CAPACITY]) * tokens.servers
    if link.links:
        rate = min(rate, float(prompts.bound[CAPACITY]) * prompts.servers, link.links * link_rate(queue.pair))
    return rate


def goodput_in(queue: Queue, slo: SLO | None, swing: Swing = STEADY) -> float:
    """Highest rate that meets the SLO (that is stable, without one), requests per second; 0 where none does.

    Where arrivals swing it is their mean rate.
    """
    if slo is None:
        return stable_rate(queue)
    ask, beside = asked(queue, slo), queue.beside
    if beside is None or slo.ttft is None:
        return float(goodput_of(STAMP, queue.pair, ask, queue.pair, ask, False, swing))
    calm = beside.queue
    return float(goodput_of(STAMP, queue.pair, ask, calm.pair, asked(calm, beside.eased(slo)), True, swing))


def latencies_in(queue: Queue, rate: float, slo: SLO | None) -> Latencies:
    """Latencies at `rate` requests per second to all replicas."""
    levels = sorted({0.5, 0.9, 0.99, level_of(slo)})
    ask, out = asked(queue, slo), np.full((3, 1 + len(levels)), np.nan)
    stable = bool(latencies_of(STAMP, queue.pair, ask, rate, np.array(levels), out))
    p50, p90, p99, at = (1 + levels.index(level) for level in (0.5, 0.9, 0.99, level_of(slo)))
    ttft, tpot, e2e = (
        Quantiles(mean=float(q[0]), p50=float(q[p50]), p90=float(q[p90]), p99=float(q[p99])) for q in out
    )
    tokens = queue.pair.tokens
    shares = queue.pair.shares * tokens.summary.taken
    held = tokens.pace.workload[HELD1] / tokens.pace.workload[ITERATIONS]
    return Latencies(
        stable=stable, ttft=ttft, tpot=tpot, e2e=e2e, ttft_at=float(out[TTFT, at]), tpot_at=float(out[TPOT, at]),
        attainment=float(shares[JOINT] if ask.joint else shares[:JOINT].min()) if stable else 0.0,
        joint=float(shares[JOINT]) if stable else 0.0,
        kv_utilisation=min(float(tokens.mean[N1] * held / queue.kv_tokens), 1.0) if stable else math.nan,
    )  # fmt: skip


def level_of(slo: SLO | None) -> float:
    """The quantile that an SLO asks for."""
    return 0.9 if slo is None else slo.attainment


class Tail(NamedTuple):
    """Latencies at the SLO's quantile, seconds, by the names of its limits."""

    ttft: float
    tpot: float
    e2e: float


def tail_in(queue: Queue, rate: float, slo: SLO | None) -> Tail:
    """TTFT, TPOT and the whole request at the SLO's quantile; all infinite where the rate is beyond capacity."""
    out = np.full((3, 2), np.inf)
    latencies_of(STAMP, queue.pair, asked(queue, slo), rate, np.array([level_of(slo)]), out)
    ttft, tpot, e2e = out[:, 1].tolist()
    if queue.beside is not None:
        ttft = max(ttft, queue.beside.ttft * tail_in(queue.beside.queue, rate, slo).ttft)
    return Tail(ttft, tpot, e2e)


def residents_in(queue: Queue, rate: float) -> float:
    """Mean number of requests that one decode engine holds at a rate; 0 beyond capacity."""
    stable = latencies_of(STAMP, queue.pair, asked(queue, None), rate, np.zeros(0), np.zeros((3, 1)))
    return float(queue.pair.tokens.mean[N1]) if stable else 0.0


def capacity(engine: Engine, requests: Requests, *, replicas: int = 1) -> Capacity:
    """Highest stable rate of `replicas` of an engine's configuration, requests per second."""
    return capacity_of(ready((engine,), requests, replicas=(replicas,)))


def latencies(  # noqa: PLR0913 - keywords
    engine: Engine, requests: Requests, *, rate: float | None = None, slo: SLO | None = None, replicas: int = 1,
    router: Router = "least_requests",
) -> Latencies:  # fmt: skip
    """Latencies of a collocated pool at a rate (by default the workload's), in closed form."""
    queue = ready((engine,), requests, replicas=(replicas,), router=router, quantiles=FINE)
    return latencies_in(queue, requests.rate if rate is None else rate, slo)


def goodput(
    engine: Engine, requests: Requests, slo: SLO, *, replicas: int = 1, router: Router = "least_requests"
) -> float:
    """Highest rate of a collocated pool that meets the SLO, in closed form, requests per second."""
    return goodput_in(ready((engine,), requests, replicas=(replicas,), router=router), slo)


@lru_cache(maxsize=256)
def mean_held(requests: Requests, block_size: int, max_model_len: int, budget: int) -> float:
    """KV tokens that a resident request holds on average over its stay, when prompts come in chunks of `budget`."""
    means = np.zeros(5)
    weigh(summarize(requests, block_size, max_model_len), float(budget), means)
    return float(means[HELD1] / means[ITERATIONS])


def kv_slots(engine: Engine, requests: Requests) -> float:
    """Requests that an engine's KV space holds on average."""
    held = mean_held(requests, engine.block_size, engine.max_model_len, engine.max_num_batched_tokens)
    return engine.kv_tokens / held


def kv_aware_seqs(engine: Engine, requests: Requests) -> int:
    """`max_num_seqs` below the preemption cliff: 0.9 of the average requests that the KV space holds.

    It removes nearly all preemption, raises capacity by up to a fifth, and makes the closed form exact again. Below 20
    slots it would cost 2-8 %, and `scheduler_reserve_full_isl` protects already: the engine's own limit stands.
    """
    slots = kv_slots(engine, requests)
    return engine.seqs if slots < 20 or 0.9 * slots >= engine.seqs else int(0.9 * slots)
