"""`Histogram`: counts by bucket as Prometheus keeps them; quantiles, shares and lengths that they allow.

A bucket says how many values are at most its edge and nothing of where they lie inside. So a quantile or a share has
bounds besides its middle, and lengths are declared by the shares at the edges, where they are exact.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple, Self

import numpy as np
from pydantic import Field, model_validator

from catalog.cluster import Fact
from planner.workload.declared import Lengths

#: Least and most lengths that are believed, tokens.
SHORTEST, LONGEST = 1.0, 10_000_000.0
#: Shares nearer to 0 or 1 than this say nothing of a distribution.
_RIM = 5e-4
#: Digits of a length or a share in a declared workload.
DIGITS = 4


class Bounded(NamedTuple):
    """A number that buckets bound."""

    low: float
    middle: float
    high: float


class Histogram(Fact):
    """Values by bucket: `counts[i]` values are at most `edges[i]`, all `total` of them are at most infinity."""

    edges: tuple[float, ...]
    counts: tuple[float, ...]
    """Cumulative, as Prometheus has them; not whole, since rates are interpolated."""
    total: float = Field(ge=0.0)
    sum: float | None = None
    """Of all values, where it is known."""

    @model_validator(mode="after")
    def _rises(self) -> Self:
        levels = (0.0, *self.counts, self.total)
        if len(self.edges) != len(self.counts) or list(self.edges) != sorted(set(self.edges)):
            msg = "edges must rise, with one count each"
            raise ValueError(msg)
        if any(after < before for before, after in pairwise(levels)):
            msg = "cumulative counts must not fall"
            raise ValueError(msg)
        return self

    @classmethod
    def of(cls, buckets: dict[float, float], total_sum: float | None = None) -> Self | None:
        """From `{upper edge: cumulative count}`; None where nothing was counted or the last bucket is missing.

        Rates of single buckets are interpolated apart, so a count may fall by a hair: it is lifted to the one below.
        """
        total = buckets.get(math.inf, math.nan)
        edges = sorted(edge for edge in buckets if math.isfinite(edge))
        counts = [buckets[edge] for edge in edges]
        if not (math.isfinite(total) and total > 0) or not all(math.isfinite(count) for count in counts):
            return None
        lifted = np.maximum.accumulate(np.clip([0.0, *counts], 0.0, total))[1:]
        known = total_sum if total_sum is not None and math.isfinite(total_sum) and total_sum >= 0 else None
        return cls(edges=tuple(edges), counts=tuple(float(count) for count in lifted), total=total, sum=known)

    @property
    def mean(self) -> float | None:
        """Mean of the values, where their sum is known."""
        return None if self.sum is None or self.total <= 0 else self.sum / self.total

    def share_within(self, limit: float) -> Bounded:
        """Share of the values at most `limit`: exact at an edge, else bounded by the edges around it."""
        below, above = 0.0, 1.0
        low_edge, high_edge = 0.0, math.inf
        for edge, count in zip(self.edges, self.counts, strict=True):
            if edge <= limit:
                below, low_edge = count / self.total, edge
            else:
                above, high_edge = count / self.total, edge
                break
        if low_edge == limit:
            return Bounded(below, below, below)
        reach = 0.5 if math.isinf(high_edge) else (limit - low_edge) / (high_edge - low_edge)
        return Bounded(below, below + (above - below) * reach, above)

    def quantile(self, share: float) -> Bounded:
        """The value that `share` of the values do not exceed; infinite at the high end beyond the last edge.

        Inside a bucket the middle lies on a straight line in the logarithm (in the value where it starts at 0).
        """
        wanted, below, low = share * self.total, 0.0, 0.0
        for edge, count in zip(self.edges, self.counts, strict=True):
            if count >= wanted and count > below:
                reach = (wanted - below) / (count - below)
                middle = low * (edge / low) ** reach if low > 0 else edge * reach
                return Bounded(low, middle, edge)
            below, low = max(below, count), edge
        return Bounded(low, low, math.inf)


def lengths_of(histogram: Histogram) -> Lengths | None:
    """Lengths with the histogram's shares at its edges, cut to its longest; None where it says nothing.

    Where all values lie in one bucket its mean is known exactly, and its spread is that of equal chances inside it.
    """
    shares = [count / histogram.total for count in histogram.counts]
    inner = [(share, edge) for share, edge in zip(shares, histogram.edges, strict=True)
             if _RIM < share < 1 - _RIM and SHORTEST <= edge <= LONGEST]  # fmt: skip
    full = next((edge for share, edge in zip(shares, histogram.edges, strict=True) if share >= 1 - _RIM), None)
    longest = None if full is None else int(min(max(full, SHORTEST), LONGEST))
    knots: dict[float, float] = {}
    for share, edge in inner:
        knots.setdefault(round(share, DIGITS), float(edge))
    if len(knots) >= 2:
        return Lengths(quantiles=knots, max=longest)
    return _alone(histogram, longest, inner[0][1] if inner else None)


def _alone(histogram: Histogram, longest: int | None, edge: float | None) -> Lengths | None:
    """Lengths from a mean and the width of the one or two buckets that hold all."""
    if histogram.mean is None:
        return None if edge is None else Lengths(mean=edge, max=max(longest, math.ceil(edge)) if longest else None)
    mean = min(max(histogram.mean, SHORTEST), LONGEST)
    if longest is None:
        return Lengths(mean=mean)
    holds = [at for at, count in zip(histogram.edges, histogram.counts, strict=True) if count <= _RIM * histogram.total]
    width = longest - max([at for at in holds if at < longest], default=0.0)
    spread = round(min(width / math.sqrt(12.0), mean) / mean, 3)
    return Lengths(mean=mean, cv=spread, max=max(longest, math.ceil(mean)))
