"""Closed loops and Poisson loads on one engine: predicted with the simulator, then sent to the served full model."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.cpu_vllm import quiet
from benchmarks.cpu_vllm.models import MAX_BATCHED, MAX_MODEL_LEN, MAX_NUM_SEQS, MODELS, SETTINGS
from catalog.fingerprints import FingerprintKey
from catalog.fitted import load_constants
from flows.engine_probe import poisson, probe_engine
from planner.fit.blocks import fit_blocks
from planner.fit.learned import learned
from planner.queueing import Engine, capacity
from planner.simulate import Simulation, simulate, simulate_closed
from planner.strategies import Configuration
from planner.workload import Requests
from probes import grid, served, standin
from probes.vllm import VllmRunner

CONCURRENCY = (1, 4, 12)
LOAD = (0.3, 0.5, 0.7)
VOCABULARY = 8192
KV_SPACE_BYTES = 2**30
#: Blocks by which the deeper stand-in exceeds the one of one block: noise of their difference counts less, the more.
EXTRA = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One load: its kind and level, its requests, and what was predicted."""

    load: str
    sent: list[served.Sent]
    concurrency: int | None
    predicted: Simulation


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """What a probe took, and what it could not measure."""

    wall_s: float
    pace_s: float
    """Of the machine, around the probe."""
    failures: dict[str, str] = field(default_factory=dict)


def probe(name: str, python: str) -> tuple[Engine, Probed]:
    """Probe stand-ins of one model and make the full model's engine of them."""
    pace, begun, config = quiet.pace_s(), time.monotonic(), MODELS[name]
    runner = VllmRunner(
        python=python, config=config, engine=SETTINGS.arguments, environment=SETTINGS.environment, together=True,
        sizes=grid.SMALL.within(max_model_len=MAX_MODEL_LEN, max_tokens=MAX_BATCHED, max_seqs=MAX_NUM_SEQS),
        clock="cpu", extra=EXTRA,
    )  # fmt: skip
    key = FingerprintKey(
        model=name, model_digest="", gpu="cpu", tp=1, quantization="bf16", kv_dtype="bf16", engine_version="0.32.0",
        runner="vllm",
    )  # fmt: skip
    fingerprint = probe_engine(key, config, SETTINGS, runner=runner)
    configuration = Configuration(model=name, gpu="cpu")
    predictor = fit_blocks(fingerprint, configuration, learned(load_constants(), "async"))
    kv_bytes = 2 * config["num_key_value_heads"] * config["head_dim"] * 2 * config["num_hidden_layers"]
    engine = Engine(
        predictor=predictor, kv_tokens=KV_SPACE_BYTES // kv_bytes, max_num_seqs=MAX_NUM_SEQS, block_size=128,
        max_num_batched_tokens=MAX_BATCHED, max_model_len=MAX_MODEL_LEN,
        schedules_ahead=configuration.schedules_ahead,
        kv_bytes_per_token=float(kv_bytes),
    )  # fmt: skip
    wall = time.monotonic() - begun
    return engine, Probed(wall_s=wall, pace_s=(pace + quiet.pace_s()) / 2, failures=fingerprint.failures)


