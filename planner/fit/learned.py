"""`Learned`: the constants of fitted.yaml by their physical meaning, for one class of engines.

Few numbers, each bounded: what a step costs beside its kernels (launches, scheduler, sampling, hand-over), what the
front end adds to a request, how much slower a kernel runs inside a model than alone, which share of its roofline an
operator reaches that no table knows, and how wide the intervals are by what the times rest on.
`python -m benchmarks refit` writes them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from catalog.errors import BadInput
from catalog.fingerprints import SOURCES, OpKind, Source
from catalog.fitted import Constants
from planner.fit.terms import TERMS, Term

#: Generations of the engine that differ in what a step costs: v0 schedules, samples and detokenizes between steps;
#: v1 overlaps them in part (vLLM 0.8 on); `async` schedules the next step while one runs (default from 0.14 on).
EngineClass = Literal["v0", "v1", "async"]

#: Families of models and formats that the calibration runs of today's engine do not hold.
FAMILIES = ("moe", "mla", "four_bit")

#: Greatest value that each number may take: beyond it the fit has gone wrong.
_BOUNDS = {"step_s": 0.05, "layer_s": 1e-4, "mixed_step_s": 0.05, "mixed_layer_s": 1e-3, "sequence_s": 1e-3,
           "filtered_sequence_s": 1e-3, "request_s": 1.0, "output_token_s": 0.01}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What the step-time model learned from measured runs; seconds."""

    step_s: float
    """Any step: scheduler, input preparation, launch, sampling, hand-over of tokens."""
    layer_s: float
    """Per block: gaps between kernels of a replayed CUDA graph."""
    mixed_step_s: float
    """More of it in a step that carries prefill (no full CUDA graph)."""
    mixed_layer_s: float
    """Per block in a step that carries prefill: attention is launched by the CPU."""
    sequence_s: float
    """Per running sequence of a step: block tables, output processing."""
    filtered_sequence_s: float
    """Per running sequence whose sampler filters by top-k or top-p: a sort of the vocabulary."""
    request_s: float
    """Per request before its first step: tokenizer, front end."""
    output_token_s: float
    """Per output token outside the engine's step."""
    in_situ: dict[Term, float]
    """Term (see `planner.fit.terms`) -> time inside a running model over time alone."""
    efficiency: dict[OpKind, float]
    """Operator kind -> share of its roofline where no table knows it."""
    kernel_floor_s: float
    """Least time of a kernel that no table knows."""
    decode: dict[Source, tuple[float, float]]
    """Source of the dominant kernels -> (low, high) multipliers of a decode step, 90 %."""
    prefill: dict[Source, tuple[float, float]]
    """The same of a step with prefill."""
    ttft: dict[Source, tuple[float, float]]
    """The same of a measured TTFT."""
    unseen: dict[str, float]
    """Logarithmic half-width that a family adds which no calibration run holds: moe, mla, four_bit."""


def learned(constants: Constants, engine: EngineClass) -> Learned:
    """Read the constants for one class of engines. Raises BadInput for one outside its physical bounds."""
    numbers = {name: constants.number(f"dispatch.{engine}.{name}", 0.0) for name in _BOUNDS}
    for name, value in numbers.items():
        if not 0.0 <= value <= _BOUNDS[name]:
            what = f"dispatch.{engine}.{name} is {value!r}, outside 0 to {_BOUNDS[name]} s"
            raise BadInput(what, place=constants.source, mend="refit the constants: python -m benchmarks refit")
    kinds: tuple[OpKind, ...] = get_args(OpKind)
    return Learned(
        **numbers,
        in_situ={term: constants.number(f"in_situ.{engine}.{term}", 1.0) for term in TERMS},
        efficiency={kind: constants.number(f"efficiency.{kind}", 0.5) for kind in kinds},
        kernel_floor_s=constants.number("kernel_floor_s"),
        decode={source: _interval(constants, f"intervals.decode.{source}") for source in SOURCES},
        prefill={source: _interval(constants, f"intervals.prefill.{source}") for source in SOURCES},
        ttft={source: _interval(constants, f"intervals.ttft.{source}") for source in SOURCES},
        unseen={family: constants.number(f"intervals.unseen.{family}", 0.0) for family in FAMILIES},
    )


def engine_class(version: str | None) -> EngineClass:
    """Class of a vLLM version (`0.32.0`, `nightly-..`). One that is not stated schedules ahead, as the newest does."""
    numbers = re.search(r"(\d+)\.(\d+)", version or "")
    if numbers is None:
        return "async"
    release = (int(numbers[1]), int(numbers[2]))
    return "v0" if release < (0, 8) else "v1" if release < (0, 14) else "async"


def _interval(constants: Constants, name: str) -> tuple[float, float]:
    return constants.number(f"{name}.low"), constants.number(f"{name}.high")
