"""`python -m benchmarks refit-power`: fit catalog/power.yaml on measured watts, models left out for its error.

The data: 27 runs of Qwen3-8B and Qwen3-14B with vLLM 0.11.1 on one H100 (ML.ENERGY, Apache-2.0), watts and tokens/s
measured. Prompt lengths are not published: `planner.conditions` states what is assumed.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import numpy as np
import polars as pl
import yaml
from scipy.optimize import nnls

from catalog.gpus import find_gpu
from catalog.models import find_model
from catalog.power import PATH
from catalog.predictors import Floats
from planner.conditions import TASKS
from planner.power import Load, features, utilisation
from planner.strategies import Configuration

DATA = Path(__file__).parents[1] / "../shared/data/e2e/mlenergy_h100"
IDLE = 0.14
"""Idle share of the TDP where a data sheet is silent: 99 W of 700 W on an H100 SXM (catalog/gpus.yaml)."""
ELSEWHERE = 0.25
"""Least half-width on GPUs that were not measured (assumed)."""
SPREAD = 1.2
"""Mean context of a running sequence over prompt + half of the mean output: 1 + cv², outputs of cv 0.45 (assumed)."""


def main(_as_json: bool, arguments: list[str]) -> int:  # noqa: FBT001 - what `python -m benchmarks` hands over
    """Read the runs, fit, print the error, write the constants."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks refit-power", description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="folder with inputs.parquet and truth.parquet")
    parser.add_argument("--out", type=Path, default=PATH)
    options = parser.parse_args(arguments)
    rows = pl.read_parquet(options.data / "inputs.parquet").join(
        pl.read_parquet(options.data / "truth.parquet"), on="id", validate="1:1"
    )
    rows = rows.sort("id")
    gpu = find_gpu(rows["gpu"][0])
    uses = np.array([_features(row) for row in rows.iter_rows(named=True)])
    shares = rows["power_w"].to_numpy() / gpu.power
    coefficients = nnls(uses, shares)[0]
    left_out = _left_out(uses, shares, rows["model"].to_numpy())
    error = float(np.quantile(left_out, 0.9))
    fitted = np.abs(uses @ coefficients / shares - 1.0)
    print(f"{len(rows)} runs on {gpu.name}: median error {np.median(fitted):.1%}, worst {fitted.max():.1%};", end=" ")
    print(f"model left out: median {np.median(left_out):.1%}, 90th percentile {error:.1%}")
    digest = hashlib.sha256(b"".join((options.data / f"{n}.parquet").read_bytes() for n in ("inputs", "truth")))
    _write(options.out, coefficients, error, gpu.name, digest.hexdigest())
    return 0


def _features(row: dict[str, object]) -> tuple[float, float, float]:
    """Utilisation of one measured run; a saturated engine is always busy."""
    tokens_per_s, batch = float(row["out_tps"]), float(row["concurrency"])  # type: ignore[arg-type]
    prompt, output = TASKS[str(row["load_kind"]).removeprefix("saturated_")].prompt, float(row["osl"])  # type: ignore[arg-type]
    model = find_model(str(row["model"]))
    load = Load(
        steps_per_s=tokens_per_s / batch,
        sequences=batch,
        context=prompt + output / 2 * SPREAD,
        prompt_tokens_per_s=tokens_per_s / output * prompt,
        prompt=prompt,
    )
    gpu = find_gpu(str(row["gpu"]))
    return features(utilisation(model, Configuration(model=model.name, gpu=gpu.name), gpu, load=load))


def _left_out(uses: Floats, shares: Floats, group: Floats) -> Floats:
    """Relative error of each run when its group takes no part in the fit."""
    errors = np.zeros(len(shares))
    for name in np.unique(group):
        out = group == name
        errors[out] = np.abs(uses[out] @ nnls(uses[~out], shares[~out])[0] / shares[out] - 1.0)
    return errors


def _write(path: Path, coefficients: Floats, error: float, gpu: str, digest: str) -> None:
    busy, kv, compute = (round(float(value), 4) for value in coefficients)
    constants = {
        "idle": IDLE, "busy": busy, "kv": kv, "compute": compute, "error": round(error, 3),
        "error_elsewhere": max(ELSEWHERE, round(2 * error, 3)), "fitted_on": gpu,
        "data": "ML.ENERGY, 27 runs of Qwen3-8B and Qwen3-14B, vLLM 0.11.1, one H100 SXM (Apache-2.0)",
        "data_sha256": digest, "command": "python -m benchmarks refit-power",
    }  # fmt: skip
    text = "# Written by `python -m benchmarks refit-power`; coefficients are shares of the TDP (planner/power.py).\n"
    path.write_text(text + yaml.safe_dump(constants, sort_keys=False, allow_unicode=True), encoding="utf-8")
