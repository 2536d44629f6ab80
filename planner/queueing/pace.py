"""`Pace`: one engine's step times as the closed form reads them, for one workload.

Three things are needed of the tables. `decode[n]`: an iteration of n decodes at the workload's mean context. `work`:
what one prompt adds to an iteration of n decodes,

    s(p | n) = ( token_s(n + k·p) - token_s(n) + mixed overhead - decode overhead ) / k + Σ prefill_s(chunk, prior),

where k is the number of prompts that share the iteration (its fixed cost is then shared, and weights are read once); a
prompt beyond the budget left, B - n, is cut into chunks. For linear tables this is b·p + q·p²/2. `full`: an iteration
that uses the whole budget. Prompt work is kept on a small grid of n and k and read between by straight lines.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from planner.predict import Tables, along, decode_s, kernel, prefill_s
from planner.queueing.summary import Summary

Floats = NDArray[np.float64]

#: Batch sizes at which prompt work is computed, as shares of max_num_seqs (at least one decode).
LOADS = np.array([0.0, 0.1, 0.3, 0.6, 1.0])
#: The row after them: prompts alone, whose work includes the iteration's fixed cost.
ALONE = len(LOADS)
#: Prompts that share an iteration.
MATES = np.array([1.0, 2.0, 4.0, 16.0])
# Entries of `Pace.workload`.
ITERATIONS, HELD1, HELD2, PROMPT1, PROMPT2 = 0, 1, 2, 3, 4


class Pace(NamedTuple):
    """Seconds, but for `workload`: means over requests that depend on the token budget."""

    decode: Floats  # (S + 1,) an iteration of n decodes
    work: Floats  # (loads + 1, mates, bins) prompt work s
    moment1: Floats  # (loads + 1, mates) E[s]
    moment2: Floats
    moment3: Floats
    full: Floats  # (1,) an iteration of B tokens at the workload's mix
    workload: Floats  # (5,) E[it], E[held·it], E[(held·it)²], E[new], E[new²]


def open_pace(seqs: int, bins: int) -> Pace:
    """Room for one engine's pace."""
    grid = (len(LOADS) + 1, len(MATES))
    return Pace(
        np.empty(seqs + 1),
        np.empty((*grid, bins)),
        np.empty(grid),
        np.empty(grid),
        np.empty(grid),
        np.empty(1),
        np.empty(5),
    )


@kernel
def work_at(load: int, n: float, tables: Tables, summary: Summary, budget: float, pace: Pace) -> None:  # noqa: PLR0913, PLR0917 - a kernel
    """Fill one row of the work tables: seconds that prompts of each bin add to iterations of `n` decodes.

    What does not depend on the prompts that share an iteration is computed once for all of them.
    """
    base = along(max(n, 1.0), tables.tokens, tables.token_s) if n > 0 else 0.0
    extra = tables.mixed_overhead_s - (tables.decode_overhead_s if n > 0 else 0.0)
    room = max(budget - n, 1.0)
    chunk = along(budget, tables.tokens, tables.token_s) - base + extra
    for i in range(len(summary.share)):
        new, cached = summary.new[i], summary.cached[i]
        if new <= 1.0:  # a row of one token reads like a decode
            one = along(n + 1.0, tables.tokens, tables.token_s) - base
            pace.work[load, :, i] = max(0.0, one + decode_s(tables, 1.0, cached + 1.0))
            continue
        whole = np.floor(new / room)
        rest = new - whole * room
        full_s, last_s = 0.0, 0.0
        if whole > 0:
            full_s = whole * (chunk + prefill_s(tables, room, cached + 0.5 * (whole - 1.0) * room))
        if rest > 0:
            last_s = prefill_s(tables, rest, cached + whole * room)
        for j in range(len(MATES)):
            seconds = full_s
            if rest > 0:
                k = max(1.0, min(MATES[j], room / rest))
                together = along(max(n + k * rest, 1.0), tables.tokens, tables.token_s) - base + extra
                seconds += together / k + last_s
            pace.work[load, j, i] = max(seconds, 0.0)


