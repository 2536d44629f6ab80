"""`GPU`: what a data sheet says of an accelerator, each number with its source (rows in gpus.yaml)."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, TypeAdapter, model_validator

from catalog.cluster import Fact, Name
from catalog.documents import read_yaml
from catalog.errors import BadInput, near_names
from catalog.quantizations import QUANTIZATIONS, QuantizationName
from catalog.units import Bytes, BytesPerSecond, FlopPerSecond, SecondsOrZero, Watts

PeakFormat = Literal["bf16", "fp8", "int8", "fp4"]

#: Fields that need an entry in `sources`.
NUMERIC = (
    "compute_capability", "peak", "memory", "bandwidth", "link_bandwidth", "link_latency", "link_domain", "power",
    "idle_power",
)  # fmt: skip


class GPU(Fact):
    """One type of accelerator. Rates are dense peaks of one GPU; bandwidths are per GPU and direction."""

    name: Name
    """Such as `h100_sxm`; the spelling of fleet.yaml and of the measured tables."""
    aliases: tuple[str, ...] = ()
    vendor: Literal["nvidia", "amd", "intel", "cpu"]
    compute_capability: int
    """CUDA compute capability x 10 (90 = Hopper); 0 where there is none."""
    peak: dict[PeakFormat, FlopPerSecond]
    """A format that the GPU does not multiply natively is absent."""
    memory: Bytes
    """HBM that vLLM sees."""
    bandwidth: BytesPerSecond
    """HBM."""
    link: Literal["nvlink", "xgmi", "pcie", "none"]
    link_bandwidth: BytesPerSecond
    link_latency: SecondsOrZero
    link_domain: int = Field(ge=1, le=576)
    """GPUs that the fast link joins (8 in an HGX node, 72 in an NVL72 rack, 1 for PCIe cards)."""
    power: Watts
    """TDP or maximal total graphics power."""
    idle_power: Watts | None = None
    tables: str | None = None
    """Name of the system in the measured kernel tables; None = not measured there."""
    sources: dict[str, str]
    """Field -> where the number was read (each numeric field has one)."""

    @model_validator(mode="after")
    def _every_number_has_a_source(self) -> Self:
        missing = [name for name in NUMERIC if getattr(self, name) is not None and name not in self.sources]
        if missing:
            msg = f"GPU {self.name!r} has no source for {', '.join(missing)}"
            raise ValueError(msg)
        return self


@functools.cache
def _rows() -> tuple[GPU, ...]:
    rows = read_yaml(Path(__file__).with_name("gpus.yaml")).value
    text = json.dumps([{"name": name} | row for name, row in rows.items()])
    return TypeAdapter(tuple[GPU, ...]).validate_json(text)


def load_gpus() -> dict[str, GPU]:
    """Every known GPU type by name."""
    return {gpu.name: gpu for gpu in _rows()}


def _squashed(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())


@functools.cache
def _by_spelling() -> dict[str, GPU]:
    return {_squashed(spelling): gpu for gpu in _rows() for spelling in (gpu.name, *gpu.aliases)}


def find_gpu(name: str) -> GPU:
    """The GPU of that name or alias, whatever its case and punctuation (`H100 SXM` = `h100_sxm`).

    Raises:
        BadInput: no GPU type is called so; the text suggests near names.
    """
    found = _by_spelling().get(_squashed(name)) or _by_spelling().get(_squashed(name).removeprefix("nvidia"))
    if found is None:
        raise BadInput(f"unknown GPU {name[:80]!r}", mend=near_names(name[:80], load_gpus()))
    return found


# vLLM docs, "Supported Hardware" of quantization: what is served off NVIDIA. INT4 is AWQ and GPTQ.
_ELSEWHERE: dict[str, tuple[QuantizationName, ...]] = {
    "amd": ("bf16", "fp8", "fp8_block", "mxfp4"),
    "intel": ("bf16", "int4"),
    "cpu": ("bf16", "int8", "int4"),
}


def why_unserved(gpu: GPU, quantization: QuantizationName) -> str | None:
    """Why vLLM does not serve the format on the GPU, in one sentence; None if it does."""
    needs = QUANTIZATIONS[quantization]
    if gpu.vendor != "nvidia":
        served = _ELSEWHERE[gpu.vendor]
        multiplied = needs.compute != "fp8" or "fp8" in gpu.peak  # off NVIDIA nothing dequantizes 8-bit floats
        why = f"vLLM does not serve {quantization} on {gpu.vendor} hardware"
        return None if quantization in served and multiplied else why
    if gpu.compute_capability < needs.min_capability:
        wanted = needs.min_capability / 10
        return f"{quantization} needs compute capability {wanted}, {gpu.name} has {gpu.compute_capability / 10}"
    if needs.max_capability is not None and gpu.compute_capability > needs.max_capability:
        return f"vLLM has no {quantization} kernels for compute capability {gpu.compute_capability / 10}"
    return None
