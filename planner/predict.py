"""Step time of one engine from a `Predictor`'s tables: compiled kernels for the simulator, arrays for everyone else.

    step_s = overhead + token_s(m) + sequence_s(n) + decode_s(n_dec, mean context) + Σ prefill_s(chunk, prior)

`catalog.predictors` names the terms. Two conventions settle the edges. A row of one token reads like a decode, whatever
it computes (vLLM: `max_query_len == 1` replays the full CUDA graph), so `n_dec` counts rows of one token, and a chunk
has at least two. The context of a row is what its attention reads: the tokens before it and itself.

`pack` makes contiguous `Tables`; `tabulate` adds what a simulator looks up millions of times, so that a step costs a
few loads: `token_s` and `sequence_s` at every integer, and for every batch size its row of `decode_s`.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar, cast

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from catalog.errors import BadInput
from catalog.predictors import Predictor

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


_CODES: dict[str, int] = {}


Function = TypeVar("Function", bound=Callable[..., Any])


def _compile(function: Function, **options: object) -> Function:
    """Numba's njit without counted references (7x faster: kernels allocate nothing), where it knows the option."""
    njit: Any = numba.njit
    try:
        return cast("Function", njit(function, error_model="numpy", _nrt=False, **options))
    except (KeyError, TypeError):
        return cast("Function", njit(function, error_model="numpy", **options))


def kernel(function: Function) -> Function:
    """Compile a helper of compiled functions, without a way in from C."""
    _enter(function)
    return _compile(function, no_cfunc_wrapper=True)


def shared(function: Function) -> Function:
    """Compile a helper that Python calls as well."""
    _enter(function)
    return _compile(function)


def _enter(function: Callable[..., Any]) -> None:
    """Add a kernel's code and the constants that it freezes to its module's digest."""
    code, known = function.__code__, function.__globals__
    frozen = [(name, known[name]) for name in code.co_names if isinstance(known.get(name), (int, float))]
    text = repr((code.co_name, code.co_code, code.co_consts, code.co_names, frozen))
    _CODES[function.__module__] = zlib.crc32(text.encode(), _CODES.get(function.__module__, 0))


def entry(function: Function) -> Function:
    """Compile what Python calls, cached on disk where numba finds a writable place and in memory elsewhere.

    numba's cache notices changes of the function's own file alone. So every entry takes the `stamp` of the modules
    whose kernels it calls: an array without elements whose *type* carries their digest, and the type is in the key.
    """
    try:
        return _compile(function, cache=True)
    except RuntimeError:  # "no locator available": nothing is writable
        return _compile(function)


def stamp(*modules: str) -> NDArray[np.void]:
    """Digest of the kernels of `modules` as the type of an empty array: the first argument of every `entry`."""
    digest = zlib.crc32(repr([(name, _CODES[name]) for name in modules]).encode())
    return np.empty(0, dtype=[(f"v{digest:08x}", np.uint8)])


class Tables(NamedTuple):
    """A predictor's tables as contiguous float64 arrays that no lookup leaves below zero."""

    tokens: Floats
    token_s: Floats
    sequences: Floats
    sequence_s: Floats
    batch: Floats
    context: Floats
    decode_s: Floats  # (batch, context)
    chunk: Floats
    prior: Floats
    prefill_s: Floats  # (chunk, prior)
    decode_overhead_s: float
    mixed_overhead_s: float


class Steps(NamedTuple):
    """`Tables` made ready for one engine: what depends on an integer alone is looked up by it."""

    token_at: Floats  # (max_num_batched_tokens + 1,) token_s(m)
    sequence_at: Floats  # (max_num_seqs + 1,) sequence_s(n)
    cell: Integers  # (max_num_seqs + 1,) cell of the batch axis that holds n
    weight: Floats  # (max_num_seqs + 1,) where in that cell, 0..1 (beyond the grid: outside)
    context: Floats
    decode_s: Floats
    chunk: Floats
    prior: Floats
    prefill_s: Floats
    decode_overhead_s: float
    mixed_overhead_s: float


