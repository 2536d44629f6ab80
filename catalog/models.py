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
    head_dim: int
    window: int = 0
    """Tokens that a sliding layer sees; 0 = all."""
    ffn: Literal["dense", "moe"] = "dense"
    intermediate_size: int = 0
    """Width of the dense (gated) FFN; 0 in an MoE layer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MLA:
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434): one latent vector per token is the KV."""

    q_lora_rank: int
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
    """Modules that keep bf16 in the native format (e.g. `self_attn`, `lm_head`)."""
    checkpoints: tuple[tuple[QuantizationName, str], ...] = ()
    """Published checkpoints per quantization, as Hugging Face names; the model's own name serves `native`."""
    digest: str
    """sha256 of the canonical config.json."""
    source: str

    @property
    def num_layers(self) -> int:
        """Number of blocks."""
        return sum(count for _, count in self.layers)
