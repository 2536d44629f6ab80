"""`Bias`: how far predictions lie from what production measured, shrunk from intent to engine to all.

With r = ln(observed / predicted) of one night of intent i on engine m (a model on a GPU),

    r = g + b_m + c_i + e,   g ~ N(0, τ_g²),  b_m ~ N(0, τ_m²),  c_i ~ N(0, τ_i²),  e ~ N(0, s²)

which is a tree of normals: messages up the tree (precision-weighted means) and down again give each node's posterior
exactly (Pearl 1988, 4.2; for two levels Gelman et al., Bayesian Data Analysis, 5.4). A night of one service moves what
is believed of its own latencies most, of its model on that GPU less, and of everything else a little. s is pooled over
all services, drawn to its prior as `PRIOR_NIGHTS` nights. Where the services' ratios contradict the priors (the median
one lies beyond two standard deviations) the τ are widened until they do not. A ratio beyond `MOST` counts as `MOST`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Literal, NamedTuple

from pydantic import Field

from catalog.cluster import Fact
from planner.calibrate.compare import Comparison

Phase = Literal["decode", "prefill"]
#: Nights that are looked back on.
NIGHTS = 28
PRIOR_NIGHTS = 10.0
#: A ratio beyond this, either way, is a fault of telemetry or model rather than a bias.
MOST = 3.0
#: Services that lie this many standard deviations off contradict the priors.
_SURPRISE = 2.0


class Spread(NamedTuple):
    """Standard deviations of ln(observed / predicted), as priors."""

    overall: float
    engine: float
    intent: float
    night: float


#: Of the order of the predictors' own intervals (decode within 10 %, TTFT within 25 %, 90 % of the time), shared out
#: between what all predictions have in common, what an engine and what a service adds, and what a night does.
PRIORS: Mapping[Phase, Spread] = {
    "decode": Spread(overall=0.04, engine=0.05, intent=0.04, night=0.05),
    "prefill": Spread(overall=0.08, engine=0.10, intent=0.08, night=0.12),
}


class Bias(Fact):
    """What is believed of ln(observed / predicted)."""

    mean: float
    sd: float = Field(ge=0.0)
    nights: int = 0
    """Nights that were measured there."""


class PhaseBias(Fact):
    """Biases of one phase."""

    overall: Bias
    engines: dict[str, Bias] = Field(default_factory=dict)
    """By `engine_key`."""
    intents: dict[str, Bias] = Field(default_factory=dict)
    """By `intent_key`."""
    night: float
    """Standard deviation from night to night."""
    prior: tuple[float, float]
    """Standard deviations that an engine and an intent add, for those not measured yet."""

    def of(self, model: str, gpu: str, intent: str | None = None) -> Bias:
        """The bias of an intent on an engine, of the engine, or of what is like neither."""
        engine = self.engines.get(engine_key(model, gpu))
        if engine is None:
            sd = math.hypot(self.overall.sd, self.prior[0])
            engine = Bias(mean=self.overall.mean, sd=sd)
        if intent is None:
            return engine
        known = self.intents.get(intent_key(intent, model, gpu))
        return known or Bias(mean=engine.mean, sd=math.hypot(engine.sd, self.prior[1]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """One measured ratio."""

    intent: str
    engine: str
    ratio: float
    error: float


class _Message(NamedTuple):
    """A normal likelihood: precision and precision-weighted mean. No information is (0, 0)."""

    precision: float
    weighted: float

    def through(self, variance: float) -> _Message:
        """Widened by a random effect between the two nodes."""
        if self.precision <= 0:
            return self
        precision = 1.0 / (1.0 / self.precision + variance)
        return _Message(precision, precision * self.weighted / self.precision)

    def __add__(self, other: object) -> _Message:
        assert isinstance(other, _Message)  # noqa: S101 - messages meet messages alone
        return _Message(self.precision + other.precision, self.weighted + other.weighted)

    def without(self, other: _Message) -> _Message:
        """What the others say."""
        return _Message(self.precision - other.precision, self.weighted - other.weighted)

    def bias(self, nights: int) -> Bias:
        return Bias(mean=self.weighted / self.precision, sd=math.sqrt(1.0 / self.precision), nights=nights)


def engine_key(model: str, gpu: str) -> str:
    """A model on a GPU."""
    return f"{model}/{gpu}"


def intent_key(intent: str, model: str, gpu: str) -> str:
    """A service on an engine."""
    return f"{intent}/{engine_key(model, gpu)}"


def nights_of(comparisons: Iterable[Comparison], phase: Phase) -> list[Night]:
    """The ratios of one phase, of each engine those that rest on the newest basis alone."""
    rows = sorted(comparisons, key=lambda each: (each.at_hour, each.intent))
    newest = {(row.model, row.gpu): row.basis for row in rows}
    found = []
    for row in rows:
        reading = row.tpot if phase == "decode" else row.ttft
        if reading is not None and row.basis == newest[row.model, row.gpu]:
            key = engine_key(row.model, row.gpu)
            found.append(Night(intent=row.intent, engine=key, ratio=reading.raw_ratio, error=reading.error))
    return found


def bias(nights: Sequence[Night], phase: Phase) -> PhaseBias:
    """Learn from measured nights, in any number."""
    leaves: dict[tuple[str, str], list[Night]] = defaultdict(list)
    for night in nights:
        leaves[night.engine, night.intent].append(night)
    levels = [[level(night) for night in mine] for mine in leaves.values()]
    prior = unsurprised(PRIORS[phase], levels)
    noise = night_spread(levels, prior.night)
    up = {key: _likelihood(mine, noise) for key, mine in leaves.items()}
    of_engine: dict[str, _Message] = defaultdict(lambda: _Message(0.0, 0.0))
    for (engine, _), message in up.items():
        of_engine[engine] += message.through(prior.intent**2)
    top = _Message(1.0 / prior.overall**2, 0.0)
    for message in of_engine.values():
        top += message.through(prior.engine**2)
    engines: dict[str, Bias] = {}
    intents: dict[str, Bias] = {}
    for engine, message in sorted(of_engine.items()):
        down = top.without(message.through(prior.engine**2)).through(prior.engine**2)
        count = sum(len(mine) for (of, _), mine in leaves.items() if of == engine)
        engines[engine] = (message + down).bias(count)
        for (of, intent), own in sorted(up.items()):
            if of == engine:
                rest = (message + down).without(own.through(prior.intent**2)).through(prior.intent**2)
                intents[f"{intent}/{engine}"] = (own + rest).bias(len(leaves[of, intent]))
    return PhaseBias(
        overall=top.bias(len(nights)), engines=engines, intents=intents, night=noise,
        prior=(prior.engine, prior.intent),
    )  # fmt: skip


def level(night: Night) -> float:
    """Ln of the ratio, cut."""
    return min(max(math.log(night.ratio), -math.log(MOST)), math.log(MOST))


def unsurprised(prior: Spread, levels: Sequence[Sequence[float]]) -> Spread:
    """The priors, widened so that the median service lies within two of their standard deviations."""
    if not levels:
        return prior
    off = median(abs(fmean(mine)) for mine in levels)
    wider = max(1.0, off / (_SURPRISE * math.hypot(prior.overall, prior.engine, prior.intent)))
    return Spread(prior.overall * wider, prior.engine * wider, prior.intent * wider, prior.night)


def night_spread(series: Sequence[Sequence[float]], prior: float) -> float:
    """Standard deviation from night to night, pooled within services and drawn to its prior."""
    squares = sum((value - fmean(mine)) ** 2 for mine in series for value in mine)
    freedom = sum(len(mine) - 1 for mine in series)
    return math.sqrt((PRIOR_NIGHTS * prior**2 + squares) / (PRIOR_NIGHTS + freedom))


def _likelihood(mine: Sequence[Night], noise: float) -> _Message:
    """What a service's nights say of its bias; the error that buckets leave is the same every night."""
    shared = max(night.error for night in mine) ** 2
    mean = fmean(level(night) for night in mine)
    precision = 1.0 / (noise**2 / len(mine) + shared)
    return _Message(precision, precision * mean)