def measure(name: str, engine: Engine, probed: Probed, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Predict every load, serve the full model, send them."""
    chosen = cases(engine, rounds=4 if options.quick else 8)
    with tempfile.TemporaryDirectory(prefix="fleetplan-") as folder:
        model = standin.write(MODELS[name], Path(folder))
        argv = ["--load-format", "dummy", *SETTINGS.argv()]
        with served.server(options.python, model, argv, environment=SETTINGS.environment) as url:
            for concurrency in (1, 8):
                served.send(url, chosen[0].sent[:8], concurrency=concurrency, vocabulary=VOCABULARY)
            runs = rounds(chosen, partial(_sent, url), options)
    return [row(name, case, each, probed) for case, each in zip(chosen, runs, strict=True)]


def _sent(url: str, case: Case, seed: int) -> pl.DataFrame:
    return served.send(url, case.sent, concurrency=case.concurrency, vocabulary=VOCABULARY, seed=seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One served run: its requests, the cores that others used around it, the machine's pace around it."""

    rows: pl.DataFrame
    others: float
    pace_s: float


def rounds(
    chosen: Sequence[Case], once: Callable[[Case, int], pl.DataFrame], options: argparse.Namespace
) -> list[list[Run]]:
    """Run every load once in each of several rounds: what a machine does for minutes then meets all of them alike."""
    runs: list[list[Run]] = [[] for _ in chosen]
    for number in range(options.repeats):
        for case, before in zip(chosen, runs, strict=True):
            others, pace = quiet.wait(options.patience), quiet.pace_s()
            rows = once(case, number)
            before.append(Run(rows=rows, others=(others + quiet.others()) / 2, pace_s=(pace + quiet.pace_s()) / 2))
    return runs


def cases(engine: Engine, *, rounds: int) -> list[Case]:
    """Three closed loops and three Poisson loads, predicted."""
    dice = np.random.default_rng(0)
    found = []
    for concurrency in CONCURRENCY:
        requests = _requests(dice, max(8, rounds * concurrency // 2))
        predicted = simulate_closed(engine, requests, concurrency=concurrency, num_prompts=len(requests.prompt))
        label = f"closed loop of {concurrency}"
        found.append(Case(load=label, sent=_plain(requests), concurrency=concurrency, predicted=predicted))
    for load in LOAD:
        requests = _requests(dice, 5 * rounds)
        rate = load * float(capacity(engine, requests).rate)
        sent = poisson(rate, len(requests.prompt), prompts=requests.prompt.tolist(), outputs=requests.output.tolist(),
                       gaps=dice.exponential(size=len(requests.prompt)).tolist())  # fmt: skip
        predicted = simulate(engine, replay(sent, rate), rate=rate)
        found.append(Case(load=f"Poisson, {load:.0%} of capacity", sent=sent, concurrency=None, predicted=predicted))
    return found


def replay(sent: Sequence[served.Sent], rate: float) -> Requests:
    """The requests that are sent, as the simulator takes them."""
    arrival = np.array([request.arrival_s for request in sent])
    lengths = np.array([[request.prompt, request.output] for request in sent])
    return Requests(rate=rate, prompt=lengths[:, 0], output=lengths[:, 1], cached=np.zeros(len(sent), np.int64),
                    arrival_cv=1.0, arrival_s=arrival - arrival[0])  # fmt: skip


def _requests(dice: np.random.Generator, n: int) -> Requests:
    return Requests(
        rate=1.0, prompt=dice.integers(64, 384, n), output=dice.integers(16, 64, n), cached=np.zeros(n, np.int64),
        arrival_cv=1.0,
    )  # fmt: skip


def _plain(requests: Requests) -> list[served.Sent]:
    lengths = zip(requests.prompt.tolist(), requests.output.tolist(), strict=True)
    return [served.Sent(arrival_s=0.0, prompt=prompt, output=output) for prompt, output in lengths]


def row(name: str, case: Case, runs: Sequence[Run], probed: Probed) -> dict[str, Any]:
    """Predicted beside measured, the median over the requests of all runs; noise is the range of the runs' medians.

    `pace` is how much longer a fixed computation took around the runs than around the probe; `_error_paced` is the
    error of the prediction times that.
    """
    pace = float(np.mean([run.pace_s for run in runs])) / probed.pace_s
    found: dict[str, Any] = {"model": name, "load": case.load, "requests": len(case.sent), "pace": round(pace, 3)}
    for metric in ("ttft", "tpot"):
        seen = [_median(run.rows, metric) for run in runs]
        measured = _median(pl.concat([run.rows for run in runs]), metric)
        predicted = float(np.nanmedian(getattr(case.predicted, f"{metric}_s")))
        found[f"{metric}_predicted_ms"] = round(predicted * 1e3, 2)
        found[f"{metric}_measured_ms"] = round(measured * 1e3, 2)
        found[f"{metric}_error"] = round(predicted / measured - 1, 4)
        found[f"{metric}_error_paced"] = round(predicted * pace / measured - 1, 4)
        found[f"{metric}_noise"] = round((max(seen) - min(seen)) / measured, 4)
    found["others_cores"] = round(float(np.median([run.others for run in runs])), 2)
    found["failed"] = sum(run.rows["error"].drop_nulls().len() for run in runs)
    return found


def _median(run: pl.DataFrame, metric: str) -> float:
    values = run[f"{metric}_s"].drop_nulls().to_numpy()
    return float(np.median(values)) if values.size else float("nan")