@lru_cache(maxsize=512)
def pack(predictor: Predictor) -> Tables:
    """Check tables and make them contiguous. Raises BadInput for an axis that does not ascend, NaN, time < 0."""
    tokens, token_s = _cover("tokens", predictor.tokens, predictor.token_s, 1.0)
    sequences, sequence_s = _cover("sequences", predictor.sequences, predictor.sequence_s, 0.0)
    context, by_context = _cover("decode_context", predictor.decode_context, np.asarray(predictor.decode_s).T, 1.0)
    batch, decode_s = _cover("decode_batch", predictor.decode_batch, by_context.T, 1.0)
    prior, by_prior = _cover("prior", predictor.prior, np.asarray(predictor.prefill_s).T, 0.0)
    chunk, prefill_s = _cover("chunk", predictor.chunk, by_prior.T, 1.0)
    overheads = (float(predictor.decode_overhead_s), float(predictor.mixed_overhead_s))
    if not all(math.isfinite(overhead) and overhead >= 0 for overhead in overheads):
        what = f"overheads {overheads!r} of a predictor are not finite and >= 0"
        raise BadInput(what, mend="fit the predictor again")
    flat = np.ascontiguousarray
    return Tables(
        tokens=flat(tokens), token_s=flat(token_s), sequences=flat(sequences), sequence_s=flat(sequence_s),
        batch=flat(batch), context=flat(context), decode_s=flat(decode_s), chunk=flat(chunk), prior=flat(prior),
        prefill_s=flat(prefill_s), decode_overhead_s=overheads[0], mixed_overhead_s=overheads[1],
    )  # fmt: skip


