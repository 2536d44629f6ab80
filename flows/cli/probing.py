"""`fleetplan probe`: measure a model on the device at hand, what is missing alone, and keep it in the catalog."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Annotated, Any

import typer

from catalog.errors import BadInput
from flows.cli import options

#: What a vLLM engine on a CPU is told unless the user says otherwise; on GPUs vLLM's own defaults stand.
_CPU_ENGINE: dict[str, object] = {
    "dtype": "bfloat16", "max_model_len": 2048, "max_num_seqs": 16, "max_num_batched_tokens": 2048,
    "enforce_eager": True,
}  # fmt: skip
_GPU_ENGINE: dict[str, object] = {"max_model_len": 16384, "max_num_seqs": 128, "max_num_batched_tokens": 8192}
_CPU_ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "0"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(probe)


def probe(  # noqa: PLR0913 - options
    *,
    model: Annotated[str, typer.Option(help="config.json of the model, or (torch) the name of a known one.")],
    gpu: Annotated[str, typer.Option(help="GPU type of this machine; `cpu` where it has none.")],
    runner: Annotated[str, typer.Option(help="torch: real kernels, one by one; vllm: steps of a real engine.")],
    tp: Annotated[int, typer.Option(min=1, max=64, help="Tensor-parallel degree.")] = 1,
    quantization: Annotated[str, typer.Option(help="Weight format.")] = "bf16",
    python: Annotated[str, typer.Option(help="Interpreter that has torch or vLLM.")] = "",
    engine: Annotated[list[str] | None, typer.Option(help="NAME=VALUE, an engine argument of vLLM; repeat.")] = None,
    env: Annotated[list[str] | None, typer.Option(help="NAME=VALUE, a variable of the probe; repeat.")] = None,
    root: options.Root = options.ROOT,
    as_json: options.Json = False,
) -> None:
    """Measure a model on this machine's device; killed and started again, it measures only what is missing."""
    if runner not in {"torch", "vllm"}:
        raise BadInput(f"unknown runner {runner!r}", mend="give torch or vllm")
    from catalog.gpus import find_gpu  # noqa: PLC0415 - tables are loaded for this command alone
    from flows.measuring import Asked, measure_missing, quantization_of, read_model  # noqa: PLC0415
    from flows.site import store_at  # noqa: PLC0415

    found, config = read_model(model)
    device = find_gpu(gpu)
    on_cpu, vllm = device.vendor == "cpu", runner == "vllm"
    asked = Asked(
        runner="vllm" if vllm else "torch", model=found, config=config, gpu=device, tp=tp,
        quantization=quantization_of(quantization), python=python or _python(vllm=vllm),
        engine=((_CPU_ENGINE if on_cpu else _GPU_ENGINE) | _pairs(engine, json_values=True)) if vllm else {},
        environment=(_CPU_ENVIRONMENT if on_cpu and vllm else {}) | _pairs(env),
    )  # fmt: skip
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # an end that lets the probe's processes be stopped
    begun = time.monotonic()
    answer = measure_missing(asked, store_at(root), on_row=_progress)
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")
    failures = dict(answer.fingerprint.failures)
    shown = {
        "model": answer.fingerprint.key.model, "gpu": device.name, "measured": answer.measured, "found": answer.found,
        "points": answer.fingerprint.points.height, "failures": failures,
        "record": None if answer.record is None else str(answer.record),
        "provenance": answer.fingerprint.provenance, "seconds": round(time.monotonic() - begun, 1),
    }  # fmt: skip
    if as_json:
        options.print_json(shown)
    else:
        for what, why in answer.fingerprint.failures.items():
            sys.stderr.write(f"not measured: {what}: {why}\n")
        sys.stdout.write(f"{found.name} on {device.name}: {answer.measured} pieces measured, {answer.found} found, "
                         f"{answer.fingerprint.points.height} points, {shown['seconds']} s\n")  # fmt: skip
    if answer.fingerprint.points.is_empty():
        raise typer.Exit(1)


def _python(*, vllm: bool) -> str:
    return os.environ.get("FLEETPLAN_VLLM_PYTHON", ".venv-vllm/bin/python") if vllm else sys.executable


def _pairs(texts: list[str] | None, *, json_values: bool = False) -> dict[str, Any]:
    """Read NAME=VALUE texts; values are JSON where that is meant (`true`, `4096`), else text."""
    found: dict[str, Any] = {}
    for text in texts or []:
        name, equals, value = text.partition("=")
        if not equals or not name.replace("_", "").isalnum():
            raise BadInput(f"{text[:80]!r} is no NAME=VALUE", mend="write it as max_model_len=4096")
        try:
            found[name] = json.loads(value) if json_values else value
        except ValueError:
            found[name] = value
    return found


_seen = iter(range(1, 10**9))


def _progress(row: dict[str, Any]) -> None:
    """Say what was measured: one line that is rewritten on a terminal, every 20th piece elsewhere."""
    number = next(_seen)
    what = f"{row.get('op', row.get('kind'))}({row['x']}, {row['y']})"
    result = f"{row['time_s'] * 1e3:.3f} ms" if isinstance(row.get("time_s"), float) else "failed"
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{number} {what} {result}")
    elif number % 20 == 0:
        sys.stderr.write(f"probe    {number} pieces\n")
    sys.stderr.flush()
