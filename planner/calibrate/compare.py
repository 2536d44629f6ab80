"""`Comparison`: what one service was predicted to do and what its servers measured, over the same hours.

Means are compared, since a histogram's sum and count give them exactly; where the sum is missing its median is taken,
with the error that the bucket leaves. The prediction is that of the plan in force, at the rate, burstiness and lengths
that were observed in these hours: what a service does under another load than planned for is no error of a prediction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import Field

from catalog.cluster import Cluster, Fact
from planner.intents import SLO
from planner.placement.running import configuration_of
from planner.plan import ReplicaGroup
from planner.strategies import Collocated, Disaggregated, Pool, Strategy
from planner.workload.histogram import Histogram
from planner.workload.observed import Attained

#: Requests that tell a mean.
ENOUGH = 100
#: Equal chances inside a bucket: standard deviation over width, in the logarithm.
_UNIFORM = 1.0 / math.sqrt(12.0)
#: A bucket without a lower or an upper edge is taken to be this wide.
_OPEN = 4.0


class Reading(Fact):
    """One latency: TTFT or TPOT. Seconds."""

    predicted: float = Field(gt=0.0)
    """By the plan's own predictor, corrections included."""
    low: float
    high: float
    """Its 90 % interval."""
    raw_ratio: float = Field(gt=0.0)
    """Observed over what the predictor says without what production taught it."""
    observed: float = Field(gt=0.0)
    error: float = Field(default=0.0, ge=0.0)
    """Standard deviation of ln(observed) that buckets leave; 0 where it is exact."""
    limit: float | None = None
    """The SLO's."""
    within: tuple[float, float] | None = None
    """Bounds of the share of requests that kept the limit."""

    @property
    def ratio(self) -> float:
        """Observed over predicted."""
        return self.observed / self.predicted

    @property
    def inside(self) -> bool:
        """Whether the observation lies in the predicted interval."""
        return self.low <= self.observed <= self.high


class Comparison(Fact):
    """One service in some hours of one night's plan."""

    intent: str
    strategy: str
    model: str
    """Digest of its shapes."""
    gpu: str
    basis: str
    """What the prediction rests on: ratios of one basis alone can be put together."""
    serial: int
    """Of the plan in force."""
    at_hour: int
    """First of the hours, since 1970-01-01 00:00 UTC."""
    rate: float
    """Observed, requests per second."""
    planned_rate: float
    """What the plan held."""
    attainment: float | None = None
    """What the SLO asks for."""
    ttft: Reading | None = None
    tpot: Reading | None = None


def measured(histogram: Histogram | None) -> tuple[float, float] | None:
    """(mean, error): seconds, and the standard deviation of its logarithm; None where too few were counted."""
    if histogram is None or histogram.total < ENOUGH:
        return None
    mean = histogram.mean
    if mean is not None and mean > 0:
        return mean, 0.0
    low, middle, high = histogram.quantile(0.5)
    if middle <= 0:
        return None
    low, high = max(low, middle / _OPEN), min(high, middle * _OPEN)
    return middle, _UNIFORM * math.log(high / low)


def kept_share(histogram: Histogram | None, limit: float | None) -> tuple[float, float] | None:
    """Bounds of the share of the values that are at most the limit."""
    if histogram is None or limit is None or histogram.total < ENOUGH:
        return None
    found = histogram.share_within(limit)
    return found.low, found.high


def reading(
    histogram: Histogram | None,
    *,
    predicted: float,
    raw: float,
    interval: tuple[float, float],
    limit: float | None,
) -> Reading | None:
    """Compare a mean with the predicted one; None where it was not measured, or not predicted."""
    found = measured(histogram)
    if found is None or not all(math.isfinite(each) and each > 0 for each in (predicted, raw)):
        return None
    return Reading(
        predicted=predicted,
        low=predicted * interval[0],
        high=predicted * interval[1],
        raw_ratio=found[0] / raw,
        observed=found[0],
        error=found[1],
        limit=limit,
        within=kept_share(histogram, limit),
    )


def limits(slo: SLO | None) -> tuple[float | None, float | None, float | None]:
    """(ttft, tpot, attainment) of an SLO."""
    return (None, None, None) if slo is None else (slo.ttft, slo.tpot, slo.attainment)


def enough(attained: Attained | None) -> bool:
    """Whether the servers measured enough to compare."""
    return attained is not None and measured(attained.ttft) is not None and attained.rate > 0


def strategy_in_force(groups: Sequence[ReplicaGroup], cluster: Cluster) -> Strategy | None:
    """The strategy that these replica groups of one intent are; None for a mix, which no one prediction describes."""
    pools = {group.role: _pool(group) for group in groups}
    if len(pools) != len(groups):
        return None
    match sorted(pools):
        case ["both"]:
            return Collocated(pool=pools["both"])
        case ["decode", "prefill"]:
            return _disaggregated(pools["prefill"], pools["decode"], cluster)
    return None


def _pool(group: ReplicaGroup) -> Pool:
    return Pool(configuration=configuration_of(group), replicas=group.replicas, node_pool=group.node_pool)


def _disaggregated(prefill: Pool, decode: Pool, cluster: Cluster) -> Disaggregated | None:
    names = {pool.name for pool in cluster.pools}
    if not {prefill.node_pool, decode.node_pool} <= names:
        return None
    networks = [cluster.pool(pool.node_pool).network for pool in (prefill, decode)]
    ranks = min(prefill.configuration.gpus, decode.configuration.gpus)
    return Disaggregated(
        prefill=prefill,
        decode=decode,
        transfer_bandwidth=ranks * min(network.bandwidth for network in networks),
        transfer_latency=max(network.latency for network in networks),
    )
