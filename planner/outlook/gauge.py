"""`Gauge`: what a decided strategy serves at other counts, predictions, loads and networks, in closed form.

The closed form errs by a few per cent where the decision was simulated. So it is scaled to agree with the decision at
the decided counts: what differs from them is read from the form, the level from the simulation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from planner.candidates.sizing import STABLE
from planner.intents import SLO
from planner.queueing import Engine, EngineRules, Queue, Transfer, with_replicas
from planner.queueing.engine import RULES
from planner.queueing.queue import goodput_in, ready, stable_rate, tail_in
from planner.strategies import Candidate, Configuration, Disaggregated
from planner.workload import Requests, demand, lawful

End = Literal["slow", "middle", "fast"]
EngineOf = Callable[[Configuration], Engine]
Counts = tuple[int, ...]
#: How far the closed form is trusted to be from a simulation.
FARTHEST = 2.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Gauge:
    """One candidate as it was decided, under its intent's load."""

    candidate: Candidate
    slo: SLO | None
    requests: Requests
    """As a law, at the rate that was planned for."""
    mean_rate: float
    """Requests per second over the day, which the profile's factors multiply."""
    engines: tuple[Engine, ...]
    """At the middle of their predictions, prefill first."""
    needed: Counts
    """Replicas of each pool that its estimate counts on: spares are beyond them."""
    rules: EngineRules = RULES
    queues: dict[tuple[End, float], Queue] = field(default_factory=dict)

    @property
    def counts(self) -> Counts:
        """Replicas of each pool that run."""
        return tuple(pool.replicas for pool in self.candidate.strategy.pools)

    @property
    def rate(self) -> float:
        """Requests per second that the candidate must serve of the rate that was planned for."""
        return self.candidate.share * self.requests.rate

    def goodput(self, counts: Counts, end: End = "slow", *, bandwidth: float = 1.0) -> float:
        """Highest rate within the SLO (stable, without one), at a share of the network's bandwidth."""
        if min(counts) < 1:
            return 0.0
        return self._level(end) * self._formula(counts, end, bandwidth)

    def breaks_first(self, end: End, rate: float, *, bandwidth: float = 1.0) -> str:
        """The limit that is missed by most where the rate is a little beyond the goodput; `capacity` without one."""
        queue = with_replicas(self._queue(end, bandwidth), self.counts)
        rate = 1.02 * rate / max(self._level(end), 1e-9)
        if self.slo is None or rate >= stable_rate(queue):
            return "capacity"
        seen = tail_in(queue, rate, self.slo)
        if seen.e2e == math.inf:  # not stable; TTFT alone may be infinite for what stands beside
            return "capacity"
        limits = {limit: getattr(self.slo, limit) for limit in seen._fields}
        reached = {limit: getattr(seen, limit) / value for limit, value in limits.items() if value is not None}
        return max(sorted(reached), key=lambda limit: reached[limit]) if reached else "capacity"

    def _level(self, end: End) -> float:
        """What the decision found over what the closed form says, at the decided counts."""
        estimate = self.candidate.estimate
        known, at = (estimate.goodput_low, end) if end == "slow" else (estimate.goodput, "middle")
        formula = self._formula(self.needed, "slow" if at == "slow" else "middle", 1.0)
        if not (formula > 0 and known > 0) or self.slo is None:
            return 1.0
        return min(FARTHEST, max(1.0 / FARTHEST, known / formula))

    def _formula(self, counts: Counts, end: End, bandwidth: float) -> float:
        found = goodput_in(with_replicas(self._queue(end, bandwidth), counts), self.slo)
        return found if self.slo is not None else STABLE * found

    def _queue(self, end: End, bandwidth: float) -> Queue:
        """One replica of each side, measured once."""
        key = (end, bandwidth)
        if key not in self.queues:
            self.queues[key] = ready(
                tuple(_at(engine, end) for engine in self.engines),
                self.requests,
                replicas=(1,) * len(self.engines),
                router=self.candidate.strategy.router,
                transfer=self._transfer(bandwidth),
                rules=self.rules,
            )
        return self.queues[key]

    def _transfer(self, bandwidth: float) -> Transfer | None:
        strategy = self.candidate.strategy
        if not isinstance(strategy, Disaggregated):
            return None
        return Transfer(
            bandwidth=bandwidth * strategy.transfer_bandwidth,
            latency_s=strategy.transfer_latency,
            kv_bytes_per_token=self.engines[0].kv_bytes_per_token or 0.0,
        )


def _at(engine: Engine, end: End) -> Engine:
    match end:
        case "slow":
            return engine.slowest()
        case "fast":
            return engine.paced(engine.predictor.optimistic)
    return engine


def law_of(requests: Requests) -> Requests:
    """The load that was planned for, as a law at its busiest rate."""
    return replace(lawful(requests), rate=demand(requests), peak_rate=None)
