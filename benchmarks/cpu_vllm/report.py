"""`cpu-vllm.md`: the committed table of predictions beside measurements on a real vLLM."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.cpu_vllm.models import MAX_NUM_SEQS
from catalog.models import Model, find_model
from catalog.models.weights import weight_elements

_SHOWN = ("Llama-3.1-70B", "Llama-3.1-8B", "Qwen3-30B-A3B", "gpt-oss-20b")
_PARTS = ("predicted", "measured", "error", "paced error", "noise")
_HEAD = """# A real vLLM on a CPU: predicted beside measured

`python -m benchmarks cpu_vllm --write` wrote this file. Each small model is probed on stand-ins of one and of five
blocks with random weights (engine steps on the process's own clock, then a short served run of the deeper stand-in),
the simulator predicts every load from that alone, then the full model is served and measured. All loads are run in
several rounds: the median over the requests of a load's runs counts, noise is the range of its runs' medians. The
host's speed changes by the second and by the hour: pace is how much longer a fixed computation took around the runs
than around the probe, and the paced error is that of the prediction times the pace.

"""


_NOT_QUIET = """**Not a quiet machine:** other programs kept {cores:.1f} cores busy during the middle run. The errors
below are mostly theirs and say neither that the predictor is right nor that it is wrong; run it again where nothing
else does.

"""


def write(rows: Sequence[dict[str, Any]], apart: Sequence[dict[str, Any]], figures: dict[str, Any], path: Path) -> None:
    """Write the report."""
    parts = [
        _HEAD,
        _machine(),
        "" if figures["quiet"] else _NOT_QUIET.format(cores=figures["others_cores"]),
        _summary(figures),
        "\n## One engine\n\n" + _table(rows),
        "\n## Prefill and decode apart, through a shared folder\n\n" + _table(apart) if apart else "",
        "\n## Memory of a stand-in of one block of every kind\n\n" + _memory(),
    ]
    path.write_text("".join(parts), encoding="utf-8")


def _machine() -> str:
    return (
        f"Machine: {os.cpu_count()} cores of {_processor()}, shared with other programs; vLLM 0.32.0 on one thread in "
        f"bfloat16, eager, max_num_seqs {MAX_NUM_SEQS}, the model inside the engine's process "
        "(VLLM_ENABLE_V1_MULTIPROCESSING=0); front end and client on what is left.\n\n"
    )


def _summary(figures: dict[str, Any]) -> str:
    lines = ["| figure | value |", "|---|---|"]
    lines += [f"| {name.replace('_', ' ')} | {value} |" for name, value in figures.items()]
    return "\n".join(lines) + "\n"


def _table(rows: Sequence[dict[str, Any]]) -> str:
    heads = [
        "model",
        "load",
        *(f"{name} {part}" for name in ("TTFT", "TPOT") for part in _PARTS),
        "pace",
        "others' cores",
    ]
    lines = ["| " + " | ".join(heads) + " |", "|---|---|" + "--:|" * (len(heads) - 2)]
    for row in rows:
        cells = [row["model"], row["load"]]
        for metric in ("ttft", "tpot"):
            cells += [f"{row[f'{metric}_predicted_ms']:.1f} ms", f"{row[f'{metric}_measured_ms']:.1f} ms",
                      f"{row[f'{metric}_error']:+.0%}", f"{row[f'{metric}_error_paced']:+.0%}",
                      f"{row[f'{metric}_noise']:.0%}"]  # fmt: skip
        lines.append("| " + " | ".join([*cells, f"{row['pace']:.2f}", f"{row['others_cores']:.2f}"]) + " |")
    return "\n".join(lines) + "\n"


def _memory() -> str:
    lines = ["| model | weights of the stand-in | share of the full model's |", "|---|--:|--:|"]
    for name in _SHOWN:
        model = find_model(name)
        part, whole = weight_elements(one_of_each(model)).total, weight_elements(model).total
        lines.append(f"| {model.name} | {part / 1e9:.2f} billion | {part / whole:.1%} |")
    return "\n".join(lines) + "\n"


def one_of_each(model: Model) -> Model:
    """The model with one block of every kind."""
    return replace(model, layers=tuple((layer, 1) for layer, _ in model.layers))


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
