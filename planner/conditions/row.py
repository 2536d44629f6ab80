"""Rows of conditions: read into a `Condition`, or refused by the column that is wrong.

Columns: id, source, model, gpu, engine, engine_version, precision, tp, pp, dp, ep, n_gpus, isl, osl, load_kind,
concurrency, max_num_seqs, max_num_batched_tokens, prefix_cache, notes (`key=value` words); a missing value is null. An
impossible number is never repaired.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from catalog.errors import BadInput
from catalog.gpus import GPU, why_unserved
from catalog.models import Model
from catalog.quantizations import QUANTIZATION_NAMES, KVDtype, QuantizationName
from catalog.units import GIB
from planner.conditions.condition import HABITS, TASKS, UNKNOWN_TASK, Condition, Habit, LoadKind, Task
from planner.strategies import Configuration

Row = Mapping[str, object]

#: Beyond these a number is a mistake, not a benchmark.
LARGEST = {
    "tp": 64, "pp": 64, "dp": 512, "ep": 1024, "n_gpus": 4096, "isl": 10_000_000, "osl": 1_000_000,
    "concurrency": 65_536, "max_num_seqs": 65_536, "max_num_batched_tokens": 4_194_304,
}  # fmt: skip

LOAD_KINDS = (
    "closed_loop_fixed, closed_loop_random_range0.8, static_batch, saturated_TASK, poisson:RATE, rate_inf, "
    "closed_loop_disagg_xPyD, multiturn_closed_loop"
)
_SAID = {
    "bf16": "bf16", "fp16": "bf16", "bfloat16": "bf16", "float16": "bf16", "half": "bf16", "auto": "",
    "fp8": "fp8", "float8": "fp8", "e4m3": "fp8", "w8a8-fp8": "fp8",
    "fp4": "fp4", "int8": "int8", "w8a8": "int8", "int4": "int4", "w4a16": "int4", "awq": "int4", "gptq": "int4",
} | {name: name for name in QUANTIZATION_NAMES if name not in ("bf16", "fp8", "int8", "int4")}  # fmt: skip


def condition_of(row: Row, *, model: Model, gpu: GPU) -> Condition:
    """Read one row. Raises BadInput, naming the column, for what is missing, impossible or not served by vLLM."""
    assumed: list[str] = []
    notes = _notes(row)
    habit = HABITS.get((_text(row, "source") or "").casefold(), Habit())
    kind, low, rate, name = _load(row)
    quantization = _quantization(row, model, assumed)
    why = why_unserved(gpu, quantization)
    if why is not None:
        raise BadInput(why, place="precision")
    tp, pp, dp = (_count(row, name, 1) for name in ("tp", "pp", "dp"))
    counted = _count(row, "n_gpus", tp * pp * dp)
    if habit.attention_dp and dp > 1 and dp == tp:
        tp = 1
        assumed.append(f"attention runs data-parallel, one rank on each of {dp} GPUs")
    task = None if name is None else TASKS.get(name, UNKNOWN_TASK)
    isl, osl = _lengths(row, task, assumed)
    prompt_cv, output_cv = (0.0, 0.0) if task is None else (task.prompt_cv, task.output_cv)
    clients = _clients(row, kind)
    seqs = _count(row, "max_num_seqs", 0) or default_max_num_seqs(gpu)
    tokens = _count(row, "max_num_batched_tokens", 0)
    if not tokens:
        tokens = default_max_num_batched_tokens(gpu)
        assumed.append(f"max_num_batched_tokens {tokens}")
    configuration = Configuration(
        model=model.name,
        gpu=gpu.name,
        tp=tp,
        pp=pp,
        dp=dp,
        expert_parallel=model.moe is not None and _count(row, "ep", 1) > 1,
        quantization=quantization,
        kv_dtype=_kv_dtype(notes, gpu, model, quantization, habit, assumed),
        max_num_seqs=seqs,
        max_num_batched_tokens=tokens,
        max_model_len=longest(isl, osl, prompt_cv=prompt_cv, output_cv=output_cv),
        enable_prefix_caching=row.get("prefix_cache") is not False,
    )
    version = _version(row, assumed)
    sides = _sides(row, notes, counted // (tp * pp * dp), assumed) if kind == "disaggregated" else (0, 1)
    return Condition(
        id=str(row.get("id", "")),
        model=model,
        gpu=_gpu(gpu, habit, notes, assumed),
        configuration=configuration,
        vllm_version=version,
        kind=kind,
        isl=isl,
        osl=osl,
        low=low,
        prompt_cv=prompt_cv,
        output_cv=output_cv,
        gpu_memory_utilization=_share(notes, "gpu_memory_utilization") or habit.gpu_memory_utilization,
        counted_gpus=counted,
        clients=seqs if kind == "saturated" else clients,
        rate=rate,
        cached=_cached(row, kind, notes),
        filtered_sampling=kind == "saturated",
        statistic=habit.statistic,
        sides=sides,
        link=_link(gpu, sum(sides) * tp * pp * dp, assumed) if kind == "disaggregated" else (0.0, 0.0),
        assumed=tuple(assumed),
    )


def longest(isl: float, osl: float, *, prompt_cv: float = 0.0, output_cv: float = 0.0) -> int:
    """max_model_len that serves such requests: about the 99.9th percentile of spread lengths, with room to round."""
    return math.ceil(isl * (1.0 + 5.0 * prompt_cv) + osl * (1.0 + 4.0 * output_cv)) + 32


def _sides(row: Row, notes: Mapping[str, str], replicas: int, assumed: list[str]) -> tuple[int, int]:
    """(prefill, decode) replicas: as load_kind or the notes write them (`2P1D`), else half of the GPUs each."""
    tps = {notes[name] for name in ("tp", "prefill_tp", "decode_tp") if name in notes}
    if len(tps) > 1:
        raise BadInput(f"sides of unequal tp {', '.join(sorted(tps))} are not reproduced", place="notes")
    written = f"{_text(row, 'load_kind')} {_text(row, 'notes')}"
    found = re.search(r"(?<![0-9a-z])([1-9]\d{0,2})p([1-9]\d{0,2})d(?![0-9a-z])", written.casefold().replace("_", " "))
    if found is not None:
        return int(found[1]), int(found[2])
    sides = max(1, replicas // 2), max(1, replicas - replicas // 2)
    assumed.append(f"{sides[0]}P{sides[1]}D")
    return sides


def _link(gpu: GPU, gpus: int, assumed: list[str]) -> tuple[float, float]:
    """The GPUs' own link where it joins all of them, else one 400 Gbit/s port per GPU."""
    inside = gpus <= gpu.link_domain
    assumed.append(f"KV moves over {gpu.link if inside else '400 Gbit/s per GPU'}")
    return (gpu.link_bandwidth, gpu.link_latency) if inside else (50e9, 10e-6)


