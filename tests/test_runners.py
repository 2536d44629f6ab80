"""The port of measurement: the layout of points, and what no measurement can be."""

from __future__ import annotations

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from catalog.fingerprints import POINTS_SCHEMA, Op
from probes.runners import Timing, points, refused, shape_text

NUMBERS = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True))


def test_points_lie_in_the_order_given():
    """Each operator's rows follow one another, with its name, shape and count on every row."""
    first = Op(name="qkv", kind="gemm", count=32, dtype="bf16", shape=(("n", 6144), ("k", 4096)))
    second = Op(name="lm_head", kind="lm_head", count=1, dtype="bf16", shape=(("k", 4096), ("n", 128256)))
    one = Timing(x=np.array([1.0, 2.0]), y=np.zeros(2), time_s=np.array([1e-5, 2e-5]), source="measured", spread=0.1)
    two = Timing(x=np.array([8.0]), y=np.zeros(1), time_s=np.array([3e-4]), source="reference")
    found = points([(first, one), (second, two)])
    assert found.schema == POINTS_SCHEMA
    assert found["op"].to_list() == ["qkv", "qkv", "lm_head"]
    assert found["shape"].to_list() == ["k=4096,n=6144", "k=4096,n=6144", "k=4096,n=128256"]
    assert found["count"].to_list() == [32, 32, 1]
    assert found["time_s"].to_list() == [1e-5, 2e-5, 3e-4]
    assert shape_text(first) == "k=4096,n=6144"


def test_no_timings_are_an_empty_table():
    """Nothing measured is a frame of the schema without rows."""
    assert points([]).schema == POINTS_SCHEMA
    assert points([]).height == 0


@given(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=20))
def test_every_row_is_kept_or_refused_with_a_reason(rows):
    """Kept rows are finite and positive; the refused ones are counted by reason, none is lost."""
    frame = pl.DataFrame(rows, schema={"x": pl.Float64, "y": pl.Float64, "time_s": pl.Float64}, orient="row")
    good, reasons = refused(frame)
    assert good.height + sum(reasons.values()) == frame.height
    kept = good.to_numpy()
    assert np.isfinite(kept).all()
    assert (kept[:, 0] > 0).all()
    assert (kept[:, 1] >= 0).all()
    assert ((kept[:, 2] > 0) & (kept[:, 2] <= 3600)).all()
