"""Laws of operators and fingerprints."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.fingerprints import SOURCES, Op, Source, weakest


@given(st.lists(st.sampled_from(SOURCES), min_size=1))
def test_the_weakest_source_wins(sources: list[Source]) -> None:
    """A number combined from several is as strong as the weakest, in whatever order they come."""
    assert weakest(*sources) == weakest(*reversed(sources)) == weakest(*sources, weakest(*sources))
    assert all(SOURCES.index(weakest(*sources)) >= SOURCES.index(source) for source in sources)


def test_a_roofline_taints_a_measurement() -> None:
    """Measured with roofline is roofline; measured with reference is reference."""
    assert weakest("measured", "roofline") == "roofline"
    assert weakest("reference", "measured") == "reference"


@pytest.mark.parametrize(("key", "size"), [("n", 6144), ("k", 4096), ("absent", 0)])
def test_an_operator_tells_its_sizes(key: str, size: int) -> None:
    """A size is read from the shape; one that is not there is 0."""
    op = Op(name="qkv_proj", kind="gemm", count=32, dtype="bf16", shape=(("n", 6144), ("k", 4096)))
    assert size == op.size(key)
