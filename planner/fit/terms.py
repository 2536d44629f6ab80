"""Which physical limit an operator's time goes with: the parts that one in-situ factor each corrects.

Kernels are timed alone, over and over; inside a model they run once per layer among others. Reading weights gets
faster (the next kernel's prologue overlaps, vLLM fuses what the tables time apart), long matrix products get slower
(the GPU's power limit lowers its clock), collectives wait less for a launch. The factors are fitted per term on
measured runs, the same for all models and GPUs. A GEMM is split between memory and compute by the squares of its two
roofline times, which changes over smoothly where they are equal. Decode attention is split by how many query heads
share a KV head: kernels of old engines read a shared head once per query head.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from catalog.fingerprints import Op
from catalog.gpus import GPU
from catalog.predictors import Floats
from planner.roofline import peak, work

Term = Literal["memory", "compute", "decode_attention", "grouped_attention", "collective", "elementwise"]
TERMS: tuple[Term, ...] = get_args(Term)


def parts(op: Op, gpu: GPU, x: Floats, time_s: Floats) -> dict[Term, Floats]:
    """Split times of an operator at sizes x by term; the parts add up to `time_s`."""
    match op.kind:
        case "gemm" | "lm_head" | "moe":
            share = compute_share(op, gpu, x)
            return {"memory": time_s * (1.0 - share), "compute": time_s * share}
        case "attention_prefill" | "mla_prefill":
            return {"compute": time_s}
        case "attention_decode" | "mla_decode":
            shared = 1.0 - op.size("kv_heads", 1) / max(1, op.size("heads"))
            return {"decode_attention": time_s * (1.0 - shared), "grouped_attention": time_s * shared}
        case "elementwise" | "sampling" if op.dtype != "gather":
            return {"elementwise": time_s}
        case _:
            return {"collective": time_s}


def compute_share(op: Op, gpu: GPU, x: Floats) -> Floats:
    """0 where reading the weights bounds a GEMM, 1 where its FLOP do."""
    flop, moved = work(op, x)
    compute, memory = flop / peak(gpu, op.dtype), moved / gpu.bandwidth
    return np.asarray(compute**2 / (compute**2 + memory**2))
