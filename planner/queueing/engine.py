"""`Engine`: what queueing and simulation need to know of one vLLM engine, and `EngineRules` of its version."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from catalog.errors import BadInput
from catalog.predictors import Predictor


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRules:
    """How one vLLM version admits requests, and what its steps hide."""

    reserve_full_isl: bool = True
    """A waiting request is admitted when its whole prompt fits the free KV blocks, not only its first chunk."""
    watermark: float = 0.0
    """Share of the KV blocks that an admission leaves free while others run."""
    overlap: float = 0.0
    """Share of the step overhead that async scheduling hides behind the GPU. Zero where the predictor was fitted on
    an engine that already schedules ahead: its overhead is then what is left to see."""

    lookahead: int = 1
    """Steps that are scheduled when a request arrives at a busy engine, beside the one that runs: with async scheduling
    one, so the request's prompt waits for that one too (v1/engine/core.py, step_with_batch_queue); 0 without it."""

    def __post_init__(self) -> None:
        if not (0.0 <= self.watermark < 1.0 and 0.0 <= self.overlap <= 1.0 and self.lookahead in (0, 1)):
            what = (
                f"watermark {self.watermark!r}, overlap {self.overlap!r} or lookahead {self.lookahead!r} is impossible"
            )
            raise BadInput(what, mend="give shares from 0 to 1 and a lookahead of 0 or 1")


#: Of the version that fleetplan is tested with.
RULES = EngineRules()


def rules_for(vllm_version: str) -> EngineRules:
    """Rules of a vLLM version.

    `scheduler_reserve_full_isl` came as vllm-project/vllm#37307 (0.19, on by default); async scheduling is the default
    from 0.14 on.
    """
    match = re.match(r"(\d+)\.(\d+)", vllm_version)
    if match is None:
        what = f"{vllm_version!r} is no vLLM version"
        raise BadInput(what, mend="write it as '0.32.0'")
    release = (int(match[1]), int(match[2]))
    return EngineRules(reserve_full_isl=release >= (0, 19), lookahead=1 if release >= (0, 14) else 0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Engine:
    """One engine: its step times and its scheduler's limits, by vLLM's names.

    A replica runs `predictor.engines` of them (pipeline stages, data-parallel ranks), each with limits of its own.
    Raises BadInput for limits with which vLLM would not start.
    """

    predictor: Predictor
    kv_tokens: int
    """Tokens that its KV space holds."""
    block_size: int = 16
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    max_model_len: int = 8192
    schedules_ahead: bool = True
    """Whether it may schedule ahead where its version does (`Configuration.schedules_ahead`)."""
    kv_bytes_per_token: float | None = None
    """Bytes of one token's KV over all GPUs of the engine: what a transfer to a decode engine moves."""
    middle: Engine | None = None
    """Of an engine at its slow end whose TTFT has an interval of its own: the engine at the middle."""

    def __post_init__(self) -> None:
        for name in ("kv_tokens", "block_size", "max_num_seqs", "max_num_batched_tokens", "max_model_len"):
            if getattr(self, name) < 1:
                what = f"{name} of an engine is {getattr(self, name)!r}"
                raise BadInput(what, mend="give at least 1")
        if self.blocks * self.block_size < self.max_model_len:
            what = f"one request of max_model_len {self.max_model_len} does not fit KV space of {self.kv_tokens} tokens"
            raise BadInput(what, mend="lower max_model_len, or give the engine more memory")

    @property
    def blocks(self) -> int:
        """Whole KV blocks."""
        return self.kv_tokens // self.block_size

    @property
    def seqs(self) -> int:
        """Sequences that run at once: vLLM holds max_num_seqs to max_num_batched_tokens."""
        return min(self.max_num_seqs, self.max_num_batched_tokens)

    def ahead(self, rules: EngineRules) -> int:
        """Steps that are scheduled when a request arrives, beside the one that runs."""
        return rules.lookahead if self.schedules_ahead else 0

    def paced(self, predictor: Predictor) -> Engine:
        """The same engine at other step times."""
        return replace(self, predictor=predictor)

    def slowest(self, pessimistic: Predictor | None = None) -> Engine:
        """The engine at the slow end of its predictor's interval (`predictor.pessimistic`, if it is at hand).

        Steps are slow, and TTFT is at least the upper end of `ttft_interval` times the middle's, which stands beside.
        """
        whole = self.predictor.ttft_interval is not None
        return replace(self, predictor=pessimistic or self.predictor.pessimistic, middle=self if whole else None)
