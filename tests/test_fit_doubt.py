"""Laws of doubt: none where interpolation is exact, most where the curve bends, and it shrinks as points are added."""

from __future__ import annotations

import math

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.fingerprints import POINTS_SCHEMA
from planner.fit.doubt import axis_of, doubts


def measured(curve, sizes, *, op="qkv", kind="gemm", count=1) -> pl.DataFrame:
    """Points of one operator on a curve."""
    rows = [(op, kind, "bf16", "", count, float(x), float(y), curve(x, y), 0.0, "measured") for x, y in sizes]
    return pl.DataFrame(rows, schema=POINTS_SCHEMA, orient="row")


LINE = [(m, 0) for m in (1, 8, 64, 512, 4096)]


@given(st.floats(0.2, 1.5), st.floats(1e-6, 1e-2))
def test_a_power_law_leaves_no_doubt(exponent: float, scale: float) -> None:
    """What is straight in the logarithms is interpolated exactly."""
    found = doubts(measured(lambda x, _: scale * (1 + x) ** exponent, LINE))
    assert len(found) == 4
    assert all(doubt.width == pytest.approx(0.0, abs=1e-9) for doubt in found.values())


def roof(x: float, _: float) -> float:
    """Flat, then linear, with the knee at 256."""
    return max(1e-5, 1e-5 * x / 256)


def test_doubt_is_where_the_curve_bends() -> None:
    """Around the knee of a roof the doubt is greatest, and far from it there is none."""
    found = {size[0]: doubt.width for (_, size), doubt in doubts(measured(roof, LINE)).items()}
    assert max(found, key=found.__getitem__) in (23, 182)
    assert found[3] == pytest.approx(0.0, abs=1e-12)


def test_measuring_a_midpoint_narrows() -> None:
    """With the most doubtful midpoint measured, the greatest doubt is less."""
    before = doubts(measured(roof, LINE))
    worst = max(before, key=lambda key: before[key].width)
    after = doubts(measured(roof, [*LINE, worst[1]]))
    assert max(doubt.width for doubt in after.values()) < max(doubt.width for doubt in before.values())


def test_an_operator_counts_by_its_time() -> None:
    """A doubtful operator that takes a tenth of the time leaves about a tenth of its doubt."""
    alone = doubts(measured(roof, LINE))
    plain = measured(lambda x, y: 9 * roof(x, y), LINE, op="down").with_columns(time_s=9e-5)
    both = doubts(pl.concat([measured(roof, LINE), plain]))
    key = ("tokens", (23, 0))
    assert both[key].width == pytest.approx(alone[key].width / 10, rel=0.2)
    assert both[key].seconds == pytest.approx(alone[key].seconds + 9e-5)


def test_attention_is_doubted_along_both_sizes() -> None:
    """Decode attention bends along the batch and along the context; midpoints of both are offered."""
    grid = [(n, c) for n in (1, 8, 64) for c in (128, 1024, 8192)]
    found = doubts(measured(lambda n, c: 1e-6 * math.hypot(100, n * c / 1000), grid, kind="attention_decode"))
    assert {axis for axis, _ in found} == {"decode"}
    assert any(size[0] not in (1, 8, 64) for _, size in found)
    assert any(size[1] not in (128, 1024, 8192) for _, size in found)


def test_short_lines_and_overheads_are_passed_over() -> None:
    """Two points bend nowhere, and an overhead has no sizes."""
    assert doubts(measured(roof, LINE[:2])) == {}
    assert doubts(measured(roof, LINE, kind="overhead")) == {}
    assert axis_of("lm_head") == "sequences"
