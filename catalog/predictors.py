"""`Predictor`: step time of one engine as four tables, small enough for a compiled simulator.

    step_s = overhead + token_s(m) + sequence_s(n) + decode_s(n_dec, mean context) + Σ prefill_s(chunk, prior)

with m all tokens of the step, n the sequences that sample a token in it, n_dec the decoding sequences. The overhead
is `decode_overhead_s` in a step of decodes alone (one full CUDA graph) and `mixed_overhead_s` in one that carries a
prefill chunk. Tables are linear between grid points along each axis and continue the last cell's slope beyond it.
`planner.predict` evaluates them; `planner.fit` makes them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from catalog.fingerprints import Source

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predictor:
    """Step time of one engine of a replica. Seconds throughout.

    A replica of `engines` > 1 (pipeline stages or data-parallel ranks) keeps that many batches in flight: the tables
    then hold the latency of one engine's step with the others equally loaded, and each engine serves its share of the
    replica's requests with its own `max_num_seqs` and KV space.
    """

    tokens: Floats  # (nt,) ascending
    token_s: Floats  # (nt,)
    sequences: Floats  # (ns,)
    sequence_s: Floats  # (ns,)
    decode_batch: Floats  # (nb,)
    decode_context: Floats  # (nc,)
    decode_s: Floats  # (nb, nc)
    chunk: Floats  # (np,)
    prior: Floats  # (nq,)
    prefill_s: Floats  # (np, nq)
    decode_overhead_s: float
    mixed_overhead_s: float
    request_s: float
    """Once per request before its first step: tokenizer, front end, hand-over (adds to TTFT alone)."""
    output_token_s: float = 0.0
    """Per output token of one request outside the engine's step (detokenizer, stream), adds to TPOT."""
    engines: int = 1
    decode_interval: tuple[float, float]
    """(low, high) multipliers of the time of a decode step: its 90 % interval."""
    prefill_interval: tuple[float, float]
    """The same for a step that carries prefill."""
    ttft_interval: tuple[float, float] | None = None
    """The same for a measured TTFT as a whole, waits and front end included; None = `prefill_interval`."""
    source: Source
    """Weakest source among the tables' dominant parts."""
    notes: tuple[str, ...] = ()
    """What a reader should know: operators without a table, transferred shares, versions mixed."""

    def scaled(self, *, decode: float, prefill: float) -> Predictor:
        """The same engine with decode-step times multiplied by `decode` and prefill's own part by `prefill`.

        Used for the pessimistic and optimistic ends: `p.scaled(decode=p.decode_interval[1], ...)`.
        """
        return replace(
            self,
            token_s=self.token_s * decode,
            sequence_s=self.sequence_s * decode,
            decode_s=self.decode_s * decode,
            prefill_s=self.prefill_s * prefill,
            decode_overhead_s=self.decode_overhead_s * decode,
            mixed_overhead_s=self.mixed_overhead_s * prefill,
            request_s=self.request_s * prefill,
            decode_interval=(self.decode_interval[0] / decode, self.decode_interval[1] / decode),
            prefill_interval=(self.prefill_interval[0] / prefill, self.prefill_interval[1] / prefill),
            ttft_interval=(self.ttft_ends[0] / prefill, self.ttft_ends[1] / prefill),
        )

    @property
    def ttft_ends(self) -> tuple[float, float]:
        """(low, high) multipliers of TTFT."""
        return self.prefill_interval if self.ttft_interval is None else self.ttft_interval

    @property
    def pessimistic(self) -> Predictor:
        """The slow end of the interval."""
        return self.scaled(decode=self.decode_interval[1], prefill=self.prefill_interval[1])

    @property
    def optimistic(self) -> Predictor:
        """The fast end of the interval."""
        return self.scaled(decode=self.decode_interval[0], prefill=self.prefill_interval[0])
