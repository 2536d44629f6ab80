"""Doubt: how far interpolation between measured sizes may be off, size by size, as a share of the engine's step.

Along each line of sizes an inner point that is left out is interpolated from its neighbours, in the logarithm of time
over the logarithm of size. The error at a midpoint of half that span is a quarter of it where the curve is smooth
(linear interpolation errs with the square of the gap), and the interval is twice as wide as its half. An operator's
doubt counts by its share of the time that all operators of its axis take at that size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import polars as pl

Axis = Literal["tokens", "sequences", "decode", "prefill"]
AXES: tuple[Axis, ...] = get_args(Axis)
Size = tuple[int, int]

_KINDS: dict[str, Axis] = {
    "attention_decode": "decode", "mla_decode": "decode", "block_decode": "decode", "attention_prefill": "prefill",
    "mla_prefill": "prefill", "block_prefill": "prefill", "lm_head": "sequences", "sampling": "sequences",
}  # fmt: skip
#: Half-width at the midpoint beside an error of the point that was left out.
_AT_MIDPOINT = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """A size that was not measured."""

    width: float
    """Logarithmic width of the axis's share of a step there."""
    seconds: float
    """What all operators of the axis take there."""


def axis_of(kind: str) -> Axis:
    """Which sizes an operator of a kind is measured at."""
    return _KINDS.get(kind, "tokens")


def doubts(points: pl.DataFrame) -> dict[tuple[Axis, Size], Doubt]:
    """Midpoints between measured sizes, with what is not known of them; none along lines of fewer than 3 points.

    Args:
        points: of a fingerprint, by `catalog.fingerprints.POINTS_SCHEMA`; overheads have no sizes and are passed over.
    """
    found: dict[tuple[Axis, Size], list[tuple[float, float]]] = {}
    sized = points.filter(~pl.col("kind").is_in(["overhead"]) & (pl.col("time_s") > 0))
    for (_, kind), rows in sized.group_by("op", "kind", maintain_order=True):
        count = int(rows["count"][0])
        for size, width, time_s in _midpoints(rows, two=axis_of(str(kind)) in ("decode", "prefill")):
            found.setdefault((axis_of(str(kind)), size), []).append((width, count * time_s))
    return {
        key: Doubt(
            width=sum(width * seconds for width, seconds in parts) / sum(seconds for _, seconds in parts),
            seconds=sum(seconds for _, seconds in parts),
        )
        for key, parts in sorted(found.items())
    }


def _midpoints(rows: pl.DataFrame, *, two: bool) -> Iterator[tuple[Size, float, float]]:
    """(size, logarithmic width, seconds) of every midpoint of every line."""
    for y, line in _lines(rows, "x", "y"):
        yield from (((size, y), width, time_s) for size, width, time_s in _along(line))
    for x, line in _lines(rows, "y", "x") if two else ():
        yield from (((x, size), width, time_s) for size, width, time_s in _along(line))


def _lines(rows: pl.DataFrame, along: str, fixed: str) -> Iterator[tuple[int, list[tuple[float, float]]]]:
    """(fixed size, [(size, time)]) of every line that has an inner point."""
    for (value,), line in rows.group_by(fixed, maintain_order=True):
        measured = sorted({float(at): float(time_s) for at, time_s in line.select(along, "time_s").rows()}.items())
        if len(measured) >= 3:
            yield int(float(str(value))), measured


def _along(line: list[tuple[float, float]]) -> Iterator[tuple[int, float, float]]:
    logs = [(math.log1p(at), math.log(time_s)) for at, time_s in line]
    errors = [abs(_between(logs[i - 1], logs[i + 1], logs[i][0]) - logs[i][1]) for i in range(1, len(logs) - 1)]
    errors = [errors[0], *errors, errors[-1]]
    for i, (left, right) in enumerate(pairwise(logs)):
        size = round(math.expm1((left[0] + right[0]) / 2))
        if line[i][0] < size < line[i + 1][0]:
            width = 2 * _AT_MIDPOINT * max(errors[i], errors[i + 1])
            yield size, width, math.exp(_between(left, right, math.log1p(size)))


def _between(left: tuple[float, float], right: tuple[float, float], at: float) -> float:
    return left[1] + (right[1] - left[1]) * (at - left[0]) / (right[0] - left[0])
