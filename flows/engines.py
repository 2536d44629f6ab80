"""`ServedEngine`: the settings of a vLLM engine that ran, read from the JSON that it was recorded in.

Settings are looked for as `vllm serve` was given them (`engine_kwargs`), then as vLLM resolved them
(`resolved_config`), then at the top level; what none states is vLLM's default for that GPU, and is said to be assumed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from catalog.errors import BadInput
from catalog.gpus import GPU, find_gpu, why_unserved
from catalog.models import Model, find_model
from catalog.quantizations import QuantizationName
from planner.conditions.row import default_max_num_batched_tokens, default_max_num_seqs, quantization_of
from planner.fit import EngineClass, engine_class
from planner.memory import DoesNotFit, memory
from planner.queueing.engine import EngineRules, rules_for
from planner.strategies import Configuration

MAX_BYTES = 16_000_000
NEWEST = "0.32.0"
#: Where recorders write what GPU it was, first match wins.
GPU_KEYS = ("gpu", "hw", "device_name", "gpu_name")
#: A number beyond its bound is a mistake.
LARGEST = {"tensor_parallel_size": 64, "pipeline_parallel_size": 64, "data_parallel_size": 512, "max_num_seqs": 65_536,
           "max_num_batched_tokens": 4_194_304, "max_model_len": 16_777_216, "block_size": 4096,
           "num_gpu_blocks": 1_000_000_000}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedEngine:
    """One replica as it ran."""

    model: Model
    gpu: GPU
    configuration: Configuration
    vllm_version: str
    engine_class: EngineClass
    rules: EngineRules
    kv_tokens: int
    """Tokens that one engine of the replica holds."""
    block_size: int
    assumed: tuple[str, ...]
    """What the file left unsaid."""


def read_engine(path: Path, *, models: Iterable[Model] = ()) -> ServedEngine:
    """Read engine.json. Raises BadInput naming the setting that is missing, impossible or not served by vLLM."""
    said = _Settings(_document(path), path.name)
    assumed: list[str] = []
    model = find_model(said.text("model"), extra=models)
    gpu = _gpu(said)
    quantization = _quantization(said, model, gpu)
    seqs, tokens = said.whole("max_num_seqs"), said.whole("max_num_batched_tokens")
    longest = said.whole("max_model_len")
    assumed += [f"max_num_seqs {default_max_num_seqs(gpu)}"] * (seqs is None)
    assumed += [f"max_num_batched_tokens {default_max_num_batched_tokens(gpu)}"] * (tokens is None)
    if longest is None:
        raise said.refusal("max_model_len", "is missing", "give the longest prompt and answer in tokens")
    version = said.maybe("vllm_version", "engine_version", "version")
    assumed += [f"vLLM {NEWEST}"] * (version is None)
    configuration = Configuration(
        model=model.name,
        gpu=gpu.name,
        tp=said.whole("tensor_parallel_size", "tp") or 1,
        pp=said.whole("pipeline_parallel_size", "pp") or 1,
        dp=said.whole("data_parallel_size", "dp") or 1,
        expert_parallel=said.switch("enable_expert_parallel", default=False) and model.moe is not None,
        quantization=quantization,
        kv_dtype="fp8" if str(said.maybe("kv_cache_dtype", "cache_dtype") or "").startswith("fp8") else "bf16",
        max_num_seqs=seqs or default_max_num_seqs(gpu),
        max_num_batched_tokens=tokens or default_max_num_batched_tokens(gpu),
        max_model_len=longest,
        enable_prefix_caching=said.switch("enable_prefix_caching", default=True),
    )
    release = version or NEWEST
    ahead = said.switch("async_scheduling", default=engine_class(release) == "async")
    kind = engine_class(release)
    kv_tokens, block_size = _kv_space(said, model, gpu, configuration, release, assumed)
    return ServedEngine(
        model=model,
        gpu=gpu,
        configuration=configuration,
        vllm_version=release,
        engine_class=kind if kind == "v0" else "async" if ahead else "v1",
        rules=rules_for(release),
        kv_tokens=kv_tokens,
        block_size=block_size,
        assumed=tuple(assumed),
    )


@dataclass(frozen=True, slots=True)
class _Settings:
    """Settings of a document by vLLM's names, wherever they stand in it."""

    document: Mapping[str, object]
    place: str

    def sections(self) -> Iterator[Mapping[str, object]]:
        """Mappings to look in, the most explicit first."""
        resolved = self.document.get("resolved_config")
        inner = resolved.values() if isinstance(resolved, dict) else ()
        kinds = (self.document.get("engine_kwargs"), self.document.get("kv_cache"), *inner,
                 self.document.get("hardware"), self.document)  # fmt: skip
        yield from (section for section in kinds if isinstance(section, dict))

    def maybe(self, *names: str) -> str | None:
        """The first value that is stated, as text; `auto` and null state nothing."""
        value = next((v for v in self._values(names) if v != "auto"), None)
        return None if value is None else str(value)

    def text(self, *names: str) -> str:
        """The same, but it must be there."""
        value = self.maybe(*names)
        if value is None:
            raise self.refusal(names[0], "is missing", f"give {' or '.join(names)}")
        return value

    def whole(self, *names: str) -> int | None:
        """A whole number above 0, None where none is stated."""
        value = next(self._values(names), None)
        if value is None:
            return None
        most = LARGEST[names[0]]
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not number or value != int(value) or not 1 <= value <= most:  # type: ignore[call-overload, operator]
            raise self.refusal(names[0], f"{value!r} is refused", f"give a whole number from 1 to {most}")
        return int(value)  # type: ignore[call-overload, no-any-return]

    def switch(self, name: str, *, default: bool) -> bool:
        """A yes or a no."""
        value = next(self._values((name,)), default)
        if not isinstance(value, bool):
            raise self.refusal(name, f"{value!r} is refused", "give true or false")
        return value

    def share(self, name: str) -> float | None:
        """A number above 0 up to 1."""
        value = next(self._values((name,)), None)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
            raise self.refusal(name, f"{value!r} is refused", "give a number above 0 up to 1")
        return float(value)

    def refusal(self, name: str, what: str, mend: str) -> BadInput:
        """The error of one setting."""
        return BadInput(what, place=f"{self.place}: {name}", mend=mend)

    def _values(self, names: Iterable[str]) -> Iterator[object]:
        sections = list(self.sections())
        return (s[name] for name in names for s in sections if s.get(name) is not None)


