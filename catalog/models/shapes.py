"""`Model`: the shapes of an LLM, read from a Hugging Face config.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from catalog.quantizations import QuantizationName

AttentionKind = Literal["full", "sliding", "mla"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One block of the model; blocks that are equal compare equal and are counted, not repeated."""

    attention: AttentionKind
    num_heads: int
    num_kv_heads: int
    """1 with MLA: all heads share one latent vector."""
    head_dim: int
    """With MLA the width of that latent vector: kv_lora_rank + qk_rope_head_dim."""
    window: int = 0
    """Tokens that a sliding layer sees; 0 = all. A chunked local layer (Llama 4) is a sliding one of its chunk."""
    ffn: Literal["dense", "moe"] = "dense"
    intermediate_size: int = 0
    """Width of the dense (gated) FFN; 0 in an MoE layer."""
    key_is_value: bool = False
    """One projection makes both K and V (Gemma 4's full layers); the KV cache still holds two vectors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MLA:
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434): one latent vector per token is the KV."""

    q_lora_rank: int
    """0 = the query projection is not factored."""
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MoE:
    """Routed and shared experts of the MoE layers."""

    num_experts: int
    top_k: int
    intermediate_size: int
    """FFN width of one routed expert."""
    shared_intermediate_size: int = 0
    """Summed FFN width of the shared experts, 0 = none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """An LLM: its shapes, its checkpoint's format and where they were read."""

    name: str
    architecture: str
    hidden_size: int
    vocab_size: int
    layers: tuple[tuple[Layer, int], ...]
    """(block, how many of it), in order of first appearance."""
    mla: MLA | None = None
    moe: MoE | None = None
    max_position_embeddings: int
    tie_word_embeddings: bool = False
    native: QuantizationName = "bf16"
    """Format of the published checkpoint."""
    unquantized: tuple[str, ...] = ()
    """Modules that keep bf16 in the native format: of `self_attn`, `mlp` (dense FFN), `shared_experts`, `lm_head`."""
    checkpoints: tuple[tuple[QuantizationName, str], ...] = ()
    """Published checkpoints per quantization, as Hugging Face names; the model's own name serves `native`."""
    encoder_elements: int = 0
    """Weights of vision and audio encoders that vLLM loads beside the language model (bf16), estimated."""
    family: str = ""
    """Name under which quality.yaml knows the model; by default its own."""
    digest: str
    """sha256 of the shapes and the native format: equal shapes cost equal time."""
    source: str

    @property
    def num_layers(self) -> int:
        """Number of blocks."""
        return sum(count for _, count in self.layers)

    def checkpoint(self, quantization: QuantizationName) -> str | None:
        """Hugging Face name of the published checkpoint in that format; None if none is known."""
        return self.name if quantization == self.native else dict(self.checkpoints).get(quantization)
