"""`fit`: a `Predictor` of one engine from its operators, what was measured of them, and the fitted constants.

    t_step = Σ t_op + Σ t_comm + layers·τ_layer + τ_step + sequences·τ_seq       (SCIENCE.md 2)

The sum is laid out in the four tables of `catalog.predictors.Predictor`: operators that see all tokens of a step, those
that see sampled sequences, attention of decodes, and attention of prefill chunks; dispatch is additive. Every table is
made to rise along its axes, and every operator is at least its roofline, so that the step is too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from catalog.fingerprints import SOURCES, Fingerprint, Op, Source
from catalog.fitted import Constants
from catalog.gpus import GPU
from catalog.models import Model
from catalog.predictors import Floats, Predictor
from planner.fit import grids
from planner.fit.blocks import fit_blocks, has_blocks
from planner.fit.learned import EngineClass, engine_class, learned
from planner.fit.measured import Known, Times, read, times
from planner.fit.sharing import dilated
from planner.ops import ops
from planner.roofline import op_time
from planner.strategies import Configuration

#: Vocabulary of the models on which the sort of filtered sampling was fitted (Qwen3).
_SORTED_VOCABULARY = 151_936
#: A source that carries less than this share of the time does not name the predictor's source.
_DOMINANT = 0.15


@dataclass(slots=True)
class _Tables:
    """Sums over operators, as they are collected."""

    token_s: Floats = field(default_factory=lambda: np.zeros(grids.TOKENS.size))
    sequence_s: Floats = field(default_factory=lambda: np.zeros(grids.SEQUENCES.size))
    decode_s: Floats = field(default_factory=lambda: np.zeros((grids.BATCH.size, grids.CONTEXT.size)))
    prefill_s: Floats = field(default_factory=lambda: np.zeros((grids.CHUNK.size, grids.PRIOR.size)))
    launch_s: float = 0.0
    decode_share: dict[Source, float] = field(default_factory=dict)
    prefill_share: dict[Source, float] = field(default_factory=dict)
    weak: dict[str, Source] = field(default_factory=dict)


def fit(  # noqa: PLR0913 - the stage's whole input, by name
    model: Model,
    gpu: GPU,
    configuration: Configuration,
    *,
    fingerprint: Fingerprint | None,
    gpus: Mapping[str, GPU],  # noqa: ARG001 - transfer between GPUs is the runner's; kept for callers that fit by name
    constants: Constants,
    engine: EngineClass = "async",
    filtered_sampling: bool = False,
    known: Known | None = None,
) -> Predictor:
    """Fit one engine. Operators without points take a like operator's efficiency, then the roofline's.

    An engine that shares its GPU is as slow as if its neighbours were always busy (`planner.fit.sharing`).

    `filtered_sampling`: requests sample by top-k or top-p, as many models' generation_config asks for when the client
    says nothing; the sampler then sorts the vocabulary for each sequence. Greedy and plain sampling do not.

    `known` remembers times of operators between fits with the same data sheets, constants and engine.
    """
    dispatch = learned(constants, engine)
    if fingerprint is not None and has_blocks(fingerprint):
        return dilated(fit_blocks(fingerprint, configuration, dispatch), configuration.engines_per_gpu)
    measured = () if fingerprint is None else read(fingerprint)
    find = partial(times, gpu=gpu, measured=measured, learned=dispatch, known=known)
    tables = _collect(ops(model, configuration), find)
    layers = model.num_layers
    decode_overhead_s = dispatch.step_s + layers * dispatch.layer_s
    mixed_overhead_s = decode_overhead_s + dispatch.mixed_step_s + layers * dispatch.mixed_layer_s + tables.launch_s
    sort_s = dispatch.filtered_sequence_s * model.vocab_size / _SORTED_VOCABULARY if filtered_sampling else 0.0
    per_sequence_s = dispatch.sequence_s + sort_s
    unseen = [dispatch.unseen[family] for family in _families(model, configuration)]
    shares = (tables.decode_share, tables.prefill_share)
    alone = Predictor(
        tokens=grids.TOKENS,
        token_s=np.maximum.accumulate(tables.token_s),
        sequences=grids.SEQUENCES,
        sequence_s=np.maximum.accumulate(tables.sequence_s + per_sequence_s * grids.SEQUENCES),
        decode_batch=grids.BATCH,
        decode_context=grids.CONTEXT,
        decode_s=_rising(tables.decode_s),
        chunk=grids.CHUNK,
        prior=grids.PRIOR,
        prefill_s=_rising(tables.prefill_s),
        decode_overhead_s=decode_overhead_s,
        mixed_overhead_s=mixed_overhead_s,
        request_s=dispatch.request_s,
        output_token_s=dispatch.output_token_s,
        engines=configuration.engines,
        decode_interval=_interval(tables.decode_share, dispatch.decode, unseen),
        prefill_interval=_interval(tables.prefill_share, dispatch.prefill, unseen),
        ttft_interval=_interval(tables.prefill_share, dispatch.ttft, unseen),
        source=max((_dominant(share) for share in shares), key=SOURCES.index),
        notes=_notes(tables, fingerprint),
    )
    return dilated(alone, configuration.engines_per_gpu)


def bound(model: Model, gpu: GPU, configuration: Configuration) -> Predictor:
    """The roofline of one engine as a predictor: every operator at its bound, nothing between them."""
    tables = _Tables()
    for op in ops(model, configuration):
        x, y = _grid(op)
        _add(tables, op, np.asarray(op_time(op, gpu, x, y)) * op.count)
    sure = (1.0, 1.0)
    return Predictor(
        tokens=grids.TOKENS, token_s=tables.token_s, sequences=grids.SEQUENCES, sequence_s=tables.sequence_s,
        decode_batch=grids.BATCH, decode_context=grids.CONTEXT, decode_s=tables.decode_s, chunk=grids.CHUNK,
        prior=grids.PRIOR, prefill_s=tables.prefill_s, decode_overhead_s=0.0, mixed_overhead_s=0.0, request_s=0.0,
        engines=configuration.engines, decode_interval=sure, prefill_interval=sure, source="roofline",
    )  # fmt: skip


def _collect(found: Iterable[Op], find: Callable[..., Times]) -> _Tables:
    """Sum operators whose times at sizes x, y `find` knows."""
    tables = _Tables()
    for op in found:
        x, y = _grid(op)
        one = find(op, x=x, y=y)
        time_s = one.time_s * op.count
        _add(tables, op, time_s)
        tables.launch_s += one.launch_s * op.count
        _account(tables, op, one.source, time_s)
    return tables


def _grid(op: Op) -> tuple[Floats, Floats]:
    match op.kind:
        case "attention_decode" | "mla_decode":
            return grids.BATCH[:, None], grids.CONTEXT[None, :]
        case "attention_prefill" | "mla_prefill":
            return grids.CHUNK[:, None], grids.PRIOR[None, :]
        case "lm_head" | "sampling":
            return grids.SEQUENCES, np.zeros(1)
        case _:
            return grids.TOKENS, np.zeros(1)


def _add(tables: _Tables, op: Op, time_s: Floats) -> None:
    match op.kind:
        case "attention_decode" | "mla_decode":
            tables.decode_s += time_s
        case "attention_prefill" | "mla_prefill":
            tables.prefill_s += time_s
        case "lm_head" | "sampling":
            tables.sequence_s += time_s
        case _:
            tables.token_s += time_s


#: Where shares of the time are read: a decode step of 32 sequences at 2048, a prefill of 2048 tokens.
_DECODE_AT = (int(np.searchsorted(grids.BATCH, 32)), int(np.searchsorted(grids.CONTEXT, 2048)))
_PREFILL_AT = (int(np.searchsorted(grids.CHUNK, 2048)), 0)
_FEW, _MANY = int(np.searchsorted(grids.TOKENS, 32)), int(np.searchsorted(grids.TOKENS, 2048))


def _account(tables: _Tables, op: Op, source: Source, time_s: Floats) -> None:
    match op.kind:
        case "attention_decode" | "mla_decode":
            decode, prefill = float(time_s[_DECODE_AT]), 0.0
        case "attention_prefill" | "mla_prefill":
            decode, prefill = 0.0, float(time_s[_PREFILL_AT])
        case "lm_head" | "sampling":
            decode, prefill = float(time_s[int(np.searchsorted(grids.SEQUENCES, 32))]), float(time_s[0])
        case _:
            decode, prefill = float(time_s[_FEW]), float(time_s[_MANY])
    for share, seconds in ((tables.decode_share, decode), (tables.prefill_share, prefill)):
        share[source] = share.get(source, 0.0) + seconds
    if source in ("transferred", "roofline"):
        tables.weak[op.name] = source


def _rising(table: Floats) -> Floats:
    """The least table above this one that rises along both axes."""
    return np.maximum.accumulate(np.maximum.accumulate(table, axis=0), axis=1)


def _dominant(share: dict[Source, float]) -> Source:
    total = sum(share.values())
    heavy = [source for source, seconds in share.items() if seconds >= _DOMINANT * total]
    return max(heavy, key=SOURCES.index)


def _families(model: Model, configuration: Configuration) -> list[str]:
    four_bit = configuration.quantization in ("int4", "mxfp4", "nvfp4")
    return ["moe"] * (model.moe is not None) + ["mla"] * (model.mla is not None) + ["four_bit"] * four_bit


def _interval(share: Mapping[Source, float], widths: Mapping[Source, tuple[float, float]],
              unseen: Sequence[float]) -> tuple[float, float]:  # fmt: skip
    """Interval of a sum whose parts have intervals: their logarithms weighted by the share of the time.

    What a family adds is independent of what the kernels' source adds: widths add in quadrature.
    """
    total = sum(share.values())
    ends = []
    for end in (0, 1):
        width = sum(seconds / total * np.log(widths[source][end]) for source, seconds in sorted(share.items()))
        wider = np.sqrt(width**2 + sum(extra**2 for extra in unseen))
        ends.append(float(np.exp(wider if end else -wider)))
    return ends[0], ends[1]


def _notes(tables: _Tables, fingerprint: Fingerprint | None) -> tuple[str, ...]:
    notes = [] if fingerprint is None else [f"kernel times: {fingerprint.provenance or fingerprint.key.runner}"]
    for source in ("transferred", "roofline"):
        names = sorted(name for name, weak in tables.weak.items() if weak == source)
        if names:
            notes.append(f"{source}: {', '.join(names)}")
    return tuple(notes)


__all__ = ["EngineClass", "bound", "engine_class", "fit"]
