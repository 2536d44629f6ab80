"""Power: watts per GPU from how much of its roofs a load takes.

    P = idle (1 - duty) + duty (busy + k u_kv + c sqrt(u_c)), each coefficient a share of the TDP, never above the TDP

`duty` is the share of time in which a step runs, u_kv the share of memory bandwidth that KV reads take, u_c the share
of peak FLOP/s, both while a step runs. Weight reads need no term of their own: with more sequences per step they fall
as compute rises, and what they take is inside `busy`. The square root is measured too: twice the FLOP/s of small GEMMs
costs less than twice the watts. Calibrated on 27 runs of two models on one H100; on other GPUs scaled by TDP, unproven.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from catalog.fingerprints import Op, Source
from catalog.gpus import GPU
from catalog.models import Model
from catalog.power import PowerConstants
from planner.ops import ops
from planner.roofline import peak, work
from planner.strategies import Configuration


@dataclass(frozen=True, slots=True, kw_only=True)
class Utilisation:
    """Shares of one GPU's roofs, 0 to 1."""

    duty: float
    compute: float
    kv: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """Watts of one GPU, with its 90 % interval."""

    watts: float
    low: float
    high: float
    source: Source

    def joules_per_token(self, gpus: int, output_tokens_per_s: float) -> float:
        """Energy of all GPUs of the replica per output token; 0 tokens/s gives infinity."""
        return self.watts * gpus / output_tokens_per_s if output_tokens_per_s > 0 else float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one engine does per second."""

    steps_per_s: float
    sequences: float
    """Decoding sequences of a step, mean."""
    context: float
    """Their tokens so far, mean."""
    prompt_tokens_per_s: float = 0.0
    prompt: float = 1.0
    """Mean tokens of a prompt."""
    duty: float = 1.0
    """Share of time in which a step runs."""


def utilisation(model: Model, configuration: Configuration, gpu: GPU, *, load: Load) -> Utilisation:
    """Utilisation of each GPU of an engine under a steady load, from the operators' FLOP and bytes while it is busy.

    Each GPU of a pipeline runs its share of the blocks for all engines of the replica: one engine's whole pass.
    """
    flop_s = kv_s = 0.0
    for op in ops(model, configuration):
        done, moved = _rates(op, load)
        flop_s += done * op.count / peak(gpu, op.dtype)
        kv_s += moved * op.count / gpu.bandwidth
    duty = max(1e-9, min(1.0, load.duty))
    return Utilisation(duty=duty, compute=min(1.0, flop_s / duty), kv=min(1.0, kv_s / duty))


def _rates(op: Op, load: Load) -> tuple[float, float]:
    """(FLOP/s, KV bytes/s) of one of the operator's layers."""
    match op.kind:
        case "attention_decode" | "mla_decode":
            flop, moved = work(op, load.sequences, load.context)
            return load.steps_per_s * float(flop), load.steps_per_s * float(moved)
        case "attention_prefill" | "mla_prefill":
            prompt = max(1.0, load.prompt)
            return load.prompt_tokens_per_s / prompt * float(work(op, prompt, 0.0)[0]), 0.0
        case "gemm" | "moe":
            tokens = load.prompt_tokens_per_s + load.steps_per_s * load.sequences
            return tokens * float(work(op, 1.0)[0]), 0.0
        case "lm_head":
            return load.steps_per_s * load.sequences * float(work(op, 1.0)[0]), 0.0
        case _:
            return 0.0, 0.0


def features(use: Utilisation) -> tuple[float, float, float]:
    """What `busy`, `kv` and `compute` multiply."""
    return use.duty, use.duty * use.kv, use.duty * float(np.sqrt(use.compute))


def power(gpu: GPU, use: Utilisation, *, constants: PowerConstants) -> Power:
    """Watts of one GPU at a utilisation, between idle and TDP."""
    idle = gpu.idle_power if gpu.idle_power is not None else constants.idle * gpu.power
    busy, kv, compute = features(use)
    active = gpu.power * (constants.busy * busy + constants.kv * kv + constants.compute * compute)
    watts = min(gpu.power, idle * (1.0 - use.duty) + active)
    here = gpu.name == constants.fitted_on
    error = constants.error if here else constants.error_elsewhere
    return Power(
        watts=watts,
        low=max(idle, watts * (1.0 - error)),
        high=min(gpu.power, watts * (1.0 + error)),
        source="fitted" if here else "transferred",
    )
