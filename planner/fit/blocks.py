"""Fit from a running engine: a `Predictor` of whole blocks that were timed, instead of operators that are summed.

    t(x, y) = base(x, y) + Σ_k n_k · block_k(x, y)

for a step of decodes (x sequences at context y) and for a step that prefills one chunk (x tokens after y). The tables
of `catalog.predictors.Predictor` add what a mixed step is made of, so the times are split: all tokens of the step pay
token_s(m), the lesser of the two kinds of step at m tokens and the shortest context; what a decode pays beyond it is
decode_s, what a chunk pays beyond it prefill_s. Steps of one kind come out as they were measured; a mixed step is their
sum without paying the base twice.

Between measured sizes times are linear along each axis, and continue the last slope beyond them: a device without a
trusted roofline has no efficiency to interpolate.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from catalog.fingerprints import Fingerprint, OpKind
from catalog.predictors import Floats, Predictor
from planner.fit import grids
from planner.fit.learned import Learned
from planner.fit.measured import Measured, read
from planner.strategies import Configuration


def has_blocks(fingerprint: Fingerprint | None) -> bool:
    """Whether the fingerprint was taken from a running engine."""
    return fingerprint is not None and bool((fingerprint.points["kind"] == "block_decode").any())


def fit_blocks(fingerprint: Fingerprint, configuration: Configuration, constants: Learned) -> Predictor:
    """Fit one engine from `block_*` points; `overhead` points replace the constants."""
    measured = read(fingerprint)
    decode = _total(measured, "block_decode", grids.BATCH, grids.CONTEXT)
    prefill = _total(measured, "block_prefill", grids.CHUNK, grids.PRIOR)
    chunks = np.interp(grids.TOKENS, grids.CHUNK, prefill[:, 0])
    decodes = np.interp(grids.TOKENS, grids.BATCH, decode[:, 0], right=np.inf)
    token_s = np.maximum.accumulate(np.minimum(chunks, decodes))
    overhead = {entry.op.name: float(np.median(entry.time_s)) for entry in measured if entry.op.kind == "overhead"}
    step_s = overhead.get("step", 0.0)
    return Predictor(
        tokens=grids.TOKENS,
        token_s=token_s,
        sequences=grids.SEQUENCES,
        sequence_s=overhead.get("sequence", 0.0) * grids.SEQUENCES,
        decode_batch=grids.BATCH,
        decode_context=grids.CONTEXT,
        decode_s=_beyond(decode, token_s, grids.BATCH),
        chunk=grids.CHUNK,
        prior=grids.PRIOR,
        prefill_s=_beyond(prefill, token_s, grids.CHUNK),
        decode_overhead_s=step_s,
        mixed_overhead_s=step_s,
        request_s=overhead.get("request", constants.request_s),
        output_token_s=overhead.get("output_token", constants.output_token_s),
        engines=configuration.engines,
        decode_interval=constants.decode["measured"],
        prefill_interval=constants.prefill["measured"],
        ttft_interval=constants.ttft["measured"],
        source="measured",
        notes=(f"steps of a running engine: {fingerprint.provenance or fingerprint.key.runner}",),
    )


def _total(measured: Sequence[Measured], kind: OpKind, x: Floats, y: Floats) -> Floats:
    """Base and blocks of one kind of step on the grid (x, y), seconds, rising along both axes."""
    total = np.zeros((x.size, y.size))
    for entry in measured:
        if entry.op.kind == kind:
            total += entry.op.count * _on_grid(entry, x, y)
    return np.maximum.accumulate(np.maximum.accumulate(total, axis=0), axis=1)


def _on_grid(entry: Measured, x: Floats, y: Floats) -> Floats:
    rows, columns = np.unique(entry.x), np.unique(entry.y)
    table = np.full((rows.size, columns.size), np.nan)
    table[np.searchsorted(rows, entry.x), np.searchsorted(columns, entry.y)] = entry.time_s
    along_y = np.array([_line(columns[~np.isnan(row)], row[~np.isnan(row)], y) for row in table])
    return np.array([_line(rows, column, x) for column in along_y.T]).T


def _line(known: Floats, values: Floats, wanted: Floats) -> Floats:
    """Linear through the known points; the last slope, if it rises, goes on beyond them."""
    inside = np.interp(wanted, known, values)
    if known.size < 2:
        return inside
    slope = max(0.0, (values[-1] - values[-2]) / (known[-1] - known[-2]))
    return np.asarray(inside + slope * np.maximum(0.0, wanted - known[-1]))


def _beyond(table: Floats, token_s: Floats, sizes: Floats) -> Floats:
    return np.asarray(np.maximum(0.0, table - np.interp(sizes, grids.TOKENS, token_s)[:, None]))
