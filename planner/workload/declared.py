"""`Workload` and `Lengths`: the load of one intent as a user declares it."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Self

from pydantic import Field, model_validator

from catalog.cluster import Fact
from catalog.units import PerSecond
from planner.workload.telemetry import Scraped


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

    @model_validator(mode="after")
    def _quantiles_rise(self) -> Self:
        if self.quantiles is None:
            return self
        points = sorted(self.quantiles.items())
        if not points or not all(0 < share < 1 and 1 <= tokens <= 10_000_000 for share, tokens in points):
            msg = f"quantiles {self.quantiles!r} must map shares between 0 and 1 to lengths of at least 1 token"
            raise ValueError(msg)
        if any(longer < shorter for (_, shorter), (_, longer) in pairwise(points)):
            msg = f"quantiles {self.quantiles!r} must not fall: a larger share needs a longer length"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _max_is_not_below_mean(self) -> Self:
        if self.max is not None and self.mean is not None and self.max < self.mean:
            msg = f"max {self.max} is below the mean {self.mean:g}: raise max or lower the mean"
            raise ValueError(msg)
        return self


class Workload(Fact):
    """Load of one intent, declared, read from a trace, or forecast from what Prometheus scraped."""

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
    prometheus: Scraped | None = None
    """The service's series on the fleet's Prometheus; what is declared beside it holds until they are first read."""

    @property
    def declares(self) -> bool:
        """Whether rate and lengths stand here."""
        return self.rate is not None and self.prompt is not None and self.output is not None

    @model_validator(mode="after")
    def _declared_or_traced(self) -> Self:
        if self.trace is None and self.prometheus is None and not self.declares:
            msg = "workload needs rate, prompt and output, or a trace, or prometheus"
            raise ValueError(msg)
        if self.trace is not None and self.prometheus is not None:
            msg = "workload has a trace and prometheus: give one of them"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _diurnal_is_a_day(self) -> Self:
        if self.diurnal is None:
            return self
        sound = all(math.isfinite(window) and 0 <= window <= 100 for window in self.diurnal)
        if not sound or not 1 <= len(self.diurnal) <= 1440 or max(self.diurnal) <= 0:
            msg = f"diurnal {self.diurnal!r} must hold 1 to 1440 factors between 0 and 100, at least one above 0"
            raise ValueError(msg)
        return self
