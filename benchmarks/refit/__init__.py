"""`python -m benchmarks refit --data DIR`: refit the constants of the step-time model and write catalog/fitted.yaml.

DIR holds the three condition sets (see `conditions`). Kernel tables come from the installed package. Nothing else is
read: neither the request log beside the sets nor any public benchmark that the project is scored on.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.refit.conditions import digests, load
from benchmarks.refit.features import Layout
from benchmarks.refit.solve import Residual, Solution, solve
from benchmarks.refit.unseen import half_width, scatter
from benchmarks.refit.validate import GENERATIONS, by_distance, conformal, of, statistics
from catalog.fitted import FITTED
from planner.fit.terms import TERMS

DATA = Path(__file__).parents[3] / "shared" / "data" / "e2e"
COMMAND = "python -m benchmarks refit --data DIR"

#: Share of its roofline that an operator reaches where no table knows it: medians over the tables of six systems
#: (GEMMs from 4096 x 4096 on: bf16 0.75, fp8 0.55, both where memory and where compute binds), between formats.
_EFFICIENCY = {
    "gemm": 0.68, "lm_head": 0.75, "moe": 0.4, "elementwise": 0.7, "sampling": 0.5, "attention_prefill": 0.45,
    "attention_decode": 0.6, "mla_prefill": 0.4, "mla_decode": 0.4, "all_reduce": 0.45, "all_gather": 0.45,
    "reduce_scatter": 0.45, "all_to_all": 0.4, "p2p": 0.6,
}  # fmt: skip
_KERNEL_FLOOR_S = 3e-6
#: Logarithmic half-widths that no left-out run can show, assumed and added in quadrature: another engine version than
#: the calibration's; another harness, host or clock (of TTFT they follow from the constants' priors, see `unseen`);
#: families that the calibration does not hold in today's engine.
#: MoE kernels of two published measurements of one GPU agree within 16 % where GEMMs agree within 5 %.
_UNSEEN = {"version": {"decode": 0.10, "prefill": 0.18}, "family": {"moe": 0.22, "mla": 0.22, "four_bit": 0.15}}
#: The same for a GPU whose kernels come from another's: an RTX 4090's measured GEMMs beside those from L40S tables are
#: 5-20 % off where memory binds (its decode attention 20-40 %) and 45 % where compute does.
_TRANSFER = {"decode": 0.20, "prefill": 0.35, "ttft": 0.35}


def main(json_lines: bool, arguments: Sequence[str]) -> int:  # noqa: FBT001 - the dispatcher's signature
    """Fit, cross-validate, print a summary, write the constants."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks refit", description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the three condition sets")
    parser.add_argument("--out", type=Path, default=FITTED, help="file to write")
    options = parser.parse_args(arguments)
    conditions, left_out = load(options.data)
    layout = Layout()
    laid = [layout.lay(condition) for condition in conditions]
    solutions = {generation: solve(of(laid, generation), generation) for generation in GENERATIONS}
    found = by_distance(laid, solutions)
    content = {
        "provenance": _provenance(options.data, len(conditions), left_out),
        **_constants(solutions),
        "intervals": _intervals(found, half_width(of(laid, "v1"), solutions["v1"], found["new_model"])),
        "residuals": {distance: _summary(residuals) for distance, residuals in found.items()},
    }
    options.out.write_text(_text(content), encoding="utf-8")
    if json_lines:
        print(json.dumps(content["residuals"]))
        return 0
    for distance, summary in content["residuals"].items():
        print(
            f"{distance:10s}",
            "  ".join(f"{name} {row['median']:.1%} (n {row['n']:.0f})" for name, row in summary.items()),
        )
    print(f"wrote {options.out}")
    return 0


def _text(content: dict[str, Any]) -> str:
    head = (
        "# Constants of the step-time model, written by `" + COMMAND + "`. Seconds; factors without unit.\n"
        "# residuals: extrapolation distance -> metric -> |predicted/measured - 1| over left-out runs.\n"
    )
    return head + yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=120)


def _provenance(data: Path, used: int, left_out: dict[str, str]) -> dict[str, Any]:
    tables = "aiconfigurator-core"
    return {
        "command": COMMAND,
        "tables": f"{tables} {importlib.metadata.version(tables)}",
        "runs": used,
        "left_out": dict(sorted(Counter(left_out.values()).items())),
        "sha256": digests(data),
        "assumed": "efficiency, kernel_floor_s, intervals.unseen",
    }  # fmt: skip


def _constants(solutions: dict[str, Solution]) -> dict[str, Any]:
    names = ("step_s", "layer_s", "mixed_step_s", "mixed_layer_s", "sequence_s", "filtered_sequence_s", "request_s")
    dispatch, in_situ = {}, {}
    for engine, generation in (("async", "v1"), ("v1", "v1"), ("v0", "v0")):
        values = dict(solutions[generation].values)
        values["step_s"] += values["sync_s"] if engine == "v1" else 0.0
        dispatch[engine] = {name: _rounded(values.get(name, 0.0)) for name in names} | {"output_token_s": 0.0}
        in_situ[engine] = {term: _rounded(values.get(term, 1.0)) for term in TERMS}
    return {"dispatch": dispatch, "in_situ": in_situ, "efficiency": _EFFICIENCY, "kernel_floor_s": _KERNEL_FLOOR_S}


def _intervals(found: dict[str, list[Residual]], ttft: float) -> dict[str, Any]:
    """By source: conformal on the runs left out at that distance, widened by what they cannot show."""
    seen = [r for distance in ("new_tp", "new_model", "new_gpu") for r in found[distance]]
    rows: dict[str, Any] = {}
    for phase, metrics in (("decode", ("tpot", "latency")), ("prefill", ("ttft",)), ("ttft", ("ttft",))):
        version, transfer = (_UNSEEN["version"] | {"ttft": ttft})[phase], _TRANSFER[phase]
        rows[phase] = {
            "measured": _interval(seen, metrics, version),
            "reference": _interval(seen, metrics, version),
            "fitted": _interval(seen, metrics, version),
            "transferred": _interval(found["no_table"] + seen, metrics, version, transfer),
            "roofline": _interval(found["roofline"] + seen, metrics, version, 2 * transfer),
        }
    between = {
        "decode": _rounded(scatter(found["new_model"], ("tpot", "latency"))),
        "prefill": _rounded(scatter(found["new_model"], ("ttft",))),
    }
    return rows | {"unseen": _UNSEEN["family"], "scatter": between}


def _interval(residuals: Sequence[Residual], metrics: Sequence[str], *more: float) -> dict[str, float]:
    low, high = conformal(r.value for r in residuals if r.metric in metrics)
    return {"low": _rounded(_wider(low, *more)), "high": _rounded(_wider(high, *more))}


def _wider(factor: float, *more: float) -> float:
    """A multiplier with independent logarithmic half-widths added in quadrature."""
    width = math.sqrt(math.log(factor) ** 2 + sum(extra**2 for extra in more))
    return math.exp(width if factor >= 1 else -width)


def _summary(residuals: Sequence[Residual]) -> dict[str, dict[str, float]]:
    by_metric: dict[str, list[Residual]] = {"all": list(residuals)}
    for residual in residuals:
        by_metric.setdefault(f"{residual.laid.condition.origin}_{residual.metric}", []).append(residual)
    return {name: statistics(rows) for name, rows in sorted(by_metric.items())}


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
