"""Probe a GPU and set what it takes beside the published kernel tables, operator by operator.

    python -m benchmarks gpu_probe --gpu h200_sxm [--python .venv/bin/python] [--root var] [--write] [--json]

Run it on a node with that GPU (torch with CUDA in the interpreter that --python names). One rank's layers of each model
are timed with real kernels at TP 1, the fingerprints are kept in the catalog under --root, and `--write` makes
benchmarks/<gpu>-probe.md. The last line holds the medians: shapes, median_error (|probe / table - 1|), and by kind.
"""

from __future__ import annotations

import argparse
import json as json_text
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from catalog.fingerprints import Fingerprint, Op
from catalog.fitted import load_constants
from catalog.gpus import GPU, find_gpu, load_gpus
from catalog.models import find_model
from flows.measuring import Asked, measure_missing
from flows.site import store_at
from planner.fit.learned import Learned, learned
from planner.fit.measured import Measured, read, times
from planner.fit.terms import TERMS
from planner.ops import ops
from planner.roofline import op_time
from planner.strategies import Configuration
from probes.reference import ReferenceRunner
from probes.runners import Runner

MODELS = ("meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-70B", "Qwen/Qwen3-30B-A3B", "openai/gpt-oss-20b")
#: Kinds that the tables measure kernel by kernel; a torch elementwise pass is fused otherwise in vLLM.
_COMPARED = ("gemm", "lm_head", "attention_prefill", "attention_decode", "moe")


def main(json: bool, argv: list[str]) -> None:  # noqa: FBT001 - what `python -m benchmarks` hands over
    """Probe, compare, print; write the report where asked to."""
    options = _options(argv)
    gpu, runner = find_gpu(options.gpu), ReferenceRunner(bound=op_time, gpus=load_gpus())
    rows: list[dict[str, Any]] = []
    for name in options.models:
        probed = _probed(name, gpu, options)
        rows += compare(probed, gpu, runner)
        for what, why in sorted(probed.failures.items()):
            print(f"{name}: {what}: {why}", file=sys.stderr)
    for row in rows:
        print(json_text.dumps(row) if json else "  ".join(f"{key}={value}" for key, value in row.items()), flush=True)
    figures = headline(rows)
    if options.write:
        path = Path(__file__).with_name(f"{gpu.name.removesuffix('_sxm')}-probe.md")
        path.write_text(report(gpu, rows, figures), encoding="utf-8")
    print(json_text.dumps(figures) if json else "  ".join(f"{key}={value}" for key, value in figures.items()))


def _options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks gpu_probe", description=__doc__)
    parser.add_argument("--gpu", default="h200_sxm", help="type of the GPU of this machine")
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--python", default=sys.executable, help="interpreter that has torch with CUDA")
    parser.add_argument("--root", default="var", help="where the fingerprints are kept")
    parser.add_argument("--budget", type=float, default=0.0, help="seconds per model beyond the coarse grid")
    parser.add_argument("--write", action="store_true", help="write benchmarks/<gpu>-probe.md")
    return parser.parse_args(argv)


def _probed(name: str, gpu: GPU, options: argparse.Namespace) -> Fingerprint:
    asked = Asked(runner="torch", model=find_model(name), config=None, gpu=gpu, python=options.python)
    return measure_missing(asked, store_at(options.root), budget_s=options.budget).fingerprint


def compare(probed: Fingerprint, gpu: GPU, runner: Runner) -> list[dict[str, Any]]:
    """Every point of a probe beside the tables' time at the same size; operators that the tables lack are left out."""
    model = find_model(probed.key.model)
    found = ops(model, Configuration(model=model.name, gpu=gpu.name, tp=probed.key.tp))
    key = replace(probed.key, runner="reference")
    table = read(runner.run(key, found, gpu=gpu))
    rows: list[dict[str, Any]] = []
    for measured in read(probed):
        if measured.op.kind in _COMPARED:
            rows += _beside(model.name, measured, gpu, table)
    return rows


def _beside(model: str, measured: Measured, gpu: GPU, table: Sequence[Measured]) -> Iterator[dict[str, Any]]:
    op = _plain(measured.op)
    for x, y, time_s in zip(measured.x, measured.y, measured.time_s, strict=True):
        known = times(op, gpu, tuple(table), x=np.array([x]), y=np.array([y]), learned=_neutral())
        if known.source in ("measured", "reference"):
            published = float(known.time_s.ravel()[0]) + known.launch_s
            yield {
                "model": model, "op": op.name, "kind": op.kind, "x": int(x), "y": int(y),
                "probe_us": round(1e6 * float(time_s), 2), "table_us": round(1e6 * published, 2),
                "ratio": round(float(time_s) / published, 4),
            }  # fmt: skip


def _plain(op: Op) -> Op:
    return replace(op, count=1)


def _neutral() -> Learned:
    """Factors of 1: kernels as they were measured, not as an engine runs them."""
    return replace(learned(load_constants(), "async"), in_situ=dict.fromkeys(TERMS, 1.0))


def headline(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Median of |probe / table - 1|, over all points and by kind."""
    figures: dict[str, Any] = {"shapes": len({(row["op"], row["model"]) for row in rows}), "points": len(rows)}
    for name, chosen in [("median_error", rows)] + [
        (f"median_error_{kind}", [row for row in rows if row["kind"] == kind]) for kind in _COMPARED
    ]:
        figures[name] = round(float(np.median([abs(row["ratio"] - 1) for row in chosen])), 4) if chosen else None
    return figures


def report(gpu: GPU, rows: Sequence[dict[str, Any]], figures: dict[str, Any]) -> str:
    """The committed page: figures, then every point."""
    table = pl.DataFrame(rows) if rows else pl.DataFrame()
    command = f"`python -m benchmarks gpu_probe --gpu {gpu.name} --write`"
    how = "layers timed with torch's kernels in bf16, under CUDA graphs where they can be captured"
    against = "the tables of aiconfigurator-core 0.12.0"
    shown = [f"| {name.replace('_', ' ')} | {value} |" for name, value in figures.items()]
    points = ["| " + " | ".join(map(str, row)) + " |" for row in table.rows()]
    lines = [
        f"# {gpu.name}: probe beside published kernel tables", "",
        f"{command} wrote this file: {how}, beside {against}.", "",
        "| figure | value |", "|---|---|", *shown, "", "| " + " | ".join(table.columns) + " |",
        "|" + "---|" * len(table.columns), *points, "",
    ]  # fmt: skip
    return "\n".join(lines)
