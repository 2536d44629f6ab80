"""Prefill and decode on two servers, their KV through a shared folder: predicted, then measured.

vLLM's ExampleConnector writes each prompt's KV in whole blocks to a folder and reads it there. A request goes to the
producer with one output token, then to the consumer with all of them, as a router sends it. Prompts are two tokens
longer than whole blocks, so that all blocks are moved and the consumer computes the rest itself.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.cpu_vllm import loads
from benchmarks.cpu_vllm.models import MODELS, SETTINGS
from flows.engine_probe import poisson
from planner.queueing import Engine
from planner.queueing.queue import Transfer
from planner.simulate import simulate_disaggregated
from probes import served, standin

_BLOCK = 128
_RATES = (0.5, 1.5)
"""Requests per second: two engines and their client share the machine, so the load is light."""


def measure(name: str, engine: Engine, probed: loads.Probed, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Serve the pair, and set each rate's measured latencies beside `simulate_disaggregated`'s."""
    n = 8 if options.quick else 16
    with tempfile.TemporaryDirectory(prefix="fleetplan-") as folder, ExitStack() as stack:
        shared = Path(folder) / "kv"
        shared.mkdir()
        transfer = _link(shared, engine)
        chosen = [_case(engine, rate, n, transfer) for rate in _RATES]
        model = standin.write(MODELS[name], Path(folder) / "model")

        def serve(role: str, core: str) -> str:
            environment = SETTINGS.environment | {"VLLM_CPU_OMP_THREADS_BIND": core}  # a core each
            argv = ["--load-format", "dummy", *SETTINGS.argv(), "--kv-transfer-config", _connector(role, shared)]
            return stack.enter_context(
                served.server(options.python, model, argv, environment=environment, ready_within_s=300.0)
            )

        urls = (serve("kv_producer", "0"), serve("kv_consumer", "1"))
        for seed in (98, 99):
            _send(urls, replace(chosen[0], sent=chosen[0].sent[:4]), seed)
        runs = loads.rounds(chosen, partial(_send, urls), options)
    return [loads.row(name, case, each, probed) for case, each in zip(chosen, runs, strict=True)]


def _send(urls: tuple[str, str], case: loads.Case, seed: int) -> pl.DataFrame:
    return served.send(urls[1], case.sent, seed=seed, vocabulary=loads.VOCABULARY, producer=urls[0])


def _connector(role: str, shared: Path) -> str:
    extra = {"shared_storage_path": str(shared)}
    return json.dumps({"kv_connector": "ExampleConnector", "kv_role": role, "kv_connector_extra_config": extra})


def _case(engine: Engine, rate: float, n: int, transfer: Transfer) -> loads.Case:
    dice = np.random.default_rng(2)
    sent = poisson(
        rate, n, prompts=(_BLOCK * dice.integers(1, 4, n) + 2).tolist(), outputs=dice.integers(16, 48, n).tolist(),
        gaps=dice.exponential(size=n).tolist(),
    )  # fmt: skip
    predicted = simulate_disaggregated(engine, engine, loads.replay(sent, rate), transfer=transfer, rate=rate)
    return loads.Case(load=f"1P1D, Poisson of {rate:g} /s", sent=sent, concurrency=None, predicted=predicted)


def _link(shared: Path, engine: Engine) -> Transfer:
    """Time the folder itself: one file per block of layers written and read back, of 128 and of 512 tokens.

    The decode side is another server, so its front end is paid once more: `latency_s` holds it.
    """
    per_token = engine.kv_bytes_per_token or 0.0
    times = {tokens: min(_file_s(shared, int(tokens * per_token)) for _ in range(5)) for tokens in (128, 512)}
    slope = max(1e-12, (times[512] - times[128]) / (384 * per_token))
    latency = max(0.0, times[128] - 128 * per_token * slope) + engine.predictor.request_s
    return Transfer(bandwidth=1.0 / slope, latency_s=latency, kv_bytes_per_token=per_token)


def _file_s(shared: Path, size: int) -> float:
    path, data, begun = shared / "link", bytes(size), time.perf_counter()
    path.write_bytes(data)
    path.read_bytes()
    elapsed = time.perf_counter() - begun
    path.unlink()
    return elapsed
