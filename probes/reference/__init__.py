"""`ReferenceRunner`: fingerprints composed from published kernel measurements, on a machine without a GPU.

A GPU that the tables do not hold borrows the efficiencies of the measured GPU of the same vendor that is nearest in
generation, and so does one whose tables lack an operator; what comes that way is marked `transferred`. Nothing is
borrowed across vendors: there the operator is listed in `failures`, and the fit falls to the roofline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from catalog.fingerprints import Fingerprint, FingerprintKey, Op
from catalog.gpus import GPU
from probes.reference import attention, mla, tables
from probes.reference.collectives import collective
from probes.reference.curves import scaled
from probes.reference.gemm import gemm, streaming
from probes.reference.moe import moe
from probes.runners import Bound, Timing, points

Family = Callable[[Op, GPU, Bound], Timing | str]

_FAMILIES: Mapping[str, Family] = {
    "gemm": gemm,
    "lm_head": gemm,
    "elementwise": streaming,
    "sampling": streaming,
    "moe": moe,
    "attention_prefill": attention.prefill,
    "attention_decode": attention.decode,
    "mla_prefill": mla.prefill,
    "mla_decode": mla.decode,
    "all_reduce": collective,
    "all_gather": collective,
    "reduce_scatter": collective,
    "all_to_all": collective,
}


class ReferenceRunner:
    """Composes fingerprints from the kernel tables; `gpus` are the data sheets, `bound` the roofline."""

    def __init__(self, *, bound: Bound, gpus: Mapping[str, GPU]) -> None:
        self._bound = bound
        self._gpus = {name: gpu for name, gpu in sorted(gpus.items()) if gpu.tables is not None}
        self._timed: dict[tuple[str, str, str, tuple[tuple[str, int], ...]], Timing | str] = {}

    def run(self, key: FingerprintKey, ops: Sequence[Op], *, gpu: GPU) -> Fingerprint:
        """Look each operator up in the tables; about 20 ms once the tables are read."""
        timed = [(op, self._time(op, gpu)) for op in ops]
        failures = {op.name: result for op, result in timed if isinstance(result, str)}
        failures |= tables.refusals()
        found = [(op, result) for op, result in timed if isinstance(result, Timing)]
        return Fingerprint(key=key, points=points(found), failures=failures, provenance=tables.provenance())

    def _time(self, op: Op, gpu: GPU) -> Timing | str:
        """Times of an operator, remembered by what it is and not by its name."""
        what = "quantize" if op.name.endswith("_quantize") else op.kind
        known = (gpu.name, what, op.dtype, op.shape)
        if known not in self._timed:
            self._timed[known] = self._look_up(op, gpu)
        return self._timed[known]

    def _look_up(self, op: Op, gpu: GPU) -> Timing | str:
        family = _FAMILIES.get("all_gather" if op.dtype == "gather" else op.kind)
        if family is None:
            return f"the tables hold no {op.kind}"
        reason = "not in the tables"
        for near in self._near(gpu):
            result = family(op, near, self._bound)
            if isinstance(result, Timing):
                return result if near.name == gpu.name else self._borrowed(op, result, gpu=gpu, near=near)
            reason = result
        return reason

    def _borrowed(self, op: Op, timing: Timing, *, gpu: GPU, near: GPU) -> Timing:
        bound_s = self._bound(op, near, timing.x, timing.y)
        to_bound_s = self._bound(op, gpu, timing.x, timing.y)
        time_s = scaled(timing.time_s, bound_s=np.maximum(bound_s, 1e-12), to_bound_s=to_bound_s)
        return replace(timing, time_s=time_s, source="transferred", note=f"from {near.name} {timing.note}".strip())

    def _near(self, gpu: GPU) -> list[GPU]:
        """The GPU itself if it has tables, then the three of its vendor that are most alike."""
        others = [
            other
            for other in self._gpus.values()
            if other.vendor == gpu.vendor and other.name != gpu.name.removesuffix("-unmeasured")
        ]
        others.sort(key=lambda other: (_unlikeness(gpu, other), other.name))
        return [gpu] * (gpu.tables is not None) + others[:3]


def _unlikeness(gpu: GPU, other: GPU) -> float:
    """How far apart two GPUs are: generation first, then the ratio of compute to bandwidth."""
    generation = abs(gpu.compute_capability - other.compute_capability)
    intensity = abs(np.log(gpu.peak["bf16"] / gpu.bandwidth) - np.log(other.peak["bf16"] / other.bandwidth))
    link = gpu.link != other.link
    return float(generation + intensity + 0.5 * link)
