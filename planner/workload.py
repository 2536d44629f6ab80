"""WISHES: `Workload`: how many requests come, how bursty, how long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from catalog.cluster import Fact
from catalog.units import PerSecond


class Lengths(Fact):
    """Distribution of prompt or output lengths, in tokens."""

    mean: float | None = Field(default=None, ge=1, le=10_000_000)
    cv: float = Field(default=0.0, ge=0.0, le=20.0)
    """Standard deviation over mean (lognormal)."""
    quantiles: dict[float, float] | None = None
    """Instead of mean and cv: {0.5: 700, 0.9: 2400, 0.99: 7900}."""
    max: int | None = Field(default=None, ge=1, le=10_000_000)
    """Longest that is sent; longer draws are cut to it."""

    @model_validator(mode="after")
    def _one_of_mean_and_quantiles(self) -> Self:
        if (self.mean is None) == (self.quantiles is None):
            msg = "give either mean (and cv) or quantiles"
            raise ValueError(msg)
        return self


class Workload(Fact):
    """Load of one intent, declared or read from a trace."""

    rate: PerSecond | None = None
    prompt: Lengths | None = None
    output: Lengths | None = None
    arrival_cv: float = Field(default=1.0, ge=0.0, le=30.0)
    """Coefficient of variation between arrivals; 1 = Poisson."""
    prefix_hit_share: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of prompt tokens found in the prefix cache."""
    trace: str | None = None
    """Path of a trace (CSV, Parquet, JSONL) beside fleet.yaml; what it holds need not be declared."""
    trace_scale: float = Field(default=1.0, gt=0.0, le=1e4)
    """The trace's arrivals are sped up by this factor."""
    diurnal: tuple[float, ...] | None = None
    """Load by equal windows of the day from 00:00 UTC, relative to `rate`."""

    @model_validator(mode="after")
    def _declared_or_traced(self) -> Self:
        if self.trace is None and (self.rate is None or self.prompt is None or self.output is None):
            msg = "workload needs rate, prompt and output, or a trace"
            raise ValueError(msg)
        return self


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Requests:
    """A workload in numbers, ready for queueing and simulation: what `realize` makes of a `Workload`.

    `prompt` and `output` are a joint sample (same index = same request); quasi-random for declared moments (seeded),
    the trace's own rows for a trace. `arrival_s` is None for a law (gamma gaps with `arrival_cv`), the measured
    timestamps, ascending from 0, for a replay.
    """

    rate: float
    """Requests per second, the mean that the plan must serve."""
    prompt: NDArray[np.int64]  # (n,) tokens, >= 1
    output: NDArray[np.int64]  # (n,) tokens, >= 1
    cached: NDArray[np.int64]  # (n,) prompt tokens found in the prefix cache, < prompt
    arrival_cv: float
    arrival_s: NDArray[np.float64] | None = None
    peak_rate: float | None = None
    """Rate of the busiest window, where the workload is diurnal or bursty on scales of minutes."""
