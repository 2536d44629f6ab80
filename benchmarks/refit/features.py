"""A condition as a matrix: seconds per term of the step-time model in every segment of its schedule.

step = Σ_term factor·kernel_s + launch_s + τ_step (+ τ_sync) + layers·τ_layer + n·τ_seq
       + mixed·(τ_mixed + layers·τ_mixed_layer)

so that every trial of the constants is a product of matrices.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.refit.conditions import Condition
from catalog.fingerprints import FingerprintKey, Op, Source
from catalog.fitted import load_constants
from catalog.gpus import GPU, load_gpus
from planner.fit.learned import learned
from planner.fit.measured import Measured, read, times
from planner.fit.terms import TERMS, parts
from planner.ops import ops
from planner.roofline import op_time
from planner.strategies import Configuration
from probes.reference import ReferenceRunner

Floats = NDArray[np.float64]

DISPATCH = ("step_s", "sync_s", "layer_s", "mixed_step_s", "mixed_layer_s", "sequence_s")
#: Columns of a condition's matrix: in-situ terms, launches of prefill attention, dispatch, sampling with filters.
COLUMNS: tuple[str, ...] = (*TERMS, "launch", *DISPATCH, "filtered_sequence_s")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Laid:
    """A condition with its matrix (segments, COLUMNS) and the indices that its metrics need."""

    condition: Condition
    seconds: Floats
    sent: NDArray[np.int64]
    first: NDArray[np.int64]
    done: NDArray[np.int64]
    outputs: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Steps:
    """The segments of a schedule as arrays."""

    repeats: Floats
    decodes: Floats
    context: Floats
    tokens: Floats
    sequences: Floats
    mixed: Floats
    chunk: Floats
    prior: Floats
    chunk_of: NDArray[np.int64]


class Layout:
    """Lays conditions out, with the kernel tables and data sheets read once.

    `knowledge` takes some away, to see what its absence costs: `transferred` hides a GPU's own tables, `roofline` all.
    """

    def __init__(self, knowledge: Source = "reference") -> None:
        self._knowledge = knowledge
        self._gpus = load_gpus()
        self._runner = ReferenceRunner(bound=op_time, gpus=self._gpus)
        constants = learned(load_constants(), "v1")
        self._neutral = replace(constants, in_situ=dict.fromkeys(TERMS, 1.0))

    def lay(self, condition: Condition) -> Laid:
        """Time every segment of the condition's schedule, by term."""
        gpu = self._gpus[condition.gpu]
        configuration = Configuration(model=condition.model.name, gpu=gpu.name, tp=condition.tp,
                                      quantization=condition.quantization)  # fmt: skip
        found = ops(condition.model, configuration)
        key = FingerprintKey(model=condition.model.name, model_digest=condition.model.digest, gpu=gpu.name,
                             tp=condition.tp, quantization=condition.quantization, kv_dtype="bf16",
                             engine_version="tables", runner="reference")  # fmt: skip
        known = replace_tables(gpu) if self._knowledge == "transferred" else gpu
        measured = () if self._knowledge == "roofline" else read(self._runner.run(key, found, gpu=known))
        steps = _steps(condition)
        seconds = np.zeros((steps.repeats.size, len(COLUMNS)))
        for op in found:
            self._add(seconds, op, gpu, measured, steps)
        for name, value in zip(DISPATCH, _dispatch(condition, steps), strict=True):
            seconds[:, COLUMNS.index(name)] = value
        seconds[:, COLUMNS.index("filtered_sequence_s")] = steps.sequences * condition.filtered
        seconds *= steps.repeats[:, None]
        requests = condition.schedule.requests
        sent, first, done = (
            np.array([getattr(r, name) for r in requests], dtype=int) for name in ("sent", "first", "done")
        )
        return Laid(condition=condition, seconds=seconds, sent=sent, first=first, done=done,
                    outputs=np.array([r.output for r in requests], dtype=float))  # fmt: skip

    def _add(self, seconds: Floats, op: Op, gpu: GPU, measured: tuple[Measured, ...], steps: _Steps) -> None:
        x, y, where = _sizes(op, steps)
        if x.size == 0:
            return
        found = times(op, gpu, measured, x=x, y=y, learned=self._neutral)
        for term, part in parts(op, gpu, x, found.time_s).items():
            np.add.at(seconds[:, COLUMNS.index(term)], where, op.count * part)
        seconds[:, COLUMNS.index("launch")] += op.count * found.launch_s * steps.mixed


def replace_tables(gpu: GPU) -> GPU:
    """The same data sheet under a name without tables of its own."""
    return gpu.model_copy(update={"tables": None, "name": f"{gpu.name}-unmeasured"})


def predict(laid: Laid, theta: Floats, request_s: float) -> tuple[float | None, float | None, float]:
    """(mean TTFT, mean TPOT, whole time) under constants `theta`, in the order of COLUMNS."""
    clock = np.concatenate([[0.0], np.cumsum(laid.seconds @ theta)])
    if laid.sent.size == 0:
        return None, float(clock[-1]), float(clock[-1])
    ttft = request_s + float(np.mean(clock[laid.first] - clock[laid.sent]))
    tpot = float(np.mean((clock[laid.done] - clock[laid.first]) / np.maximum(laid.outputs - 1, 1)))
    return ttft, tpot, float(clock[-1])


def _steps(condition: Condition) -> _Steps:
    segments = condition.schedule.segments
    prefill = np.array([sum(tokens for tokens, _ in s.chunks) for s in segments], dtype=float)
    decodes = np.array([s.decodes for s in segments], dtype=float)
    chunks = list(itertools.chain.from_iterable(s.chunks for s in segments))
    return _Steps(
        repeats=np.array([s.steps for s in segments], dtype=float),
        decodes=decodes,
        context=np.array([max(1.0, s.context) for s in segments]),
        tokens=decodes + prefill,
        sequences=decodes + np.array([len(s.chunks) for s in segments]),
        mixed=(prefill > 0).astype(float),
        chunk=np.array([tokens for tokens, _ in chunks], dtype=float),
        prior=np.array([before for _, before in chunks], dtype=float),
        chunk_of=np.repeat(np.arange(len(segments)), [len(s.chunks) for s in segments]),
    )


def _sizes(op: Op, steps: _Steps) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """(x, y, segment) of every execution of the operator."""
    every = np.arange(steps.repeats.size)
    match op.kind:
        case "attention_decode" | "mla_decode":
            where = every[steps.decodes > 0]
            return steps.decodes[where], steps.context[where], where
        case "attention_prefill" | "mla_prefill":
            return steps.chunk, steps.prior, steps.chunk_of
        case "lm_head" | "sampling":
            return steps.sequences, np.zeros_like(steps.sequences), every
        case _:
            return steps.tokens, np.zeros_like(steps.tokens), every


def _dispatch(condition: Condition, steps: _Steps) -> tuple[Floats, ...]:
    layers = float(condition.model.num_layers)
    one = np.ones_like(steps.repeats)
    sync = one * (condition.engine == "v1")  # what an engine that schedules between steps adds to each
    return one, sync, layers * one, steps.mixed, layers * steps.mixed, steps.sequences
