"""The three published sets of measured runs that the constants are fitted on, laid out as schedules.

| set | load | used |
|---|---|---|
| inferencex_h200 | closed loop, lengths uniform in [0.8 L, L], 10 requests per slot, the first at once | TTFT, TPOT |
| mlenergy_h100 | saturated, prompts unpublished | median ITL, where few steps carry prefill |
| argonne_a100 | one static batch | its latency |

TTFT of the first set is taken as the mean over requests: it holds a tenth of requests that wait for the initial burst,
which the median over requests would not see (the medians of the schedules are 2-4 times below the published values,
their means are not). A run whose requests cannot all hold KV space is left out: its latency is the queue's.

The first set's published launch scripts pass --async-scheduling; the second's engine (0.11.1) schedules between steps;
the third's is of the generation before.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl

from benchmarks.refit.schedule import Schedule, Segment, closed_loop, static_batch
from catalog.errors import BadInput
from catalog.gpus import find_gpu
from catalog.models import Model, find_model, weight_elements
from planner.fit.learned import EngineClass

SETS = ("inferencex_h200", "mlenergy_h100", "argonne_a100")
#: Prompts that ML.ENERGY does not publish: a mean prompt, and how the mean context of a running request follows from
#: the mean output (half of it for equal outputs; longer ones run longer). Assumptions.
PROMPTS = {"gpqa": (250.0, 0.60), "lm-arena-chat": (200.0, 0.75), "sourcegraph-fim": (300.0, 0.75)}
#: Greatest share of steps with a new prompt for which the median ITL is taken as a decode step.
_FEW_PREFILLS = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One measured run."""

    origin: str
    model: Model
    gpu: str
    tp: int
    quantization: Literal["bf16", "fp8"]
    engine: EngineClass
    schedule: Schedule
    ttft_s: float | None = None
    """Mean over requests."""
    tpot_s: float | None = None
    """Mean over requests; the step time where the schedule is one segment."""
    latency_s: float | None = None
    """Of the whole batch."""
    filtered: bool = False
    """The sampler sorts the vocabulary (top-k, top-p), as the model's generation_config asks by default."""


def load(folder: Path) -> tuple[list[Condition], dict[str, str]]:
    """Read the sets under `folder`: the usable runs, and (run or model) -> why it is left out."""
    found: list[Condition] = []
    left_out: dict[str, str] = {}
    for origin in SETS:
        rows = pl.read_parquet(folder / origin / "inputs.parquet").join(
            pl.read_parquet(folder / origin / "truth.parquet"), on="id"
        )
        for row in rows.sort("id").iter_rows(named=True):
            result = _condition(origin, row)
            if isinstance(result, str):
                left_out[f"{origin} {row['id']}"] = result
            else:
                found.append(result)
    return found, left_out


def digests(folder: Path) -> dict[str, str]:
    """sha256 of every file that the fit reads."""
    paths = [folder / origin / name for origin in SETS for name in ("inputs.parquet", "truth.parquet")]
    return {f"{path.parent.name}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def _condition(origin: str, row: dict[str, Any]) -> Condition | str:
    try:
        model = find_model(row["model"])
    except BadInput as error:
        return str(error)
    gpu = find_gpu(row["gpu"]).name
    match origin:
        case "inferencex_h200":
            return _closed(origin, row, model, gpu)
        case "mlenergy_h100":
            return _saturated(origin, row, model, gpu)
        case _:
            return _static(origin, row, model, gpu)


def _closed(origin: str, row: dict[str, Any], model: Model, gpu: str) -> Condition | str:
    mean_tokens = 0.9 * (row["isl"] + row["osl"] / 2)
    if not _fits(model, gpu, row["tp"], weight_bytes=1.0, tokens=row["concurrency"] * mean_tokens):
        return "its requests do not fit the KV space together"
    schedule = closed_loop(concurrency=row["concurrency"], prompt=row["isl"], output=row["osl"], spread=0.8,
                           budget=row["max_num_batched_tokens"])  # fmt: skip
    return Condition(origin=origin, model=model, gpu=gpu, tp=row["tp"], quantization="fp8", engine="async",
                     schedule=schedule, ttft_s=row["ttft_ms"] / 1e3, tpot_s=row["tpot_ms"] / 1e3)  # fmt: skip


def _saturated(origin: str, row: dict[str, Any], model: Model, gpu: str) -> Condition | str:
    if row["concurrency"] / row["osl"] > _FEW_PREFILLS:
        return "too many of its steps carry prefill of prompts of unpublished length"
    prompt, factor = PROMPTS[row["load_kind"].removeprefix("saturated_")]
    segment = Segment(1, round(row["concurrency"]), prompt + factor * row["osl"])
    return Condition(origin=origin, model=model, gpu=gpu, tp=row["tp"], quantization="bf16", engine="v1",
                     schedule=Schedule([segment], []), tpot_s=row["itl_ms"] / 1e3, filtered=True)  # fmt: skip


def _static(origin: str, row: dict[str, Any], model: Model, gpu: str) -> Condition | str:
    if not _fits(model, gpu, row["tp"], weight_bytes=2.0, tokens=row["concurrency"] * (row["isl"] + row["osl"])):
        return "its requests do not fit the KV space together"
    schedule = static_batch(batch=row["concurrency"], prompt=row["isl"], output=row["osl"], budget=4096)
    return Condition(origin=origin, model=model, gpu=gpu, tp=row["tp"], quantization="bf16", engine="v0",
                     schedule=schedule, latency_s=row["batch_latency_s"])  # fmt: skip


def _fits(model: Model, gpu: str, tp: int, *, weight_bytes: float, tokens: float) -> bool:
    """Whether `tokens` of KV fit beside the weights, in 0.88 of the memory less 3 GB per GPU for activations."""
    per_token = sum(
        count * 4.0 * max(1, layer.num_kv_heads // tp) * tp * layer.head_dim for layer, count in model.layers
    )
    space = tp * (0.88 * find_gpu(gpu).memory - 3e9) - weight_bytes * weight_elements(model).total
    return tokens * per_token < space
