"""`Condition`: one row of a benchmark in our nouns, with what had to be assumed said aloud.

What a published source leaves unsaid, or says in its own sense, stands here as data: lengths of tasks, habits of
sources. `planner.conditions.row` reads rows by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from catalog.gpus import GPU
from catalog.models import Model
from catalog.quantizations import KVDtype
from catalog.units import GIB
from planner.strategies import Configuration

Row = Mapping[str, object]
LoadKind = Literal["closed_loop", "static_batch", "saturated", "poisson", "rate_inf", "disaggregated", "multiturn"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Lengths of a task whose prompts are not published: mean prompt, and coefficients of variation (lognormal)."""

    prompt: float
    prompt_cv: float
    output_cv: float


#: Assumed: a GPQA question with its choices and the instruction; a chat turn of LM Arena, mostly short, a few long
#: (as the rare long steps of the measured runs say); the prefix and suffix of a Sourcegraph fill-in-the-middle request.
TASKS: dict[str, Task] = {
    "gpqa": Task(prompt=250.0, prompt_cv=0.5, output_cv=0.45),
    "lm-arena-chat": Task(prompt=200.0, prompt_cv=2.0, output_cv=0.7),
    "sourcegraph-fim": Task(prompt=1500.0, prompt_cv=1.0, output_cv=1.0),
}
UNKNOWN_TASK = Task(prompt=512.0, prompt_cv=1.0, output_cv=0.7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Habit:
    """What a published source does otherwise than its columns say."""

    statistic: Literal["median", "mean"] = "median"
    """What its latencies are over requests."""
    memory: tuple[tuple[str, float], ...] = ()
    """(GPU, bytes) where its GPUs hold less than the type's usual HBM."""
    attention_dp: bool = False
    """Its `dp` says that attention runs data-parallel over the `tp` GPUs, one each, not that there are tp x dp GPUs."""
    gpu_memory_utilization: float | None = None
    """What its serve commands set, None = vLLM's default."""
    blackwell_kv: KVDtype | None = None
    """KV format of its quantized runs on Blackwell."""


#: InferenceX's latencies are means: the burst of a closed loop is in them (on the 60 runs of the calibration set the
#: mean TTFT is 7 % off in the median where the median TTFT is 39 % off, growing with the clients).
#: Its published serve commands say the rest: data-parallel attention is `--tensor-parallel-size=1
#: --data-parallel-size=$TP --enable-expert-parallel`, quantized models on Blackwell get `--kv-cache-dtype fp8`, and
#: `--gpu-memory-utilization` is 0.9 nearly everywhere. Its oldest runs, which name no version, pass
#: `--async-scheduling`: as the newest vLLM, which is what a missing version stands for.
#: LLM-Inference-Bench ran on 40 GB A100s (Polaris); its batches run out of KV space accordingly.
HABITS: dict[str, Habit] = {
    "inferencex": Habit(statistic="mean", attention_dp=True, gpu_memory_utilization=0.9, blackwell_kv="fp8"),
    "argonne": Habit(memory=(("a100_sxm", 39.4 * GIB),)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What was run, and how it was loaded."""

    id: str
    model: Model
    gpu: GPU
    configuration: Configuration
    vllm_version: str | None
    kind: LoadKind
    isl: float
    """Longest prompt of a range, else the mean."""
    osl: float
    low: float
    """Lengths are drawn uniformly from [low x isl, isl] and [low x osl, osl]; 1 = all equal."""
    prompt_cv: float
    output_cv: float
    """Of lengths that are not drawn from a range; 0 = all equal."""
    gpu_memory_utilization: float | None
    """None = the engine version's default."""
    counted_gpus: int
    """GPUs by which the source divides what it reports per GPU."""
    clients: int
    """Requests in flight, over the whole replica; the number of requests where they come at once."""
    rate: float
    """Requests per second of an open load, else 0."""
    cached: float
    """Share of each prompt found in the prefix cache."""
    filtered_sampling: bool
    """Requests sample by top-k or top-p, as a model's generation_config asks of clients that say nothing. Benchmarks of
    speed sample greedily; tasks are served as users are."""
    statistic: Literal["median", "mean"]
    """What the source's unsuffixed latencies are."""
    sides: tuple[int, int]
    """(prefill, decode) replicas where the two are apart, else (0, 1)."""
    link: tuple[float, float]
    """(bytes per second and GPU, latency in seconds) of what moves KV between the sides."""
    assumed: tuple[str, ...]
