"""`Ends`: a strategy at any place in its predictors' intervals, and the probability that it keeps an SLO."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import NormalDist

from catalog.errors import BadInput
from planner.predict import Tables, pack
from planner.queueing.engine import Engine, EngineRules
from planner.queueing.queue import COARSE, Beside, Queue, Transfer, middle_of, ready
from planner.strategies import Disaggregated, Router, Strategy
from planner.workload import Requests

#: A predictor's interval holds 90 %: its ends lie at these deviations of a lognormal law.
END = NormalDist().inv_cdf(0.95)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ends:
    """A strategy under a workload, at any place in its predictors' intervals."""

    engines: tuple[Engine, ...]
    packed: tuple[Tables, ...]
    requests: Requests
    replicas: tuple[int, ...]
    router: Router
    transfer: Transfer | None
    rules: EngineRules
    surge: float
    """Busiest rate over mean rate."""

    @classmethod
    def of(cls, strategy: Strategy, engines: tuple[Engine, ...], requests: Requests, rules: EngineRules) -> Ends:
        """Check that engines and pools match."""
        if len(engines) != len(strategy.pools):
            what = f"{len(engines)} engines for the {len(strategy.pools)} pools of {strategy}"
            raise BadInput(what, mend="give one engine per pool, prefill first")
        transfer = None
        if isinstance(strategy, Disaggregated):
            each = engines[0].kv_bytes_per_token
            if each is None:
                what = f"the prefill engine of {strategy} has no kv_bytes_per_token"
                raise BadInput(what, mend="give the bytes of one token's KV over all GPUs of the engine")
            transfer = Transfer(
                bandwidth=strategy.transfer_bandwidth, latency_s=strategy.transfer_latency, kv_bytes_per_token=each
            )
        return cls(
            engines=engines, packed=tuple(pack(engine.predictor) for engine in engines), requests=requests,
            replicas=tuple(pool.replicas for pool in strategy.pools), router=strategy.router, transfer=transfer,
            rules=rules, surge=max(1.0, (requests.peak_rate or 0.0) / requests.rate),
        )  # fmt: skip

    def queue(self, deviations: float, quantiles: int = COARSE) -> Queue:
        """The closed form `deviations` from the middle of the predictors' intervals: END is the slow end.

        Towards the slow end TTFT is at least what its own interval says of the middle's; the fast end keeps to the
        steps, which is the safe side.
        """
        both = zip(self.packed, self.engines, strict=True)
        queue = ready(
            self.engines, self.requests, replicas=self.replicas, router=self.router, transfer=self.transfer,
            tables=tuple(slowed(tables, engine, deviations) for tables, engine in both), quantiles=quantiles,
            rules=self.rules,
        )  # fmt: skip
        first = self.engines[0]
        queue = queue._replace(door_s=queue.door_s * slowdowns(first, deviations)[1])
        if deviations <= 0 or first.middle is not None or first.predictor.ttft_interval is None:
            return queue
        ttft, steps = first.predictor.ttft_ends[1] ** (deviations / END), slowdowns(first, deviations)[0]
        return queue._replace(beside=Beside(queue=self.queue(0.0, quantiles), ttft=ttft, steps=steps))

    def calm(self) -> Ends:
        """The strategy whose TTFT `queue(...).beside` speaks of: of engines at their slow end the middle ones."""
        engines = middle_of(self.engines)
        return replace(self, engines=engines, packed=tuple(pack(engine.predictor) for engine in engines))


def slowdowns(engine: Engine, deviations: float) -> tuple[float, float]:
    """Multipliers of decode and prefill times `deviations` from the middle, lognormal through the interval's ends."""
    end = 1 if deviations >= 0 else 0
    share = abs(deviations) / END
    predictor = engine.predictor
    return predictor.decode_interval[end] ** share, predictor.prefill_interval[end] ** share


def slowed(tables: Tables, engine: Engine, deviations: float) -> Tables:
    """`Predictor.scaled` on packed tables."""
    if deviations == 0:
        return tables
    decode, prefill = slowdowns(engine, deviations)
    return tables._replace(
        token_s=tables.token_s * decode, sequence_s=tables.sequence_s * decode, decode_s=tables.decode_s * decode,
        prefill_s=tables.prefill_s * prefill, decode_overhead_s=tables.decode_overhead_s * decode,
        mixed_overhead_s=tables.mixed_overhead_s * prefill,
    )  # fmt: skip


def probability(found: dict[float, float], rate: float) -> float:
    """Probability that the goodput is at least `rate`, from goodputs at some deviations from the middle.

    Their logarithm is read between by straight lines; where the slow one is 0, the middle of the two is taken.
    """
    marks = sorted(found)
    for fast, slow in pairwise(marks):
        if found[fast] >= rate > found[slow]:
            if found[slow] <= 0:
                return NormalDist().cdf(0.5 * (fast + slow))
            reach = math.log(found[fast] / rate) / math.log(found[fast] / found[slow])
            return NormalDist().cdf(fast + (slow - fast) * reach)
    # outside of the interval: no more is known than its end
    return NormalDist().cdf(END) if found[marks[-1]] >= rate else NormalDist().cdf(marks[0])
