"""Weight elements of a model by module, and the format in which each module lies in memory.

    attention   (q + k + v + o)      h·n·d + h·g·d·(2 or 1) + n·d·h     h hidden, n heads, g KV heads, d head width
    mla         q_a, q_b, kv_a, kv_b, o                                  (DeepSeek-V2, arXiv 2405.04434, section 2.1)
    FFN         gate, up, down       3·h·w                               per dense layer, expert or shared expert

Biases, attention sinks and scales are left out: below 0.3 % in every published model of the catalog.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Literal

from catalog.models.shapes import Layer, Model
from catalog.quantizations import QuantizationName

Module = Literal[
    "attention", "dense_ffn", "routed_experts", "shared_experts", "router", "embedding", "lm_head", "norms", "encoders"
]

# Linear layers of the blocks are what the quantizers treat; everything else keeps bf16 in vLLM.
_LINEAR: dict[Module, str] = {
    "attention": "self_attn",
    "dense_ffn": "mlp",
    "routed_experts": "experts",
    "shared_experts": "shared_experts",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightElements:
    """Number of weights of the whole model by module."""

    attention: int
    dense_ffn: int
    routed_experts: int
    shared_experts: int
    router: int
    embedding: int
    lm_head: int
    """0 where it is the embedding (tied)."""
    norms: int
    encoders: int = 0
    """Vision and audio, estimated."""

    @property
    def total(self) -> int:
        """All of them."""
        return sum(astuple(self))


def weight_elements(model: Model) -> WeightElements:
    """Count the weights of the whole model (every layer, every expert) by module."""
    hidden, moe = model.hidden_size, model.moe
    moe_layers = sum(count for layer, count in model.layers if layer.ffn == "moe")
    return WeightElements(
        attention=sum(count * attention_elements(model, layer) for layer, count in model.layers),
        dense_ffn=sum(count * 3 * hidden * layer.intermediate_size for layer, count in model.layers),
        routed_experts=moe_layers * moe.num_experts * 3 * hidden * moe.intermediate_size if moe else 0,
        shared_experts=moe_layers * 3 * hidden * moe.shared_intermediate_size if moe else 0,
        router=moe_layers * hidden * moe.num_experts if moe else 0,
        embedding=model.vocab_size * hidden,
        lm_head=0 if model.tie_word_embeddings else model.vocab_size * hidden,
        norms=(2 * model.num_layers + 1) * hidden,
        encoders=model.encoder_elements,
    )


def attention_elements(model: Model, layer: Layer) -> int:
    """Weights of one block's attention projections."""
    hidden, heads, mla = model.hidden_size, layer.num_heads, model.mla
    if mla is None or layer.attention != "mla":
        sides = 1 if layer.key_is_value else 2
        return hidden * layer.head_dim * (2 * heads + sides * layer.num_kv_heads)
    query_width = heads * (mla.qk_nope_head_dim + mla.qk_rope_head_dim)
    rank = mla.q_lora_rank
    query = rank * (hidden + query_width) if rank else hidden * query_width
    latent = hidden * (mla.kv_lora_rank + mla.qk_rope_head_dim)
    expand = mla.kv_lora_rank * heads * (mla.qk_nope_head_dim + mla.v_head_dim)
    return query + latent + expand + heads * mla.v_head_dim * hidden


def module_format(model: Model, module: Module, quantization: QuantizationName) -> QuantizationName:
    """Format in which a module's weights lie when the model is served in `quantization`."""
    linear = _LINEAR.get(module)
    if linear is None or (quantization == model.native and linear in model.unquantized):
        return "bf16"
    return quantization