def _share(notes: Mapping[str, str], name: str) -> float | None:
    """A number of the notes that is a share, None where there is none."""
    said = notes.get(name, "")
    return float(said) if re.fullmatch(r"0?\.\d*[1-9]\d*|1(\.0*)?", said) else None


def _gpu(gpu: GPU, habit: Habit, notes: Mapping[str, str], assumed: list[str]) -> GPU:
    """The GPU with the memory that the run's one had: `gpu_memory_gib=40` in the notes, or the source's known one."""
    memory = dict(habit.memory).get(gpu.name)
    said = notes.get("gpu_memory_gib")
    if said is not None and re.fullmatch(r"\d{1,5}(\.\d+)?", said) and float(said) > 0:
        memory = float(said) * GIB
    if memory is None or memory == gpu.memory:
        return gpu
    assumed.append(f"{memory / GIB:g} GiB of GPU memory")
    return gpu.model_copy(update={"memory": memory})


# vLLM's defaults by GPU memory for its API server (arg_utils.get_batch_defaults); A100 counts as a small GPU there.
def default_max_num_batched_tokens(gpu: GPU) -> int:
    """Default of --max-num-batched-tokens: 16384 from 160 GiB, 8192 from 70 GiB but not on A100, else 2048."""
    if gpu.memory >= 160 * GIB:
        return 16384
    return 8192 if gpu.memory >= 70 * GIB and not gpu.name.startswith("a100") else 2048


def default_max_num_seqs(gpu: GPU) -> int:
    """Default of --max-num-seqs: 1024 from 70 GiB but not on A100, else 256."""
    return 1024 if gpu.memory >= 70 * GIB and not gpu.name.startswith("a100") else 256


def _load(row: Row) -> tuple[LoadKind, float, float, str | None]:
    """(kind, low end of the length range, rate, task) of `load_kind`."""
    text = _text(row, "load_kind") or ""
    spread = re.fullmatch(r"(closed_loop|rate_inf)_random_range(0?\.\d+|1(?:\.0*)?)", text)
    if spread:
        return "closed_loop" if spread[1] == "closed_loop" else "rate_inf", float(spread[2]), 0.0, None
    if text in ("closed_loop_fixed", "closed_loop"):
        return "closed_loop", 1.0, 0.0, None
    if text == "static_batch":
        return "static_batch", 1.0, 0.0, None
    if text.startswith("saturated"):
        return "saturated", 1.0, 0.0, text.partition("_")[2] or "unknown"
    rate = re.fullmatch(r"poisson:(\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)", text)
    if rate and 0 < float(rate[1]) <= 1e6:
        return "poisson", 1.0, float(rate[1]), None
    for start, kind in (("rate_inf", "rate_inf"), ("closed_loop_disagg", "disaggregated"), ("multiturn", "multiturn")):
        if text.startswith(start):
            return kind, 1.0, 0.0, None  # type: ignore[return-value]
    raise BadInput(f"unknown load_kind {text[:60]!r}", place="load_kind", mend=f"give {LOAD_KINDS}")


