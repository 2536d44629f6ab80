"""Counters as they were scraped: increases across resets and gaps, and the index of dispersion of what was counted.

A counter only rises; where it falls the process began anew, and what it shows then was counted since (Prometheus'
own rule). Series are scraped at different instants, so each is read between its samples on one grid. The index of
dispersion of counts, Var N(τ) / E N(τ), is taken around a straight line within each hour (or twelve
windows, where that is longer): the shape of the day is no burst.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from catalog.units import SECONDS_PER_HOUR

Floats = NDArray[np.float64]
#: Two samples of one series further apart than this many usual gaps leave a gap.
_GAP = 3.5
#: Fewer windows than this in a block tell nothing about their variance.
_LEAST = 10
#: Seconds of a window, where the scrapes are not further apart.
WINDOW_S = 60.0


def increases(values: Floats) -> Floats:
    """What a counter gained from each sample to the next, (n,) -> (n - 1,); a fall is a new start from zero."""
    steps = np.diff(values)
    return np.where(steps < 0, values[1:], steps)


def counts_on(grid: Floats, times: Floats, values: Floats) -> Floats:
    """What one series gained in each window of a grid (n edges -> n - 1); NaN where it was not scraped all along."""
    sound = np.isfinite(values) & (values >= 0) & np.isfinite(times)
    times, values = times[sound], values[sound]
    if len(times) < 2:
        return np.full(len(grid) - 1, np.nan)
    gained = np.concatenate([[0.0], np.cumsum(increases(values))])
    at = np.interp(grid, times, gained, left=np.nan, right=np.nan)
    gaps = np.diff(times)
    piece = np.clip(np.searchsorted(times, grid, side="right") - 1, 0, len(gaps) - 1)
    at[gaps[piece] > _GAP * float(np.median(gaps))] = np.nan
    counts: Floats = np.diff(at)
    return counts


def usual_gap(series: Sequence[tuple[Floats, Floats]]) -> float:
    """Seconds between scrapes, the median of all series; 0 where no series has two samples."""
    gaps = [float(np.median(np.diff(times))) for times, _ in series if len(times) >= 2]
    return float(np.median(gaps)) if gaps else 0.0


def dispersion(series: Sequence[tuple[Floats, Floats]]) -> float | None:
    """Index of dispersion of the counts of all series together; None where they are too few to tell.

    `series` are (times, values) of one counter each. Windows last a minute, or four scrapes where that is longer: then
    reading between samples takes little of the variance away.
    """
    gap = usual_gap(series)
    if gap <= 0:
        return None
    window = max(WINDOW_S, 4.0 * gap)
    first, last = min(times[0] for times, _ in series), max(times[-1] for times, _ in series)
    grid = np.arange(math.ceil(first / window), math.floor(last / window) + 1) * window
    if len(grid) < _LEAST + 1:
        return None
    each = np.stack([counts_on(grid, times, values) for times, values in series])
    known = np.isfinite(each).any(axis=0)
    together = np.where(known, np.nansum(each, axis=0), np.nan)
    # a series that comes or goes is a change of who serves, not a burst: its windows are left out
    present = np.isfinite(each).sum(axis=0)
    each_block = max(round(SECONDS_PER_HOUR / window), _LEAST + 2)
    return _within(together, np.arange(len(together)) // each_block, present)


def _within(counts: Floats, block: NDArray[np.int64], present: NDArray[np.int64]) -> float | None:
    variances, means = [], []
    for each in np.unique(block):
        here = (block == each) & np.isfinite(counts)
        if not here.any():
            continue
        steady = here & (present == np.bincount(present[here]).argmax())
        if steady.sum() >= _LEAST and counts[steady].mean() > 0:
            variances.append(_around_a_line(counts[steady], np.flatnonzero(steady)) * int(steady.sum()))
            means.append(float(counts[steady].mean()) * int(steady.sum()))
    return sum(variances) / sum(means) if means else None


def _around_a_line(values: Floats, at: NDArray[np.int64]) -> float:
    """Variance around the straight line through values at these places, (n,) with n > 2."""
    since = at - at.mean()
    slope = float((since * values).sum() / (since * since).sum())
    return float(((values - values.mean() - slope * since) ** 2).sum()) / (len(values) - 2)
