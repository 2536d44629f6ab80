"""Measure one (model, GPU) on the device at hand: what the key says, what is missing, and the fingerprint that is kept.

A key holds everything whose change makes old numbers doubtful: the digest of the model's shapes, the format, TP, the
GPU and its driver, the engine's version and its flags. A pair whose key is in the store is not measured again; a probe
that was killed goes on where it stood.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import polars as pl

from catalog.errors import BadInput
from catalog.fingerprints import Fingerprint, FingerprintKey
from catalog.gpus import GPU, find_gpu
from catalog.models import Model, find_model, parse_config
from catalog.quantizations import QuantizationName
from catalog.store import RecordName, Store
from flows.engine_probe import EngineSettings, probe_engine
from flows.kept import Kept, Row
from flows.probe import PROBED, Fingerprints, Pair, keep
from flows.refining import Refined, Weight, refine
from planner.ops import ops
from planner.roofline import op_time
from planner.strategies import Configuration
from probes import grid
from probes.torch import TorchRunner
from probes.vllm import VllmRunner

RunnerName = Literal["torch", "vllm"]
#: What a vLLM engine on a CPU is told unless the user says otherwise; on GPUs vLLM's own defaults stand.
_CPU_ENGINE: dict[str, object] = {
    "dtype": "bfloat16", "max_model_len": 2048, "max_num_seqs": 16, "max_num_batched_tokens": 2048,
    "enforce_eager": True,
}  # fmt: skip
_GPU_ENGINE: dict[str, object] = {"max_model_len": 16384, "max_num_seqs": 128, "max_num_batched_tokens": 8192}
_CPU_ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "0"}
_MAX_CONFIG_BYTES = 4_000_000
_ASK_S = 60.0
_VERSIONS = {
    "torch": "from importlib.metadata import version; print(version('torch'))",
    "vllm": "from importlib.metadata import distributions as d; "
    "print(next(x.version for x in d() if x.metadata['Name'] in ('vllm', 'vllm-cpu')))",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One probe, as the user asks for it."""

    runner: RunnerName
    model: Model
    config: Mapping[str, Any] | None
    """The parsed config.json, which a vLLM runner cuts; None for a model known by name."""
    gpu: GPU
    python: str
    """Interpreter that has torch or vLLM."""
    tp: int = 1
    quantization: QuantizationName = "bf16"
    engine: Mapping[str, object] = field(default_factory=dict)
    """vLLM's engine arguments."""
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of it."""

    fingerprint: Fingerprint
    record: RecordName | None
    """None where nothing could be measured: the next probe tries again."""
    measured: int
    """Pieces measured now."""
    found: int
    """Pieces that were there."""
    refined: Refined | None = None
    """What a budget added."""


def asked_of(  # noqa: PLR0913 - one argument per thing that is asked
    model: str,
    gpu: str,
    runner: str,
    *,
    tp: int = 1,
    quantization: str = "bf16",
    python: str = "",
    engine: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Asked:
    """A probe from the words of a user, with the settings that its device needs. Raises BadInput."""
    if runner not in get_args(RunnerName):
        raise BadInput(f"unknown runner {runner!r}", mend="give torch or vllm")
    found, config = read_model(model)
    device = find_gpu(gpu)
    on_cpu, vllm = device.vendor == "cpu", runner == "vllm"
    return Asked(
        runner="vllm" if vllm else "torch", model=found, config=config, gpu=device, tp=tp,
        quantization=quantization_of(quantization), python=python or _python(vllm=vllm),
        engine=((_CPU_ENGINE if on_cpu else _GPU_ENGINE) | dict(engine or {})) if vllm else {},
        environment=(_CPU_ENVIRONMENT if on_cpu and vllm else {}) | dict(environment or {}),
    )  # fmt: skip


def _python(*, vllm: bool) -> str:
    return os.environ.get("FLEETPLAN_VLLM_PYTHON", ".venv-vllm/bin/python") if vllm else sys.executable


def read_model(text: str) -> tuple[Model, Mapping[str, Any] | None]:
    """Read a model by the path of its config.json or by its name. Raises BadInput for what is neither."""
    path = Path(text)
    if path.suffix != ".json":
        return find_model(text), None
    try:
        if path.stat().st_size > _MAX_CONFIG_BYTES:
            raise BadInput("is larger than 4 MB", place=text, mend="name the config.json of a checkpoint")
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"cannot be read: {error}"[:300], place=text, mend="name the config.json of a model") from error
    if not isinstance(config, dict):
        raise BadInput("holds no object", place=text, mend="name the config.json of a model")
    name = path.parent.name if path.stem == "config" and path.parent.name else path.stem
    return parse_config(config, name=name, source=text), config


def ask(argv: list[str]) -> str:
    """First line that a program prints; empty where it is absent or fails."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_ASK_S, check=True)  # noqa: S603 - no shell
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip().partition("\n")[0]