def _cover(name: str, axis: ArrayLike, values: ArrayLike, lowest: float) -> tuple[Floats, Floats]:
    """Add the points without which the first or last slope, continued, would lead below zero.

    `values` has the axis first. A last cell that falls is continued flat: a longer context never costs less than
    the longest measured one.
    """
    grid, table = np.asarray(axis, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if grid.ndim != 1 or len(grid) == 0 or len(grid) != len(table):
        what = f"axis {name!r} of a predictor has shape {grid.shape} for a table of shape {table.shape}"
        raise BadInput(what, mend="give one table entry per grid point")
    if not (
        np.all(np.isfinite(grid)) and np.all(np.diff(grid) > 0) and np.all(np.isfinite(table)) and table.min() >= 0
    ):
        what = f"axis {name!r} of a predictor does not ascend, or its table holds NaN, infinity or a negative time"
        raise BadInput(what, mend="fit the predictor again")
    if len(grid) == 1:
        grid, table = np.append(grid, grid + 1.0), np.concatenate([table, table])
    start = table[0] - (table[1] - table[0]) / (grid[1] - grid[0]) * (grid[0] - lowest)
    if grid[0] > lowest and np.any(start < 0):
        grid, table = np.insert(grid, 0, lowest), np.concatenate([np.maximum(start, 0.0)[None], table])
    if np.any(table[-1] < table[-2]):
        grid, table = (
            np.append(grid, 2.0 * grid[-1] + 1.0),
            np.concatenate([table, np.maximum(table[-1], _onward(grid, table))[None]]),
        )
    return grid, table


def _onward(grid: Floats, table: Floats) -> Floats:
    """The last slope continued to the point that `_cover` appends."""
    reach = (2.0 * grid[-1] + 1.0 - grid[-1]) / (grid[-1] - grid[-2])
    return np.asarray(table[-1] + (table[-1] - table[-2]) * reach)


@shared
def find_cell(x: float, axis: Floats) -> int:
    """Index of the grid cell that holds `x`; the first or last one outside of the grid."""
    low, high = 0, len(axis) - 1
    while high - low > 1:
        middle = (low + high) >> 1
        if axis[middle] <= x:
            low = middle
        else:
            high = middle
    return low


@shared
def along(x: float, axis: Floats, values: Floats) -> float:
    """Piecewise linear in one axis, the outer slopes continued."""
    i = find_cell(x, axis)
    return float(values[i] + (values[i + 1] - values[i]) * (x - axis[i]) / (axis[i + 1] - axis[i]))


@shared
def across(x: float, y: float, rows: Floats, columns: Floats, values: Floats) -> float:
    """Piecewise bilinear in two axes, the outer slopes continued."""
    i, j = find_cell(x, rows), find_cell(y, columns)
    u, v = (x - rows[i]) / (rows[i + 1] - rows[i]), (y - columns[j]) / (columns[j + 1] - columns[j])
    low = values[i, j] + (values[i, j + 1] - values[i, j]) * v
    return float(low + (values[i + 1, j] + (values[i + 1, j + 1] - values[i + 1, j]) * v - low) * u)


@shared
def decode_s(tables: Tables, n: float, mean_context: float) -> float:
    """Attention of `n` rows of one token at a mean context of `mean_context` tokens, all layers, seconds."""
    if n <= 0:
        return 0.0
    return max(0.0, across(n, mean_context, tables.batch, tables.context, tables.decode_s))


@shared
def prefill_s(tables: Tables, chunk: float, prior: float) -> float:
    """Attention of one chunk of `chunk` tokens after `prior` tokens, all layers, seconds."""
    return max(0.0, across(chunk, prior, tables.chunk, tables.prior, tables.prefill_s))


@shared
def step_s(  # noqa: PLR0913, PLR0917 - a kernel
    tables: Tables,
    m: float,
    n_sample: float,
    n_dec: float,
    ctx_sum: float,
    prefill_sum: float,
    has_prefill: bool,  # noqa: FBT001 - keywords
) -> float:
    """One engine step, seconds.

    `m` tokens; `n_sample` sequences sample one; `n_dec` rows of one token read `ctx_sum` tokens together; chunks take
    `prefill_sum` seconds of attention.
    """
    overhead = tables.mixed_overhead_s if has_prefill else tables.decode_overhead_s
    fixed = overhead + along(m, tables.tokens, tables.token_s) + along(n_sample, tables.sequences, tables.sequence_s)
    if n_dec > 0:
        fixed += decode_s(tables, n_dec, ctx_sum / n_dec)
    return fixed + prefill_sum


@entry
def _tabulate(_stamp: NDArray[np.void], tables: Tables, steps: Steps) -> None:
    for m in range(len(steps.token_at)):
        steps.token_at[m] = along(float(max(m, 1)), tables.tokens, tables.token_s)
    for n in range(len(steps.sequence_at)):
        steps.sequence_at[n] = max(0.0, along(float(n), tables.sequences, tables.sequence_s))
        i = find_cell(float(max(n, 1)), tables.batch)
        steps.cell[n] = i
        steps.weight[n] = (max(n, 1) - tables.batch[i]) / (tables.batch[i + 1] - tables.batch[i])


def tabulate(
    predictor: Predictor | Tables, *, max_num_seqs: int, max_num_batched_tokens: int, overlap: float = 0.0
) -> Steps:
    """Make a predictor ready for a simulator; `overlap` is the share of the step overhead that hides behind the GPU."""
    tables = predictor if isinstance(predictor, Tables) else pack(predictor)
    shown, n = 1.0 - overlap, max_num_seqs + 1
    steps = Steps(
        np.empty(max_num_batched_tokens + 1), np.empty(n), np.empty(n, np.int64), np.empty(n), tables.context,
        tables.decode_s, tables.chunk, tables.prior, tables.prefill_s, tables.decode_overhead_s * shown,
        tables.mixed_overhead_s * shown,
    )  # fmt: skip
    _tabulate(STAMP, tables, steps)
    return steps


@entry
def _step_times(  # noqa: PLR0913, PLR0917 - a kernel
    _stamp: NDArray[np.void],
    tables: Tables,
    decodes: Floats,
    context: Floats,
    chunks: Floats,
    chunk: Floats,
    prior: Floats,
    samples: Floats,
    out: Floats,
) -> None:
    for i in range(len(out)):
        ones = chunks[i] if chunk[i] == 1 else 0.0  # a chunk of one token reads like a decode
        several = chunks[i] - ones
        rows = decodes[i] + ones
        read = decodes[i] * context[i] + ones * (prior[i] + 1.0)
        attention = several * prefill_s(tables, chunk[i], prior[i]) if several > 0 else 0.0
        out[i] = step_s(tables, decodes[i] + chunks[i] * chunk[i], samples[i], rows, read, attention, several > 0)


def step_time(  # noqa: PLR0913 - keywords
    predictor: Predictor | Tables,
    *,
    decodes: ArrayLike = 0,
    context: ArrayLike = 0,
    chunks: ArrayLike = 0,
    chunk: ArrayLike = 0,
    prior: ArrayLike = 0,
    samples: ArrayLike | None = None,
) -> Floats:
    """Step times in seconds, arguments broadcast like numpy's; about 10 million a second on one core.

    Args:
        predictor: a predictor, or its `pack`ed tables.
        decodes: decoding sequences in the step.
        context: mean tokens that each of them attends to, itself included.
        chunks: prefill chunks in the step.
        chunk: tokens of each chunk.
        prior: tokens of each chunk's sequence before it.
        samples: sequences that sample a token; by default all decodes and all chunks.
    """
    tables = predictor if isinstance(predictor, Tables) else pack(predictor)
    ended = np.add(decodes, chunks) if samples is None else samples
    given = np.broadcast_arrays(*(np.asarray(x, np.float64) for x in (decodes, context, chunks, chunk, prior, ended)))
    out = np.empty(given[0].size)
    decodes, context, chunks, chunk, prior, ended = (np.ascontiguousarray(x).ravel() for x in given)
    _step_times(STAMP, tables, decodes, context, chunks, chunk, prior, ended, out)
    return out.reshape(given[0].shape)


STAMP = stamp("planner.predict")
