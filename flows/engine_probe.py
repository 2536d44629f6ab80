"""Probe a real vLLM: steps of dummy-weight stand-ins, and a short served run for what HTTP and processes add."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from catalog.errors import FleetplanError
from catalog.fingerprints import POINTS_SCHEMA, Fingerprint, FingerprintKey
from catalog.fitted import load_constants
from planner.fit.blocks import fit_blocks
from planner.fit.learned import engine_class, learned
from planner.fit.served import ServedRun, overheads
from planner.strategies import Configuration
from probes import served, standin
from probes.vllm import VllmRunner, typical

#: The closed loops that tell a step's overhead from a sequence's: (concurrency, prompt, output); each is run `_ROUNDS`
#: times. Of many requests at once two lengths, since they never come in at once (`planner.fit.served`).
_LOOPS = ((1, 64, 16), (1, 384, 16), (12, 64, 8), (12, 64, 24))
_ROUNDS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """One engine: vLLM's names and values, and the environment that it needs (`VLLM_CPU_KVCACHE_SPACE`, ...)."""

    arguments: Mapping[str, object]
    environment: Mapping[str, str]

    def argv(self) -> list[str]:
        """The same as long flags of `vllm serve`."""
        flags: list[str] = []
        for name, value in sorted(self.arguments.items()):
            flag = name.replace("_", "-")
            flags += (
                [f"--{flag}" if value else f"--no-{flag}"] if isinstance(value, bool) else [f"--{flag}", str(value)]
            )
        return flags


def probe_engine(  # noqa: PLR0913 - keywords
    key: FingerprintKey,
    config: standin.Config,
    settings: EngineSettings,
    *,
    runner: VllmRunner,
    serve: bool = True,
    known: Sequence[dict[str, Any]] = (),
    on_row: Callable[[dict[str, Any]], None] | None = None,
) -> Fingerprint:
    """Measure one model's steps and, with `serve`, what a served request pays beside them.

    The served run uses the stand-in that the runner's deepest design has, so that it too needs no full model. Where the
    runner keeps its stand-ins together (no accelerator to divide), the server starts while they do; nothing is measured
    before both are up. A server that does not start is a failure of the fingerprint, its steps are kept. Steps and
    loops are compared at their least disturbed, and all times then raised to a typical round's (`probes.vllm.typical`).
    """
    small = standin.cut(config, 1 + runner.extra).config
    ready = threading.Event()
    if not serve or not runner.together:
        steps = runner.run(key, known=known, on_row=on_row)
        if serve:
            steps = _with_overheads(steps, small, lambda: _served_alone(runner.python, small, settings))
        return typical(steps)
    with ThreadPoolExecutor(1) as pool:
        measuring = pool.submit(runner.run, key, known=known, on_row=on_row, wait=ready.wait)
        try:
            with _serving(runner.python, small, settings) as url:
                ready.set()
                steps = _with_overheads(measuring.result(), small, lambda: served_runs(url, small))
        except FleetplanError as error:
            ready.set()
            steps = _unserved(measuring.result(), error)
        finally:
            ready.set()
    return typical(steps)


@contextlib.contextmanager
def _serving(python: str, config: standin.Config, settings: EngineSettings) -> Any:  # noqa: ANN401 - an iterator of URLs
    with tempfile.TemporaryDirectory(prefix="fleetplan-") as folder:
        model = standin.write(config, Path(folder))
        argv = ["--load-format", "dummy", *settings.argv()]
        with served.server(python, model, argv, environment=settings.environment) as url:
            yield url


def _served_alone(python: str, config: standin.Config, settings: EngineSettings) -> list[ServedRun]:
    with _serving(python, config, settings) as url:
        return served_runs(url, config)


def _with_overheads(steps: Fingerprint, small: standin.Config, runs: Callable[[], Sequence[ServedRun]]) -> Fingerprint:
    """Add `overhead` points: the served stand-in's latencies beyond the steps of an engine of its depth."""
    if steps.points.is_empty():
        return steps
    key = steps.key
    counts = {"block_" + "_".join(kind): count for kind, count in standin.kinds(small).items()}
    constants = learned(load_constants(), engine_class(key.engine_version))
    engine = fit_blocks(_at_depth(steps, counts), Configuration(model=key.model, gpu=key.gpu), constants)
    try:
        extra = overheads(engine, runs())
    except FleetplanError as error:
        return _unserved(steps, error)
    rows = [
        (name, "overhead", "", "", 1, 1.0, 0.0, max(seconds, 1e-9), steps.points["spread"][0], "measured")
        for name, seconds in sorted(extra.items())
    ]
    points = pl.concat([steps.points, pl.DataFrame(rows, schema=POINTS_SCHEMA, orient="row")])
    return replace(steps, points=points, provenance=f"{steps.provenance}; served run of {len(_LOOPS)} closed loops")


def _unserved(steps: Fingerprint, error: FleetplanError) -> Fingerprint:
    return replace(steps, failures=steps.failures | {"served run": str(error)[-500:]})


def served_runs(url: str, config: standin.Config) -> list[ServedRun]:
    """Time closed loops of equal requests against a server; raises FleetplanError where no request is answered."""
    vocabulary = int(config.get("vocab_size") or 32000)
    for concurrency in (1, 8):
        warm = [served.Sent(arrival_s=0.0, prompt=64, output=8)] * concurrency
        served.send(url, warm, concurrency=concurrency, vocabulary=vocabulary)
    found = []
    for concurrency, prompt, output in _LOOPS * _ROUNDS:
        loop = [served.Sent(arrival_s=0.0, prompt=prompt, output=output)] * max(4, 2 * concurrency)
        rows = served.send(url, loop, concurrency=concurrency, vocabulary=vocabulary)
        found.append(_median(rows, concurrency=concurrency, prompt=prompt, output=output))
    return found


def _median(rows: pl.DataFrame, *, concurrency: int, prompt: int, output: int) -> ServedRun:
    """A loop's first token and whole answer: medians, or the soonest of requests that met no other."""
    answered = rows.filter(pl.col("error").is_null())
    if answered.is_empty():
        raise FleetplanError(f"no request of the served run was answered: {rows['error'][0]}")
    latency = pl.col("ttft_s", "e2e_s")
    ttft, e2e = answered.select(latency.min() if concurrency == 1 else latency.median()).row(0)
    tpot = (e2e - ttft) / (output - 1)
    return ServedRun(concurrency=concurrency, prompt=prompt, output=output, ttft_s=float(ttft), tpot_s=float(tpot))


def _at_depth(fingerprint: Fingerprint, counts: Mapping[str, int]) -> Fingerprint:
    """The same blocks, counted as a shallower model has them."""
    count = pl.col("op").replace_strict(dict(counts), default=1, return_dtype=pl.Int64)
    return replace(fingerprint, points=fingerprint.points.with_columns(count=count))


def poisson(
    rate: float, n: int, *, prompts: Sequence[int], outputs: Sequence[int], gaps: Sequence[float]
) -> list[served.Sent]:
    """Requests at `rate` per second; `gaps` are draws of the unit exponential, lengths are taken in turn."""
    arrival = 0.0
    sent = []
    for index in range(n):
        arrival += gaps[index] / rate
        sent.append(served.Sent(arrival_s=arrival, prompt=prompts[index], output=outputs[index]))
    return sent
