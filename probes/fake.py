"""`FakeRunner`: a runner for tests and demonstrations: every bound divided by one efficiency."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from catalog.fingerprints import Fingerprint, FingerprintKey, Op
from catalog.gpus import GPU
from probes.runners import BATCH_GRID, CHUNK_GRID, CONTEXT_GRID, PRIOR_GRID, Bound, Floats, Timing, points

_SIZES = np.array([float(2**power) for power in range(15)])


class FakeRunner:
    """Times of exactly `bound / efficiency + launch_s`; operators named in `fails` have no measurement."""

    def __init__(self, *, bound: Bound, efficiency: float = 0.7, launch_s: float = 3e-6,
                 fails: Sequence[str] = ()) -> None:  # fmt: skip
        self._bound = bound
        self._efficiency = efficiency
        self._launch_s = launch_s
        self._fails = frozenset(fails)

    def run(self, key: FingerprintKey, ops: Sequence[Op], *, gpu: GPU) -> Fingerprint:
        """Time every operator that is not to fail."""
        timed = [(op, self._time(op, gpu)) for op in ops if op.name not in self._fails]
        failures = {op.name: "the fake was told to fail" for op in ops if op.name in self._fails}
        return Fingerprint(key=key, points=points(timed), failures=failures, provenance="fake")

    def _time(self, op: Op, gpu: GPU) -> Timing:
        x, y = _grid(op)
        time_s = self._launch_s + self._bound(op, gpu, x, y) / self._efficiency
        return Timing(x=x, y=y, time_s=time_s, source="measured")


def _grid(op: Op) -> tuple[Floats, Floats]:
    match op.kind:
        case "attention_decode" | "mla_decode":
            sizes = (BATCH_GRID, CONTEXT_GRID)
        case "attention_prefill" | "mla_prefill":
            sizes = (CHUNK_GRID, PRIOR_GRID)
        case _:
            return _SIZES, np.zeros_like(_SIZES)
    x, y = np.meshgrid(np.array(sizes[0], dtype=float), np.array(sizes[1], dtype=float), indexing="ij")
    return x.ravel(), y.ravel()