def _number(row: Row, name: str) -> float | None:
    """A finite number of the row, None where it is null. Raises BadInput for text, NaN and infinity."""
    value = row.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise BadInput(f"{value!r} is no number", place=name)
    return float(value)


def _positive(row: Row, name: str) -> float | None:
    value = _number(row, name)
    if value is not None and not 0 < value <= LARGEST[name]:
        raise BadInput(f"{value:g} is out of range", place=name, mend=f"give a number above 0 up to {LARGEST[name]}")
    return value


def _count(row: Row, name: str, default: int) -> int:
    value = _positive(row, name)
    if value is None:
        return default
    if name != "concurrency" and value != int(value):
        raise BadInput(f"{value:g} is no whole number", place=name)
    return math.ceil(value)


def _text(row: Row, name: str) -> str | None:
    value = row.get(name)
    return None if value is None or not str(value).strip() else str(value).strip()


def _version(row: Row, assumed: list[str]) -> str | None:
    """`0.19.0` of whatever the row writes; None = the newest, where it names none (a nightly build)."""
    found = re.search(r"\d+\.\d+(\.\d+)?", _text(row, "engine_version") or "")
    if found is None:
        assumed.append("the newest vLLM")
    return None if found is None else found[0]


def _notes(row: Row) -> dict[str, str]:
    words = re.findall(r"([A-Za-z_][\w.-]*)=(\S+)", str(row.get("notes") or ""))
    return {key.casefold().replace("-", "_"): value for key, value in words}


def _quantization(row: Row, model: Model, assumed: list[str]) -> QuantizationName:
    found, stated = quantization_of(_text(row, "precision"), model)
    if not stated:
        assumed.append(f"precision {found}")
    return found


def quantization_of(text: str | None, model: Model) -> tuple[QuantizationName, bool]:
    """Our name for what a source calls its precision, given what is published for the model, and whether it says so.

    Raises BadInput for a precision that no name of ours stands for.
    """
    said = _SAID.get((text or "auto").casefold().split("/")[0].replace("_", "-").replace("fp8-block", "fp8_block"))
    if said is None:
        raise BadInput(f"unknown precision {text!r}", place="precision", mend=f"give one of {', '.join(sorted(_SAID))}")
    if said == "":
        return model.native, False
    families: dict[str, tuple[QuantizationName, ...]] = {"fp8": ("fp8_block", "fp8"), "fp4": ("mxfp4", "nvfp4")}
    names = families.get(said)
    if names is None:
        return said, True  # type: ignore[return-value]
    if model.native in names:
        return model.native, True
    published = [name for name, _ in model.checkpoints if name in names]
    return (published[0] if published else names[-1]), True


def _kv_dtype(  # noqa: PLR0913, PLR0917 - one decision
    notes: Mapping[str, str], gpu: GPU, model: Model, quantization: QuantizationName, habit: Habit, assumed: list[str]
) -> KVDtype:
    """KV format: as the notes say, else as the source does, else as checkpoints of that format are published.

    NVIDIA's FP8 (per tensor) and NVFP4 checkpoints declare an FP8 KV space, which vLLM follows; others declare none.
    """
    said = notes.get("kv_cache_dtype") or notes.get("kv_dtype")
    if said is not None and said != "auto":
        return "fp8" if said.startswith("fp8") else "bf16"
    declared = quantization in ("fp8", "nvfp4") and quantization != model.native
    served = habit.blackwell_kv == "fp8" and gpu.compute_capability >= 100 and quantization != "bf16"
    if declared or served:
        assumed.append("KV in fp8, as such checkpoints declare" if declared else "KV in fp8, as the source serves it")
    return "fp8" if declared or served else "bf16"


def _lengths(row: Row, task: Task | None, assumed: list[str]) -> tuple[float, float]:
    isl, osl = _positive(row, "isl"), _positive(row, "osl")
    if isl is None:
        isl = (task or UNKNOWN_TASK).prompt
        assumed.append(f"mean prompt {isl:g} tokens")
    if osl is None:
        raise BadInput("is missing", place="osl", mend="give the output tokens of a request")
    return isl, osl


def _clients(row: Row, kind: LoadKind) -> int:
    clients = _count(row, "concurrency", 0)
    if not clients and kind in ("closed_loop", "static_batch", "disaggregated", "multiturn"):
        raise BadInput("is missing", place="concurrency", mend="give the requests in flight")
    return clients


def _cached(row: Row, kind: LoadKind, notes: Mapping[str, str]) -> float:
    """A conversation of n turns resends what came before: with a prefix cache (n-1)/n of its tokens are found."""
    if kind != "multiturn" or row.get("prefix_cache") is False:
        return 0.0
    turns = notes.get("turns") or notes.get("num_turns") or "2"
    return 1.0 - 1.0 / float(turns) if re.fullmatch(r"[1-9]\d{0,3}(\.\d+)?", turns) else 0.5