@kernel
def weigh(summary: Summary, budget: float, means: Floats) -> None:
    """Fill `Pace.workload`."""
    means[:] = 0.0
    for i in range(len(summary.share)):
        share, chunks = summary.share[i], max(1.0, summary.new[i] / budget)
        means[ITERATIONS] += share * chunks
        means[HELD1] += share * summary.prompt[i] * chunks
        # E[(v + p·c)²] = E[v²] + 2E[v·p·c] + E[p²c²]
        means[HELD2] += share * (2.0 * summary.read_prompt[i] * chunks + summary.prompt2[i] * chunks * chunks)
        means[PROMPT1] += share * summary.new[i]
        means[PROMPT2] += share * summary.new[i] * summary.new[i]
    means[ITERATIONS] += summary.d1
    means[HELD1] += summary.v1
    means[HELD2] += summary.v2


@kernel
def measure(tables: Tables, summary: Summary, seqs: int, budget: float, pace: Pace) -> None:
    """Fill a pace."""
    d1, bins = summary.d1, len(summary.share)
    context = summary.v1 / d1 if d1 > 0 else 0.0
    weigh(summary, budget, pace.workload)
    # D(n) at small steps where tables bend, straight lines between
    known, pace.decode[0] = 0, 0.0
    while known < seqs:
        n = min(seqs, known + 1 + known // 12)
        here = tables.decode_overhead_s + along(float(n), tables.tokens, tables.token_s)
        here += along(float(n), tables.sequences, tables.sequence_s) + decode_s(tables, float(n), context)
        before = pace.decode[known]
        for i in range(known + 1, n + 1):
            pace.decode[i] = before + (here - before) * (i - known) / (n - known)
        known = n
    pace.decode[0] = pace.decode[1]
    for load in range(len(LOADS) + 1):
        n_dec = 0.0 if load == ALONE else max(1.0, np.floor(LOADS[load] * seqs))
        work_at(load, n_dec, tables, summary, budget, pace)
        for k in range(len(MATES)):
            first, second, third = 0.0, 0.0, 0.0
            for i in range(bins):
                s = pace.work[load, k, i]
                first += summary.share[i] * s
                second += summary.share[i] * s * s
                third += summary.share[i] * s * s * s
            pace.moment1[load, k], pace.moment2[load, k], pace.moment3[load, k] = first, second, third
    prompt = pace.workload[PROMPT1]
    rows = min(float(seqs), budget * d1 / max(d1 + prompt, 1e-9))
    chunks = (budget - rows) / max(prompt, 1.0)  # prompts per iteration
    attention = 0.0
    for i in range(bins):
        length = min(summary.new[i], budget)
        if length > 1.0:
            times = summary.new[i] / length
            attention += (
                summary.share[i]
                * times
                * prefill_s(tables, length, summary.cached[i] + 0.5 * (summary.new[i] - length))
            )
    pace.full[0] = (
        tables.mixed_overhead_s
        + along(budget, tables.tokens, tables.token_s)
        + along(rows, tables.sequences, tables.sequence_s)
        + decode_s(tables, rows, context)
        + chunks * attention
    )


@kernel
def load_of(n: float, seqs: float) -> float:
    """Row of the work tables for `n` decodes, between two rows where needed."""
    x = min(max(n / seqs, 0.0), 1.0)
    i = 0
    while i < len(LOADS) - 2 and LOADS[i + 1] <= x:
        i += 1
    return float(i + (x - LOADS[i]) / (LOADS[i + 1] - LOADS[i]))


@kernel
def mates_of(arrivals: float) -> float:
    """Prompts in an iteration that has any, when `arrivals` are expected: x / (1 - exp(-x))."""
    return 1.0 + 0.5 * arrivals if arrivals < 1e-3 else arrivals / (1.0 - np.exp(-arrivals))


@kernel
def column_of(mates: float) -> float:
    """Column of the work tables for so many prompts in an iteration."""
    j = 0
    while j < len(MATES) - 2 and MATES[j + 1] <= mates:
        j += 1
    return float(j + min((mates - MATES[j]) / (MATES[j + 1] - MATES[j]), 1.0))


@kernel
def read(grid: Floats, row: float, column: float) -> float:
    """Read a work table between its rows and columns."""
    i, j = min(int(row), len(grid) - 1), min(int(column), len(MATES) - 2)
    u, v = row - i, column - j
    low = grid[i, j] + (grid[i, j + 1] - grid[i, j]) * v
    if u == 0.0:
        return float(low)
    return float(low + (grid[i + 1, j] + (grid[i + 1, j + 1] - grid[i + 1, j]) * v - low) * u)
