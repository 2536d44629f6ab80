"""`Runner`: the port through which operators are timed; one adapter per way to measure.

`reference` composes times from published kernel tables, `imported` reads what a user already measured, `fake` serves
tests; `torch` and `vllm` time a stand-in on the device at hand. All give the same noun, a `Fingerprint`.

A runner that interpolates along efficiency needs the operators' physical bound. The bound is a formula of the planner;
whoever builds the runner hands it in (`Bound`), so that measuring knows nothing of planning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from catalog.fingerprints import POINTS_SCHEMA, Fingerprint, FingerprintKey, Op, Source
from catalog.gpus import GPU

Floats = NDArray[np.float64]

#: (operator, GPU, x, y) -> least seconds of one execution; arrays broadcast.
Bound = Callable[[Op, GPU, Floats, Floats], Floats]

#: Sizes at which runners time operators by default; x and y mean what `catalog.fingerprints` says.
BATCH_GRID: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
CONTEXT_GRID: tuple[int, ...] = (16, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)
CHUNK_GRID: tuple[int, ...] = (1, 16, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
PRIOR_GRID: tuple[int, ...] = (0, 512, 2048, 8192, 32768, 131072)
#: No execution of an operator takes longer; what claims to is a wrong unit.
LONGEST_S = 3600.0


class Runner(Protocol):
    """Times operators of a rank on a GPU; what cannot be timed is listed in `Fingerprint.failures`, never guessed."""

    def run(self, key: FingerprintKey, ops: Sequence[Op], *, gpu: GPU) -> Fingerprint:
        """Measure each operator on the runner's grid."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Timing:
    """Times of one operator over a flat list of sizes."""

    x: Floats  # (n,)
    y: Floats  # (n,)
    time_s: Floats  # (n,)
    source: Source
    spread: float = 0.0
    note: str = ""


def shape_text(op: Op) -> str:
    """`k=4096,n=6144`, as `Fingerprint.points` writes a shape."""
    return ",".join(f"{name}={size}" for name, size in sorted(op.shape))


def points(timings: Iterable[tuple[Op, Timing]]) -> pl.DataFrame:
    """Lay timings out as `Fingerprint.points`."""
    frames = [(op, timing, timing.x.size) for op, timing in timings]
    if not frames:
        return POINTS_SCHEMA.to_frame()
    sizes = ("x", "y", "time_s")
    # taken by rows, without expressions: each of them starts a query, and fingerprints come by the thousand
    each = pl.DataFrame(
        {
            "op": [op.name for op, _, _ in frames],
            "kind": [op.kind for op, _, _ in frames],
            "dtype": [op.dtype for op, _, _ in frames],
            "shape": [shape_text(op) for op, _, _ in frames],
            "count": [op.count for op, _, _ in frames],
            "spread": [timing.spread for _, timing, _ in frames],
            "source": [timing.source for _, timing, _ in frames],
        },
        schema={name: dtype for name, dtype in POINTS_SCHEMA.items() if name not in sizes},
    )
    table = each[np.repeat(np.arange(len(frames)), [size for _, _, size in frames])]
    for name in sizes:
        values = np.concatenate([getattr(timing, name) for _, timing, _ in frames]).astype(np.float64)
        table.insert_column(POINTS_SCHEMA.names().index(name), pl.Series(name, values))
    return table


def refused(rows: pl.DataFrame) -> tuple[pl.DataFrame, Mapping[str, int]]:
    """Split off rows that no measurement can give: NaN, zero, negative, or longer than an hour; count the reasons."""
    time, x, y = pl.col("time_s"), pl.col("x"), pl.col("y")
    reason = (
        pl.when(time.is_null() | ~time.is_finite())
        .then(pl.lit("the time is missing, NaN or infinite"))
        .when(time <= 0)
        .then(pl.lit("the time is zero or negative"))
        .when(time > LONGEST_S)
        .then(pl.lit("the time is longer than an hour"))
        .when(x.is_null() | ~x.is_finite() | (x <= 0))
        .then(pl.lit("the size is not a positive number"))
        .when(y.is_null() | ~y.is_finite() | (y < 0))
        .then(pl.lit("the context is not a number from 0 up"))
    )
    marked = rows.with_columns(reason.alias("_reason"))
    bad = marked.filter(pl.col("_reason").is_not_null())
    counts = {str(row[0]): int(row[1]) for row in bad.group_by("_reason").len().sort("_reason").iter_rows()}
    return marked.filter(pl.col("_reason").is_null()).drop("_reason"), counts