def _document(path: Path) -> Mapping[str, object]:
    if not path.is_file():
        raise BadInput("no such file", place=str(path), mend="give the JSON of the engine's settings")
    if path.stat().st_size > MAX_BYTES:
        raise BadInput("is larger than 16 MB", place=str(path), mend="give the JSON of the engine's settings")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"is no JSON: {str(error)[:120]}", place=str(path), mend="give the engine's settings") from None
    if not isinstance(document, dict):
        raise BadInput("holds no mapping", place=str(path), mend="give the engine's settings by vLLM's names")
    return document


def _gpu(said: _Settings) -> GPU:
    """The GPU by the first of its names that is known."""
    names = [name for key in GPU_KEYS if (name := said.maybe(key)) is not None]
    if not names:
        raise said.refusal("gpu", "is missing", "give the GPU's name as gpu, hw or hardware.device_name")
    refusal = None
    for name in names:
        try:
            return find_gpu(name)
        except BadInput as error:
            refusal = refusal or error
    assert refusal is not None  # noqa: S101 - there was a name, and none was known
    raise refusal


def _quantization(said: _Settings, model: Model, gpu: GPU) -> QuantizationName:
    """`quantization` where stated, else the model's own format where dtype says nothing, else `dtype`."""
    stated = said.maybe("quantization") or (said.maybe("dtype") or "auto").removeprefix("torch.")
    found, _ = quantization_of(stated, model)
    why = why_unserved(gpu, found)
    if why is not None:
        raise said.refusal("quantization", why, "")
    return found


def _kv_space(  # noqa: PLR0913, PLR0917 - one engine's settings
    said: _Settings, model: Model, gpu: GPU, configuration: Configuration, version: str, assumed: list[str]
) -> tuple[int, int]:
    """(tokens, block size): as the engine counted its blocks, else as its memory is divided."""
    block_size = said.whole("block_size") or 16
    blocks = said.whole("num_gpu_blocks", "num_gpu_blocks_override")
    if blocks is not None:
        return blocks * block_size, block_size
    try:
        found = memory(
            model, gpu, configuration, vllm_version=version,
            gpu_memory_utilization=said.share("gpu_memory_utilization"), block_size=block_size,
        )  # fmt: skip
    except DoesNotFit as error:
        raise BadInput(f"does not fit the GPU's memory: {error.detail}", place=said.place) from None
    assumed.append(f"{found.kv_tokens} KV tokens, from the GPU's memory")
    return found.kv_tokens, found.block_size
