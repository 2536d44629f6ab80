"""Results of `vllm bench serve`, `latency` and `throughput`, read into conditions with what was measured.

The server's settings are not in these files: options give them, or `vllm bench serve --metadata gpu=h100 tp=2`, which
stand at the top level. `serve` writes one object, or with `--append-result` one per line; `--save-detailed` adds the
lengths of each request. A run that cannot be is refused with file and line; the others are read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from catalog.errors import BadInput
from catalog.gpus import find_gpu
from catalog.models import find_model
from planner.conditions import condition_of

MAX_BYTES = 512_000_000
#: A run of which more requests failed measured the failure.
MOST_FAILED = 0.1
#: Lengths that spread more than this (relative to the longest) are a range.
SPREAD = 0.02
#: Uniform lengths that reach lower than this are not what `--random-range-ratio` draws.
UNIFORM = 0.05
#: Column of a condition -> what options and metadata call it, first match wins.
SETTINGS: Mapping[str, tuple[str, ...]] = {
    "gpu": ("gpu", "gpu_name"),
    "model": ("model",),
    "tp": ("tp", "tensor_parallel_size"),
    "pp": ("pp", "pipeline_parallel_size"),
    "dp": ("dp", "data_parallel_size"),
    "ep": ("ep",),
    "precision": ("quantization", "precision", "dtype"),
    "engine_version": ("vllm_version", "engine_version"),
    "max_num_seqs": ("max_num_seqs",),
    "max_num_batched_tokens": ("max_num_batched_tokens",),
    "isl": ("isl", "input_len", "random_input_len"),
    "osl": ("osl", "output_len", "random_output_len"),
    "concurrency": ("batch_size",),
    "kv_cache_dtype": ("kv_cache_dtype",),
    "gpu_memory_utilization": ("gpu_memory_utilization",),
}
WHOLE = ("tp", "pp", "dp", "ep", "max_num_seqs", "max_num_batched_tokens")
NUMBERS = (*WHOLE, "isl", "osl", "concurrency")
NOTES = ("kv_cache_dtype", "gpu_memory_utilization")

#: Settings by column that the user gave beside the file; they win over the file's own.
Said = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchRun:
    """One measured run of a benchmark."""

    row: Mapping[str, Any]
    """A condition, by the columns of `flows.predict`."""
    date: str
    """When it ran, as the file says: runs of one condition on two days are two runs."""
    measured: Mapping[str, float]
    """Metric of predictions.parquet -> value."""
    source: str = field(default="", compare=False)
    """File it was read from."""
    record: str = field(default="", compare=False)
    """Record that keeps it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A run that was not read."""

    place: str
    reason: str


def read_results(path: Path, said: Said) -> tuple[list[BenchRun], list[Refused]]:
    """Read one file: the runs that are sound, and the others with their reason.

    Raises:
        BadInput: the file is absent, too large or no JSON at all.
    """
    runs, refused = [], []
    for place, result in _objects(path):
        try:
            runs.append(read_run(result, said, source=path.name))
        except BadInput as error:
            refused.append(Refused(place=place, reason=str(error)))
    return runs, refused


def read_run(result: object, said: Said, *, source: str) -> BenchRun:
    """Read one result. Raises BadInput for what is missing or impossible."""
    if not isinstance(result, dict):
        raise BadInput("is no JSON object", mend="give the file as `vllm bench` wrote it")
    row: dict[str, Any] = {"engine": "vllm", "source": "vllm bench"} | _settings(result, said)
    if "latencies" in result and "avg_latency" in result:
        measured = _latency(result, row)
    elif "elapsed_time" in result and "num_requests" in result:
        measured = _throughput(result, row)
    elif "median_tpot_ms" in result or "mean_tpot_ms" in result:
        measured = _serve(result, row)
    else:
        raise BadInput("is no result of `vllm bench serve`, `latency` or `throughput`", mend="give --save-result files")
    condition = condition_of(row, model=find_model(str(row["model"])), gpu=find_gpu(str(row["gpu"])))
    row |= {"model": condition.model.name, "gpu": condition.gpu.name}
    return BenchRun(row=row, date=str(result.get("date") or ""), measured=measured, source=source)


def _objects(path: Path) -> list[tuple[str, object]]:
    """(place, value) of each JSON value of a file: one, a list of them, or one per line."""
    if not path.is_file():
        raise BadInput("no such file", place=str(path), mend="give a result of `vllm bench`")
    if path.stat().st_size > MAX_BYTES:
        raise BadInput("is larger than 512 MB", place=str(path), mend="give a result of `vllm bench`")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise BadInput("is no text", place=str(path), mend="give a result of `vllm bench`") from None
    try:
        whole = json.loads(text)
        return [(path.name, value) for value in whole] if isinstance(whole, list) else [(path.name, whole)]
    except (ValueError, RecursionError):
        pass
    lines = [(number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if not lines:
        raise BadInput("is empty", place=str(path), mend="give a result of `vllm bench`")
    return [(f"{path.name}:{number}", _line(line)) for number, line in lines]


def _line(line: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return line  # refused by its line: it is no object


def _settings(result: Mapping[str, Any], said: Said) -> dict[str, Any]:
    """Columns of the condition that options or metadata give; metadata are text."""
    found: dict[str, Any] = {}
    for column, names in SETTINGS.items():
        stated = said.get(column)
        value = stated if stated is not None else next((result[n] for n in names if result.get(n) is not None), None)
        if value is not None:
            found[column] = _as_number(column, value) if column in NUMBERS else str(value)
    if "model" not in found and isinstance(result.get("model_id"), str):
        found["model"] = result["model_id"]
    for column in ("gpu", "model"):
        if column not in found:
            raise BadInput("is not in the file", place=column, mend=f"give --{column} or --metadata {column}=NAME")
    notes = [f"{name}={found.pop(name)}" for name in NOTES if name in found]
    return found | {"notes": " ".join(notes) or None}


def _as_number(column: str, value: object) -> float | int:
    try:
        number = float(str(value))
    except ValueError:
        raise BadInput(f"{str(value)[:40]!r} is no number", place=column) from None
    if not math.isfinite(number) or (column in WHOLE and number != int(number)):
        raise BadInput(f"{value!r} is refused", place=column, mend="give a whole number above 0")
    return int(number) if column in WHOLE else number


def _serve(result: Mapping[str, Any], row: dict[str, Any]) -> dict[str, float]:
    completed, failed = _positive(result, "completed"), _number(result, "failed") or 0.0
    if failed > MOST_FAILED * (completed + failed):
        raise BadInput(f"{failed:.0f} of {completed + failed:.0f} requests failed", place="failed", mend="run it again")
    means = [_positive(result, f"total_{name}_tokens") / completed for name in ("input", "output")]
    lows = [_low(result, name) for name in ("input_lens", "output_lens")]
    # The range of `vllm bench serve --random-range-ratio` is that of prompts and outputs alike.
    low = sum(lows) / 2 if max(lows) < 1.0 else 1.0
    isl, osl = (mean * 2.0 / (1.0 + low) for mean in means)
    row |= {"isl": isl, "osl": osl} | _load(result, low=low)
    names = {"tpot_ms": "tpot_ms", "ttft_ms": "ttft_ms", "itl_ms": "itl_ms"}
    measured = {mine: _positive(result, f"median_{theirs}") for mine, theirs in names.items() if
                result.get(f"median_{theirs}") is not None}  # fmt: skip
    for name, theirs in (("out_tps", "output_throughput"), ("total_tps", "total_token_throughput")):
        if result.get(theirs) is not None:
            measured[name] = _positive(result, theirs)
    return measured


def _load(result: Mapping[str, Any], *, low: float) -> dict[str, Any]:
    """load_kind and concurrency of a served run."""
    rate, clients = result.get("request_rate"), result.get("max_concurrency")
    unlimited = rate is None or str(rate) == "inf" or rate == math.inf
    ranged = f"random_range{low:.2g}" if low < 1.0 else ""
    if clients is not None:
        if not unlimited:
            what = "a rate and max_concurrency at once are not reproduced"
            raise BadInput(what, place="request_rate", mend="run it with one of the two")
        kind = f"closed_loop_{ranged or 'fixed'}"
        return {"load_kind": kind, "concurrency": _positive(result, "max_concurrency")}
    if unlimited:
        return {"load_kind": f"rate_inf_{ranged}".rstrip("_"), "concurrency": _positive(result, "num_prompts")}
    if (_number(result, "burstiness") or 1.0) != 1.0:
        raise BadInput("arrivals are not Poisson", place="burstiness", mend="run it with --burstiness 1")
    return {"load_kind": f"poisson:{_positive(result, 'request_rate'):.6f}"}


def _low(result: Mapping[str, Any], name: str) -> float:
    """Shortest over longest of uniform lengths with the spread of these; 1 where they are equal or not known.

    Uniform lengths from low to 1 times the longest have a mean of (1 + low) / 2 of it. Other spreads (conversations)
    are taken as equal lengths of the same mean.
    """
    values = result.get(name)
    numbers = [v for v in values if isinstance(v, (int, float)) and v > 0] if isinstance(values, list) else []
    if not numbers or max(numbers) - min(numbers) <= SPREAD * max(numbers):
        return 1.0
    low = 2.0 * sum(numbers) / len(numbers) / max(numbers) - 1.0
    return round(low, 2) if low >= UNIFORM and abs(low - min(numbers) / max(numbers)) < 0.1 else 1.0


def _latency(result: Mapping[str, Any], row: dict[str, Any]) -> dict[str, float]:
    row["load_kind"] = "static_batch"
    values = result["latencies"]
    if not isinstance(values, list) or not values:
        raise BadInput("holds no times", place="latencies", mend="give the file as `vllm bench latency` wrote it")
    return {"batch_latency_s": median(_positive({"latencies": value}, "latencies") for value in values)}


def _throughput(result: Mapping[str, Any], row: dict[str, Any]) -> dict[str, float]:
    row |= {"load_kind": "rate_inf", "concurrency": _positive(result, "num_requests")}
    if "isl" in row and "osl" not in row and result.get("total_num_tokens") is not None:
        row["osl"] = _positive(result, "total_num_tokens") / row["concurrency"] - row["isl"]
    return {"batch_latency_s": _positive(result, "elapsed_time")}


def _number(result: Mapping[str, Any], name: str) -> float | None:
    value = result.get(name)
    if value is None:
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number) or number < 0:
        raise BadInput(f"{str(value)[:40]!r} is no number of at least 0", place=name)
    return number


def _positive(result: Mapping[str, Any], name: str) -> float:
    number = _number(result, name)
    if number is None or number == 0:
        raise BadInput("is missing" if number is None else "is zero", place=name, mend="run the benchmark again")
    return number
