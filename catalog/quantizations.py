"""Number formats that vLLM serves weights and KV space in, and what each needs of a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

QuantizationName = Literal["bf16", "fp8", "fp8_block", "int8", "int4", "mxfp4", "nvfp4"]
KVDtype = Literal["bf16", "fp8"]
QUANTIZATION_NAMES: tuple[QuantizationName, ...] = get_args(QuantizationName)

#: Bytes of one KV element.
KV_BYTES: dict[KVDtype, float] = {"bf16": 2.0, "fp8": 1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """How the linear layers' weights are stored and computed; attention and norms stay bf16 in vLLM."""

    name: QuantizationName
    weight_bytes: float
    """Bytes per weight element, scales included."""
    compute: Literal["bf16", "fp8", "int8", "fp4"]
    """Format of the matrix multiplication, which decides the peak FLOP rate."""
    min_capability: int
    """Least CUDA compute capability x 10 on which vLLM serves it (vLLM docs, quantization hardware table)."""
    max_capability: int | None = None
    """Greatest compute capability x 10 that has kernels for it, None = no end."""
    vllm: str | None
    """What `--quantization` must say when the checkpoint does not (online quantization), else None."""


# Scales: fp8_block stores one fp32 per 128x128 block; int4 (AWQ/GPTQ, group 128) fp16 scale and 4-bit zero per 128;
# mxfp4 one e8m0 byte per 32; nvfp4 one fp8 byte per 16.
QUANTIZATIONS: dict[QuantizationName, Quantization] = {
    quantization.name: quantization
    for quantization in (
        Quantization(name="bf16", weight_bytes=2.0, compute="bf16", min_capability=70, vllm=None),
        Quantization(name="fp8", weight_bytes=1.0, compute="fp8", min_capability=89, vllm="fp8"),
        Quantization(name="fp8_block", weight_bytes=1.0 + 4 / 128**2, compute="fp8", min_capability=89, vllm=None),
        # vLLM docs, INT8 W8A8: not supported from compute capability 10.0 (Blackwell) on.
        Quantization(name="int8", weight_bytes=1.0, compute="int8", min_capability=75, max_capability=99, vllm=None),
        Quantization(name="int4", weight_bytes=0.5 + 2.5 / 128, compute="bf16", min_capability=75, vllm=None),
        Quantization(name="mxfp4", weight_bytes=0.5 + 1 / 32, compute="bf16", min_capability=80, vllm=None),
        Quantization(name="nvfp4", weight_bytes=0.5 + 1 / 16, compute="fp4", min_capability=100, vllm=None),
    )
}
