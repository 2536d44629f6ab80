"""Which sizes are measured, and which one next."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.grid import COARSE, SMALL, next_point

SIZES = st.tuples(st.integers(1, 128), st.integers(0, 8192))


def test_within_keeps_what_the_engine_can_run():
    """No size exceeds the engine's limits, and every size that does not is kept."""
    small = COARSE.within(max_model_len=2048, max_tokens=2048, max_seqs=8)
    assert small.decode == ((1, 128), (1, 1024), (8, 128), (8, 1024))
    assert small.prefill == ((64, 0), (512, 0))
    assert max(small.tokens) == 2048
    assert small.sequences == (1, 8)


@pytest.mark.parametrize("grid", [COARSE, SMALL])
def test_the_decode_grid_spans_both_axes(grid):
    """Batch and context are each measured at two values at least, or nothing could be interpolated."""
    assert len({x for x, _ in grid.decode}) >= 2
    assert len({y for _, y in grid.decode}) >= 2
    assert len({x for x, _ in grid.prefill}) >= 2


def test_points_follow_the_kind():
    """Attention is measured over batch and context, the head over sequences, all else over tokens."""
    assert SMALL.points("attention_decode") == list(SMALL.decode)
    assert SMALL.points("block_prefill") == list(SMALL.prefill)
    assert SMALL.points("lm_head") == [(n, 0) for n in SMALL.sequences]
    assert SMALL.points("gemm") == [(m, 0) for m in SMALL.tokens]


def test_the_widest_interval_where_the_decision_hangs_comes_first():
    """Interval 0.4 at weight 0.5 for 1 s (0.2) beats 0.8 at 0.1 (0.08) and 0.9 at 0.9 for 10 s (0.081)."""
    chosen = next_point(
        [(1, 0), (2, 0), (3, 0)],
        interval={(1, 0): 0.4, (2, 0): 0.8, (3, 0): 0.9},
        weight={(1, 0): 0.5, (2, 0): 0.1, (3, 0): 0.9},
        seconds={(1, 0): 1.0, (2, 0): 1.0, (3, 0): 10.0},
    )
    assert chosen == (1, 0)


@given(st.lists(SIZES, max_size=5))
def test_nothing_is_measured_where_nothing_is_gained(sizes):
    """Where every interval is zero, or tonight's plan goes nowhere near, there is no next point."""
    assert next_point(sizes, interval={}, weight={}, seconds={}) is None


@given(st.lists(SIZES, min_size=1, max_size=6, unique=True), st.randoms())
def test_the_choice_does_not_depend_on_the_order(sizes, dice):
    """The same candidates in any order give the same next point."""
    values = {size: float(1 + i % 2) for i, size in enumerate(sizes)}
    shuffled = sizes.copy()
    dice.shuffle(shuffled)
    picked = [next_point(s, interval=values, weight=values, seconds=values) for s in (sizes, shuffled)]
    assert picked[0] == picked[1] is not None