def key_of(asked: Asked) -> FingerprintKey:
    """Name what is to be measured. Raises BadInput where the interpreter lacks torch or vLLM."""
    version = ask([asked.python, "-I", "-c", _VERSIONS[asked.runner]])
    if not version:
        what = f"{asked.python!r} has no {asked.runner}"
        raise BadInput(what, mend="name an interpreter that has it with --python (vLLM: make test-vllm builds one)")
    driver = ""
    if asked.gpu.vendor == "nvidia":
        driver = ask(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"])
    flags = [f"{name}={value}" for name, value in (*asked.engine.items(), *asked.environment.items())]
    return FingerprintKey(
        model=asked.model.name, model_digest=asked.model.digest, gpu=asked.gpu.name, tp=asked.tp,
        quantization=asked.quantization, kv_dtype="bf16", engine="vllm" if asked.runner == "vllm" else "torch",
        engine_version=version, driver=driver, flags=tuple(sorted(flags)), runner=asked.runner,
    )  # fmt: skip


def measure_missing(
    asked: Asked,
    store: Store,
    *,
    on_row: Callable[[Row], None] | None = None,
    budget_s: float = 0.0,
    weight: Weight = lambda _: 1.0,
) -> Answer:
    """Measure the pair unless the store holds it; every piece is kept as it comes.

    With `budget_s` further sizes are measured where interpolation is in doubt and the `weight` of a plan is on them,
    for about that long, also of a pair that the store holds.

    Raises:
        BadInput: the interpreter lacks what the runner needs, or the config cannot be cut.
    """
    key = key_of(asked)
    configuration = Configuration(
        model=asked.model.name, gpu=asked.gpu.name, tp=asked.tp, quantization=asked.quantization
    )
    pair = Pair(key=key, model=asked.model, gpu=asked.gpu, configuration=configuration)
    known = Fingerprints(store, kind=PROBED)[key]
    if known is not None and budget_s <= 0:
        return Answer(fingerprint=known, record=None, measured=0, found=known.points.height)
    kept, measured = Kept(store, key), []

    def heard(row: Row) -> None:
        kept.add(row)
        measured.append(row)
        if on_row is not None:
            on_row(row)

    found = len(kept.rows)
    fingerprint = _run(asked, pair, kept.rows, heard)
    refined = None
    if budget_s > 0 and not fingerprint.points.is_empty():
        served = fingerprint.points.filter(pl.col("kind") == "overhead")

        def further(sizes: grid.Grid) -> Fingerprint:
            steps = _run(asked, pair, [*kept.rows, *measured], heard, more=sizes)
            return replace(steps, points=pl.concat([steps.points, served]))

        refined = refine(fingerprint, further, budget_s=budget_s, weight=weight)
        fingerprint = refined.fingerprint
    # With no point at all there is nothing to plan with: the reasons are shown, and the next probe tries again.
    record = None if fingerprint.points.is_empty() else keep(fingerprint, store, kind=PROBED)
    return Answer(fingerprint=fingerprint, record=record, measured=len(measured), found=found, refined=refined)


def _run(
    asked: Asked, pair: Pair, known: list[Row], heard: Callable[[Row], None], *, more: grid.Grid | None = None
) -> Fingerprint:
    """Measure the coarse grid, or only the sizes of `more`, where `known` rows do not hold them."""
    on_cpu = asked.gpu.vendor == "cpu"
    if asked.runner == "torch":
        # The data of the type `cpu` are placeholders: no bound to refuse a measurement by.
        runner = TorchRunner(device="cpu" if on_cpu else "cuda", python=asked.python,
                             sizes=more or (grid.SMALL if on_cpu else grid.COARSE),
                             bound=None if on_cpu else op_time, deadline_s=600.0)  # fmt: skip
        return runner.run(pair.key, ops(asked.model, pair.configuration), gpu=asked.gpu, known=known, on_row=heard)
    if asked.config is None:
        raise BadInput(f"the vllm runner needs {asked.model.name}'s config.json", mend="give its path as --model")
    settings = EngineSettings(
        arguments={"tensor_parallel_size": asked.tp, **asked.engine}, environment=asked.environment
    )
    limits = {name: _whole(asked.engine, name, default) for name, default in (
        ("max_model_len", 2048), ("max_num_batched_tokens", 2048), ("max_num_seqs", 16))}  # fmt: skip
    sizes = (more or (grid.SMALL if on_cpu else grid.COARSE)).within(
        max_model_len=limits["max_model_len"], max_tokens=limits["max_num_batched_tokens"],
        max_seqs=limits["max_num_seqs"],
    )  # fmt: skip
    one_thread = asked.environment.get("OMP_NUM_THREADS") == "1"
    vllm = VllmRunner(python=asked.python, config=asked.config, engine=settings.arguments, sizes=sizes, together=on_cpu,
                      environment=asked.environment, clock="cpu" if on_cpu and one_thread else "wall")  # fmt: skip
    return probe_engine(
        pair.key, asked.config, settings, runner=vllm, serve=more is None, known=known, on_row=heard
    )  # fmt: skip


def _whole(engine: Mapping[str, object], name: str, default: int) -> int:
    value = engine.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise BadInput(f"{name} is {value!r}", mend="give a whole number of at least 1")
    return value


def quantization_of(text: str) -> QuantizationName:
    """Check the name of a format. Raises BadInput with the names there are."""
    known = get_args(QuantizationName)
    for name in known:
        if name == text:
            return name  # type: ignore[no-any-return]
    raise BadInput(f"unknown quantization {text!r}", mend=f"give one of {', '.join(known)}")
