"""`Judge`: what the search asks of queueing; the one place where it meets `planner.queueing` and `planner.goodput`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from catalog.predictors import Predictor
from planner.goodput import enough, estimate
from planner.intents import SLO
from planner.predict import Tables, pack
from planner.queueing import Engine, EngineRules, Transfer, with_replicas
from planner.queueing.engine import RULES
from planner.queueing.queue import (
    Queue,
    beside_of,
    goodput_in,
    kv_slots,
    link_rate,
    middle_of,
    ready,
    stable_rate,
    tail_in,
)  # fmt: skip
from planner.queueing.side import CAPACITY
from planner.simulate import simulate, simulate_disaggregated
from planner.strategies import Estimate, Strategy
from planner.workload import Requests

Method = Literal["closed_form", "simulated", "replayed"]
#: Measured queues that a judge keeps.
KEPT = 32_768
Engines = tuple[Engine, ...]
"""One engine, or a prefill and a decode engine."""


class Judge(Protocol):
    """What engines do under load; rates are requests per second."""

    def seqs(self, engine: Engine, requests: Requests) -> float:
        """Sequences that the KV space holds on average."""
        ...

    def capacity(self, engines: Engines, requests: Requests, *, transfer: Transfer | None = None) -> float:
        """Highest rate at which one replica (one of each side) is stable."""
        ...

    def sides(self, engines: Engines, requests: Requests, transfer: Transfer) -> tuple[float, float]:
        """Highest rates at which one prefill replica with its link, and one decode replica, are stable."""
        ...

    def latency(
        self, engine: Engine, requests: Requests, slo: SLO | None, *, rate: float, replicas: int
    ) -> dict[str, float]:
        """`ttft`, `tpot` and `e2e` at the SLO's quantile and a rate over all replicas, seconds; infinite beyond it."""
        ...

    def goodput(
        self,
        engines: Engines,
        requests: Requests,
        slo: SLO,
        *,
        replicas: tuple[int, ...],
        transfer: Transfer | None = None,
    ) -> float:
        """Highest rate of all replicas together that keeps the SLO, in closed form."""
        ...

    def holds(
        self,
        engines: Engines,
        requests: Requests,
        slo: SLO,
        *,
        replicas: tuple[int, ...],
        transfer: Transfer | None = None,
    ) -> bool:
        """Whether the SLO holds at the requests' rate, by one simulation of these very engines (or replay)."""
        ...

    def estimate(
        self, strategy: Strategy, engines: Engines, requests: Requests, slo: SLO | None, *, method: Method
    ) -> Estimate:
        """Latencies at the requests' rate, goodput with its slow end, probability that the SLO holds."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Queueing:
    """The judge of real searches. Keeps what it has measured last, so that one may serve several searches."""

    rules: EngineRules = RULES
    """Of the vLLM version that will serve."""
    seed: int = 0
    queues: dict[tuple[Engines, Requests, Transfer | None], Queue] = field(default_factory=dict)
    tables: dict[Predictor, Tables] = field(default_factory=dict)

    def seqs(self, engine: Engine, requests: Requests) -> float:
        """KV tokens over the tokens that a resident holds on average over its stay."""
        return kv_slots(engine, requests)

    def capacity(self, engines: Engines, requests: Requests, *, transfer: Transfer | None = None) -> float:
        """The least of what max_num_seqs, KV space, token budget and link allow."""
        return stable_rate(self._queue(engines, requests, transfer))

    def sides(self, engines: Engines, requests: Requests, transfer: Transfer) -> tuple[float, float]:
        """The bound of each side; the link carries one prompt at a time."""
        pair = self._queue(engines, requests, transfer).pair
        prompts, tokens = (float(side.bound[CAPACITY]) * side.servers for side in (pair.prompts, pair.tokens))
        return min(prompts, link_rate(pair)), tokens

    def latency(
        self, engine: Engine, requests: Requests, slo: SLO | None, *, rate: float, replicas: int
    ) -> dict[str, float]:
        """From the quasi-static closed form."""
        queue = with_replicas(self._whole((engine,), requests, None), (replicas,))
        return tail_in(queue, rate, slo)._asdict()

    def goodput(
        self,
        engines: Engines,
        requests: Requests,
        slo: SLO,
        *,
        replicas: tuple[int, ...],
        transfer: Transfer | None = None,
    ) -> float:
        """The quasi-static closed form, least-requests router."""
        return goodput_in(with_replicas(self._whole(engines, requests, transfer), replicas), slo)

    def holds(
        self,
        engines: Engines,
        requests: Requests,
        slo: SLO,
        *,
        replicas: tuple[int, ...],
        transfer: Transfer | None = None,
    ) -> bool:
        """The simulation that an estimate makes of the slow end at that rate, with as many requests."""
        calm = middle_of(engines)
        queue, middle = (with_replicas(self._whole(some, requests, transfer), replicas) for some in (engines, calm))
        if requests.arrival_s is None and requests.rate >= stable_rate(queue):
            return False
        n = None if requests.arrival_s is not None else enough(middle, slo, goodput_in(middle, slo))

        def kept(some: Engines, limits: SLO) -> bool:
            if transfer is None:
                served = simulate(
                    some[0], requests, rate=requests.rate, replicas=replicas[0], n=n, seed=self.seed, rules=self.rules
                )
            else:
                pair = (replicas[0], replicas[1])
                served = simulate_disaggregated(
                    some[0], some[1], requests, transfer=transfer, rate=requests.rate, replicas=pair, n=n,
                    seed=self.seed, rules=self.rules,
                )  # fmt: skip
            return served.holds(limits)

        if not kept(engines, slo):
            return False
        beside = queue.beside
        return beside is None or slo.ttft is None or kept(calm, beside.eased(slo))

    def estimate(
        self, strategy: Strategy, engines: Engines, requests: Requests, slo: SLO | None, *, method: Method
    ) -> Estimate:
        """`planner.goodput.estimate`; a replay is a simulation of requests that carry their arrivals."""
        how: Literal["closed_form", "simulated"] = "closed_form" if method == "closed_form" else "simulated"
        found = estimate(strategy, engines, requests, slo, method=how, seed=self.seed, rules=self.rules)
        return replace(found, method="replayed") if method == "replayed" else found

    def _whole(self, engines: Engines, requests: Requests, transfer: Transfer | None) -> Queue:
        """The queue with what stands beside it, which capacity alone does not need."""
        queue, middle = self._queue(engines, requests, transfer), engines[0].middle
        if middle is None:
            return queue
        return queue._replace(beside=beside_of(middle, self._queue(middle_of(engines), requests, transfer)))

    def _queue(self, engines: Engines, requests: Requests, transfer: Transfer | None) -> Queue:
        """One replica of each side, measured once: pace does not depend on how many there are."""
        key = (engines, requests, transfer)
        if key not in self.queues:
            tables = tuple(self._pack(engine.predictor) for engine in engines)
            ones = (1,) * len(engines)
            if len(self.queues) >= KEPT:
                self.queues.clear()
            self.queues[key] = ready(
                engines, requests, replicas=ones, transfer=transfer, tables=tables, rules=self.rules, whole=False
            )
        return self.queues[key]

    def _pack(self, predictor: Predictor) -> Tables:
        if predictor not in self.tables:
            self.tables[predictor] = pack(predictor)
        return self.tables[predictor]
