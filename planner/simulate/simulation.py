"""`Simulation`: what became of every request, and its distributions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.intents import SLO
from planner.simulate.state import BINS, BINS_PER_E, LOG_SHORTEST
from planner.strategies import Quantiles

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Simulation:
    """One entry per request, in seconds; NaN for a refused request, and in `tpot_s` for an output of one token."""

    sent_s: Floats
    ttft_s: Floats
    tpot_s: Floats
    e2e_s: Floats
    queue_s: Floats
    """From the engine's door to the first time scheduled."""
    prompt: Integers
    output: Integers
    """As generated: at least 1, at most what max_model_len leaves."""
    engine: Integers
    """Engine that served it (the decode one, if disaggregated); -1 for a refused request."""
    refused: int
    """Requests that vLLM answers with an error (`planner.workload.admission`)."""
    makespan_s: float
    """From the first request sent to the last answer."""
    busy_s: float
    """Seconds spent in steps, all engines together."""
    engines: int
    iterations: int
    preemptions: int
    kv_peak: float
    """Largest share of an engine's KV blocks in use at once."""
    itl_counts: Floats
    """(BINS,) times between tokens by logarithmic bin of 2 %."""
    warmup: int
    """First requests that steady-state figures leave out."""

    @property
    def steady(self) -> slice:
        """The requests after the warm-up."""
        return slice(self.warmup, None)

    @property
    def utilisation(self) -> float:
        """Share of the engines' time that is spent in steps."""
        return self.busy_s / (self.engines * self.makespan_s) if self.makespan_s > 0 else 0.0

    def quantiles(self, latency_s: Floats) -> Quantiles:
        """Mean, P50, P90 and P99 of one of this simulation's latencies without the warm-up; NaN where there is none."""
        values = latency_s[self.steady]
        values = values[np.isfinite(values)]
        if len(values) == 0:
            return Quantiles(mean=np.nan, p50=np.nan, p90=np.nan, p99=np.nan)
        p50, p90, p99 = (float(q) for q in np.quantile(values, (0.5, 0.9, 0.99)))
        return Quantiles(mean=float(values.mean()), p50=p50, p90=p90, p99=p99)

    def itl(self, *shares: float) -> tuple[float, ...]:
        """Quantiles of the time between tokens, to 2 %, over the whole run; NaN without any."""
        total = np.cumsum(self.itl_counts)
        if total[-1] == 0:
            return tuple(np.nan for _ in shares)
        bins = np.searchsorted(total, np.asarray(shares) * total[-1])
        return tuple(float(np.exp(LOG_SHORTEST + (min(i, BINS - 1) + 0.5) / BINS_PER_E)) for i in bins)

    def attained(self, slo: SLO) -> tuple[float, float]:
        """Share of requests within each limit at its worst (marginal), and within all at once (joint).

        A refused request meets nothing. One without a TPOT (an output of one token) meets that limit.
        """
        within = [np.ones(len(self.ttft_s[self.steady]), bool)]
        if slo.ttft is not None:
            within.append(self.ttft_s[self.steady] <= slo.ttft)
        if slo.tpot is not None:
            within.append(~(self.tpot_s[self.steady] > slo.tpot) & np.isfinite(self.ttft_s[self.steady]))
        if slo.e2e is not None:
            within.append(self.e2e_s[self.steady] <= slo.e2e)
        joint = float(np.mean(np.logical_and.reduce(within)))
        return min(float(np.mean(each)) for each in within), joint

    def holds(self, slo: SLO) -> bool:
        """Whether the SLO is met, in its own sense of attainment."""
        marginal, joint = self.attained(slo)
        return (joint if slo.joint else marginal) >= slo.attainment
