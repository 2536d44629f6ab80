"""Step times: the tables' meaning, their edges, their speed."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_engines import linear

from catalog.errors import BadInput
from planner.predict import across, along, kernel, pack, stamp, step_s, step_time, tabulate

LINEAR = linear(a=5e-3, b=2e-5, c=4e-8, q=1e-9)


def reference(x: float, grid: np.ndarray, values: np.ndarray) -> float:
    """Linear between grid points, the outer cells' slopes continued."""
    i = int(np.clip(np.searchsorted(grid, x, side="right") - 1, 0, len(grid) - 2))
    return float(values[i] + (values[i + 1] - values[i]) * (x - grid[i]) / (grid[i + 1] - grid[i]))


grids = st.lists(st.integers(1, 5000), min_size=2, max_size=8, unique=True).map(lambda x: np.array(sorted(x), float))


@given(grids, st.floats(0, 20_000), st.integers(0, 99))
def test_a_table_is_linear_between_points_and_continues_its_slopes(grid: np.ndarray, x: float, seed: int) -> None:
    """One axis reads like the definition, inside the grid and on both sides of it."""
    values = np.sort(np.random.default_rng(seed).uniform(0, 1, len(grid)))
    assert along(x, grid, values) == pytest.approx(reference(x, grid, values), rel=1e-9, abs=1e-9)


@given(grids, grids, st.floats(0, 9000), st.floats(0, 9000), st.integers(0, 99))
def test_two_axes_are_read_one_after_the_other(
    rows: np.ndarray, columns: np.ndarray, x: float, y: float, seed: int
) -> None:
    """Bilinear: along the columns in each row, then along the rows, in whatever order."""
    values = np.random.default_rng(seed).uniform(0, 1, (len(rows), len(columns)))
    by_row = np.array([reference(y, columns, row) for row in values])
    assert across(x, y, rows, columns, values) == pytest.approx(reference(x, rows, by_row), rel=1e-7, abs=1e-7)


def test_a_linear_engine_by_hand() -> None:
    """8 decodes at 1,000 tokens and a chunk of 512 after 256: 5 + 0.02·520 + 4e-5·8000 + 1e-6·512·256 ms."""
    expected = 5e-3 + 2e-5 * 520 + 4e-8 * 8 * 1000 + 1e-9 * 512 * 256
    got = step_time(LINEAR, decodes=8, context=1000, chunks=1, chunk=512, prior=256)
    assert float(got) == pytest.approx(expected, rel=1e-12)


def test_a_chunk_of_one_token_reads_like_a_decode() -> None:
    """VLLM runs a batch in which every row has one token as decodes: no prefill attention, the decodes' overhead."""
    mixed = replace(LINEAR, mixed_overhead_s=1.0, prefill_s=np.ones((2, 2)))
    alone = step_time(mixed, chunks=1, chunk=1, prior=99)
    assert float(alone) == pytest.approx(float(step_time(mixed, decodes=1, context=100)), rel=1e-12)


def test_arguments_broadcast() -> None:
    """Arrays and numbers mix as numpy's do, and every entry is the step by itself."""
    decodes, context = np.array([[1], [64]]), np.array([10, 1000, 8000])
    both = step_time(LINEAR, decodes=decodes, context=context)
    assert both.shape == (2, 3)
    assert float(both[1, 2]) == float(step_time(LINEAR, decodes=64, context=8000))


@given(st.integers(1, 300), st.integers(1, 9000), st.integers(0, 40))
def test_more_work_is_never_faster(n: int, context: int, more: int) -> None:
    """More sequences, more context or more tokens never shorten a step of rising tables."""
    base = float(step_time(LINEAR, decodes=n, context=context))
    assert float(step_time(LINEAR, decodes=n + more, context=context)) >= base
    assert float(step_time(LINEAR, decodes=n, context=context + more)) >= base


def test_tabulated_steps_are_the_tables() -> None:
    """What a simulator looks up by integers is what the tables say there."""
    steps, tables = tabulate(LINEAR, max_num_seqs=64, max_num_batched_tokens=512, overlap=0.25), pack(LINEAR)
    assert [steps.token_at[m] for m in (1, 77, 512)] == [
        along(float(m), tables.tokens, tables.token_s) for m in (1, 77, 512)
    ]
    assert steps.decode_overhead_s == 0.75 * LINEAR.decode_overhead_s
    for n in (1, 33, 64):
        assert tables.batch[steps.cell[n]] <= n
        assert steps.weight[n] == pytest.approx(
            (n - tables.batch[steps.cell[n]]) / np.diff(tables.batch)[steps.cell[n]]
        )


def test_no_slope_leads_below_zero() -> None:
    """A table that would be continued below zero, before its first or after its last point, is held there."""
    steep = replace(
        LINEAR, tokens=np.array([64.0, 128.0]), token_s=np.array([1e-3, 5e-3]),
        decode_context=np.array([512.0, 1024.0]), decode_s=np.array([[2e-3, 1e-3], [2e-3, 1e-3]]),
    )  # fmt: skip
    few = step_time(steep, decodes=1, context=np.array([1, 1024, 10**6]))
    assert (few >= LINEAR.decode_overhead_s).all()
    assert float(few[2]) >= float(LINEAR.decode_overhead_s)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tokens": np.array([2.0, 1.0])}, "'tokens'"),
        ({"token_s": np.array([1.0, np.nan])}, "'tokens'"),
        ({"sequence_s": np.array([0.0, -1.0])}, "'sequences'"),
        ({"decode_batch": np.array([1.0, 2.0, 3.0])}, "'decode_batch'"),
        ({"mixed_overhead_s": float("inf")}, "overheads"),
    ],
)
def test_broken_tables_are_refused(changes: dict[str, object], said: str) -> None:
    """An axis that does not ascend, NaN, a negative time or a wrong shape is named."""
    with pytest.raises(BadInput, match=said):
        pack(replace(LINEAR, **changes))


def test_a_table_of_one_point_is_flat() -> None:
    """One grid point is a constant."""
    one = replace(LINEAR, tokens=np.array([64.0]), token_s=np.array([2e-3]))
    assert float(step_time(one, decodes=1)) == float(step_time(one, decodes=999)) - 998 * 0.0


def test_a_million_steps_take_less_than_a_second() -> None:
    """Vectorised step times are compiled: a million a second and more on one core."""
    n = np.arange(1_000_000) % 256 + 1
    step_time(LINEAR, decodes=n[:10], context=100)
    start = time.process_time()
    step_time(LINEAR, decodes=n, context=1000.0 + n, chunks=1, chunk=n, prior=n)
    assert time.process_time() - start < 1.0


def test_compiled_code_is_its_source() -> None:
    """A compiled kernel and the same function run by Python agree: no stale machine code."""
    tables = pack(LINEAR)
    asked = (tables, 520.0, 9.0, 8.0, 8000.0, 1e-4, True)
    assert step_s(*asked) == pytest.approx(step_s.py_func(*asked), rel=1e-14)


def test_a_changed_kernel_changes_the_stamp() -> None:
    """Entries are cached by the digest of the kernels that they call: another constant is another type."""
    before = stamp("planner.predict").dtype

    def changed(x: float) -> float:
        return x + 12345.0

    changed.__module__ = "planner.predict"
    kernel(changed)
    assert stamp("planner.predict").dtype != before
