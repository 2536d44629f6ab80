"""Prediction beside measurement on a real vLLM of this machine's CPU: no accelerator, the whole path.

    python -m benchmarks cpu_vllm --json [--python .venv-vllm/bin/python] [--write] [--quick]

For each small model: probe stand-ins for seconds, predict closed loops and Poisson loads at three levels each with the
simulator, then serve the full model and measure. Then the same for prefill and decode apart, joined by a shared folder.
Nothing measured in the served full model enters the prediction.
"""

from __future__ import annotations

import argparse
import json as json_text
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cpu_vllm import loads, pair, quiet, report
from benchmarks.cpu_vllm.models import MODELS

Row = dict[str, Any]


def main(json: bool, argv: list[str]) -> None:  # noqa: FBT001 - what `python -m benchmarks` hands over
    """Probe, predict, measure, print; the last line holds the medians over all cases."""
    options = _options(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # an end that lets the servers be stopped
    rows: list[Row] = []
    apart: list[Row] = []
    for name in options.models:
        engine, probed = loads.probe(name, options.python)
        if not options.no_pair and name == options.models[0]:
            apart += pair.measure(name, engine, probed, options)
        rows += loads.measure(name, engine, probed, options) if not options.pair_only else []
        for row in rows + apart:
            if row["model"] == name:
                row |= {"probe_s": round(probed.wall_s, 1), "probe_failures": len(probed.failures)}
                print(json_text.dumps(row) if json else _line(row), flush=True)
        for what, why in probed.failures.items():
            print(f"{name}: {what}: {why}", file=sys.stderr)
    figures = headline(rows, apart)
    if options.write:
        report.write(rows, apart, figures, Path(__file__).parents[1] / "cpu-vllm.md")
    print(json_text.dumps(figures) if json else _line(figures))


def headline(rows: list[Row], apart: list[Row]) -> dict[str, Any]:
    """Median absolute errors over the cases, the noise of repeated runs beside them, and the longest probe."""
    figures: dict[str, Any] = {"cases": len(rows), "cases_apart": len(apart)}
    for metric in ("ttft", "tpot"):
        for label, chosen in (("", rows), ("apart_", apart)):
            if chosen:
                for said in ("error", "error_paced"):
                    figures[f"{label}{metric}_median_{said}"] = _middle(abs(row[f"{metric}_{said}"]) for row in chosen)
                figures[f"{label}{metric}_noise"] = _middle(row[f"{metric}_noise"] for row in chosen)
    figures["others_cores"] = _middle(row["others_cores"] for row in rows + apart)
    figures["quiet"] = figures["others_cores"] <= quiet.QUIET_CORES
    figures["failed"] = sum(row["failed"] for row in rows + apart)
    return figures | {"probe_s_max": max((row["probe_s"] for row in rows + apart), default=0.0)}


def _middle(values: Any) -> float:  # noqa: ANN401 - any iterable of numbers
    return round(float(np.median(list(values))), 4)


def _options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks cpu_vllm")
    parser.add_argument("--python", default=os.environ.get("FLEETPLAN_VLLM_PYTHON", ".venv-vllm/bin/python"))
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--repeats", type=int, default=3, help="served runs of each load; their spread is the noise")
    parser.add_argument("--patience", type=float, default=8.0, help="seconds to wait for a quiet machine, each run")
    parser.add_argument("--quick", action="store_true", help="fewer requests")
    parser.add_argument("--no-pair", action="store_true", help="leave out disaggregated prefill and decode")
    parser.add_argument("--pair-only", action="store_true", help="disaggregated prefill and decode alone")
    parser.add_argument("--write", action="store_true", help="write benchmarks/cpu-vllm.md")
    return parser.parse_args(argv)


def _line(row: dict[str, Any]) -> str:
    return "  ".join(f"{name}={value}" for name, value in row.items())
