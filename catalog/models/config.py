"""Shapes of a model from its config.json: one reader for the catalog's rows and for a user's file.

Only architectures on the list below are read, each from shapes alone: vLLM has native classes for them, so an
`auto_map` in the file (DeepSeek, MiniMax and Kimi publish one) is ignored and never executed. Any other architecture is
`unsupported: NAME`; nothing is guessed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from catalog.documents import check_depth, content_digest, read_json
from catalog.errors import BadInput, near_names
from catalog.models.fields import Fields, brief
from catalog.models.formats import native_format
from catalog.models.shapes import MLA, Layer, Model, MoE

SlidingRule = Literal["never", "all", "qwen", "even", "pattern", "chunked", "gemma4"]
ExpertRule = Literal["none", "all", "deepseek", "qwen", "llama4", "gemma4"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """What a class of vLLM does with the keys of config.json, as two rules and the spelling of some keys."""

    sliding: SlidingRule = "never"
    pattern: int = 0
    """Every n-th layer is full, the others slide (default of `sliding_window_pattern`)."""
    experts: ExpertRule = "none"
    count: str = "num_experts"
    width: str = "moe_intermediate_size"
    mla: bool = False
    wrapped: bool = False
    """The language model's keys may stand in text_config."""


_DEEPSEEK = Architecture(experts="deepseek", count="n_routed_experts", mla=True)
ARCHITECTURES: dict[str, Architecture] = {
    "LlamaForCausalLM": Architecture(),
    "Qwen2ForCausalLM": Architecture(sliding="qwen"),
    "Qwen3ForCausalLM": Architecture(sliding="qwen"),
    "MistralForCausalLM": Architecture(sliding="all"),
    "Mistral3ForConditionalGeneration": Architecture(sliding="all", wrapped=True),
    "Phi3ForCausalLM": Architecture(sliding="all"),
    "GemmaForCausalLM": Architecture(),
    "Gemma2ForCausalLM": Architecture(sliding="even"),
    "Gemma3ForCausalLM": Architecture(sliding="pattern", pattern=6),
    "Gemma3ForConditionalGeneration": Architecture(sliding="pattern", pattern=6, wrapped=True),
    "Cohere2ForCausalLM": Architecture(sliding="pattern", pattern=4),
    "MixtralForCausalLM": Architecture(
        sliding="all", experts="all", count="num_local_experts", width="intermediate_size"
    ),
    "Qwen2MoeForCausalLM": Architecture(sliding="qwen", experts="qwen"),
    "Qwen3MoeForCausalLM": Architecture(sliding="qwen", experts="qwen"),
    "Qwen3VLForConditionalGeneration": Architecture(sliding="qwen", wrapped=True),
    "Qwen3VLMoeForConditionalGeneration": Architecture(sliding="qwen", experts="qwen", wrapped=True),
    "DeepseekV2ForCausalLM": _DEEPSEEK,
    "DeepseekV3ForCausalLM": _DEEPSEEK,
    "KimiK25ForConditionalGeneration": Architecture(
        experts="deepseek", count="n_routed_experts", mla=True, wrapped=True
    ),
    "Glm4MoeForCausalLM": Architecture(experts="deepseek", count="n_routed_experts"),
    "GptOssForCausalLM": Architecture(
        sliding="even", experts="all", count="num_local_experts", width="intermediate_size"
    ),
    "MiniMaxM2ForCausalLM": Architecture(experts="all", count="num_local_experts", width="intermediate_size"),
    "Llama4ForCausalLM": Architecture(
        sliding="chunked", experts="llama4", count="num_local_experts", width="intermediate_size"
    ),
    "Llama4ForConditionalGeneration": Architecture(
        sliding="chunked", experts="llama4", count="num_local_experts", width="intermediate_size", wrapped=True
    ),
    "Gemma4ForConditionalGeneration": Architecture(sliding="gemma4", experts="gemma4", wrapped=True),
}

#: Why some well-known architectures cannot be told by these shapes.
_REASONS = {
    "GlmMoeDsaForCausalLM": "its sparse attention reads a chosen part of the context, which no shape here says",
    "DeepseekV32ForCausalLM": "its sparse attention reads a chosen part of the context, which no shape here says",
    "NemotronHForCausalLM": "its Mamba layers hold a state instead of KV per token",
    "Qwen3NextForCausalLM": "its linear attention layers hold a state instead of KV per token",
    "Qwen3_5ForConditionalGeneration": "its linear attention layers hold a state instead of KV per token",
    "Qwen3_5MoeForConditionalGeneration": "its linear attention layers hold a state instead of KV per token",
    "KimiK3ForConditionalGeneration": "its linear attention layers hold a state instead of KV per token",
}


def read_config(path: Path | str, *, name: str | None = None) -> Model:
    """Read a Hugging Face config.json; the model is named by its folder (`config.json`) or its stem.

    Raises:
        BadInput: no such file, broken or absurd content, or `unsupported: NAME`.
    """
    path = Path(path)
    stem = path.resolve().parent.name if path.stem == "config" else path.stem.removesuffix("_config")
    found = read_json(path).value
    return parse_config(found, name=name or stem.replace("--", "/"), source=str(path))


def parse_config(config: Mapping[str, Any], *, name: str, source: str) -> Model:
    """Shapes of a Hugging Face config.json given as plain values; nothing in it is executed.

    Raises:
        BadInput: naming the key and the value; `unsupported: NAME` for an architecture that is not on the list.
    """
    if not isinstance(config, Mapping):
        raise BadInput(f"holds {brief(config)}", place=source, mend="give a JSON object, as config.json is")
    check_depth(dict(config), name=source)
    outer = Fields(config, source)
    class_name = _class_name(outer)
    rules = ARCHITECTURES[class_name]
    inner = (outer.nested("text_config") if rules.wrapped else None) or outer
    if inner.keys.get("index_topk") is not None:
        raise BadInput(f"unsupported: {class_name} with sparse attention (index_topk)", place=source)
    num_layers = inner.whole("num_hidden_layers", limit="num_hidden_layers")
    moe, mla = _experts(inner, rules), _latent(inner) if rules.mla else None
    layers = Counter(_layer(inner, rules, position, moe=moe, mla=mla) for position in range(num_layers))
    quantized = inner if inner.keys.get("quantization_config") is not None else outer
    native, unquantized = native_format(quantized, num_layers=num_layers)
    model = Model(
        name=name,
        architecture=class_name,
        hidden_size=inner.whole("hidden_size", limit="hidden_size"),
        vocab_size=inner.whole("vocab_size", limit="vocab_size"),
        layers=tuple(layers.items()),
        mla=mla,
        moe=moe if any(layer.ffn == "moe" for layer in layers) else None,
        max_position_embeddings=inner.whole("max_position_embeddings", limit="positions", default=8192),
        tie_word_embeddings=inner.flag("tie_word_embeddings", default=outer.flag("tie_word_embeddings")),
        native=native,
        unquantized=unquantized,
        encoder_elements=sum(_encoder(outer.nested(key)) for key in ("vision_config", "audio_config")),
        digest="",
        source=source,
    )
    return _with_digest(model)


def _with_digest(model: Model) -> Model:
    shapes = asdict(model)
    for key in ("name", "source", "digest", "checkpoints", "family"):
        del shapes[key]
    return Model(**{key: getattr(model, key) for key in asdict(model)} | {"digest": content_digest(shapes)})


def _class_name(outer: Fields) -> str:
    named = outer.items("architectures", kind=str, at_most=8)
    if not named:
        raise BadInput("architectures is missing", place=outer.place, mend="give a complete Hugging Face config.json")
    class_name: str = named[0]
    if class_name not in ARCHITECTURES:
        reason = _REASONS.get(class_name, "its shapes are not known here, and remote code (auto_map) is never run")
        raise BadInput(
            f"unsupported: {class_name[:100]} ({reason})",
            place=outer.place,
            mend="" if class_name in _REASONS else near_names(class_name[:100], ARCHITECTURES),
        )
    return class_name


def _experts(inner: Fields, rules: Architecture) -> MoE | None:
    """Routed and shared experts; None for a dense model."""
    if rules.experts == "none" or (rules.experts == "gemma4" and not inner.flag("enable_moe_block")):
        return None
    if inner.whole(rules.count, limit="experts", low=0, default=0) == 0 and rules.experts in ("deepseek", "qwen"):
        return None
    width = inner.whole(rules.width, limit="intermediate_size")
    top_key = "top_k_experts" if rules.experts == "gemma4" else "num_experts_per_tok"
    count, top_k = inner.whole(rules.count, limit="experts"), inner.whole(top_key, limit="experts")
    if top_k > count:
        raise inner.fail(top_key, f"more than the {count} experts", f"write a number up to {count}")
    match rules.experts:
        case "deepseek":
            shared = inner.whole("n_shared_experts", limit="experts", low=0, default=0) * width
        case "qwen":
            shared = inner.whole("shared_expert_intermediate_size", limit="intermediate_size", low=0, default=0)
        case "llama4" | "gemma4":  # one shared expert of the dense width runs beside the routed ones
            shared = inner.whole("intermediate_size", limit="intermediate_size")
        case _:
            shared = inner.whole("shared_intermediate_size", limit="intermediate_size", low=0, default=0)
    return MoE(num_experts=count, top_k=top_k, intermediate_size=width, shared_intermediate_size=shared)


def _latent(inner: Fields) -> MLA:
    return MLA(
        q_lora_rank=inner.whole("q_lora_rank", limit="rank", default=0),
        kv_lora_rank=inner.whole("kv_lora_rank", limit="rank"),
        qk_nope_head_dim=inner.whole("qk_nope_head_dim", limit="head_dim"),
        qk_rope_head_dim=inner.whole("qk_rope_head_dim", limit="head_dim"),
        v_head_dim=inner.whole("v_head_dim", limit="head_dim"),
    )


def _layer(inner: Fields, rules: Architecture, position: int, *, moe: MoE | None, mla: MLA | None) -> Layer:
    """The block at one position, counted from 0."""
    is_moe = moe is not None and _EXPERT_RULES[rules.experts](inner, position)
    width_key = "intermediate_size_mlp" if rules.experts == "llama4" else "intermediate_size"
    width = 0 if is_moe else inner.whole(width_key, limit="intermediate_size")
    heads = inner.whole("num_attention_heads", limit="num_attention_heads")
    ffn: Literal["dense", "moe"] = "moe" if is_moe else "dense"
    if mla is not None:
        latent = mla.kv_lora_rank + mla.qk_rope_head_dim
        return Layer(
            attention="mla", num_heads=heads, num_kv_heads=1, head_dim=latent, ffn=ffn, intermediate_size=width
        )
    window = _window(inner, rules, position)
    wide = rules.sliding == "gemma4" and window == 0  # Gemma 4's full layers have heads of their own
    kv_heads = inner.whole("num_key_value_heads", limit="num_attention_heads", default=heads)
    if wide:
        kv_heads = inner.whole("num_global_key_value_heads", limit="num_attention_heads", default=kv_heads)
    if heads % kv_heads:
        raise inner.fail("num_key_value_heads", f"no divisor of {heads} heads", "correct one of the two")
    head_dim = _head_dim(inner, heads)
    return Layer(
        attention="sliding" if window else "full",
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=inner.whole("global_head_dim", limit="head_dim", default=head_dim) if wide else head_dim,
        window=window,
        ffn=ffn,
        intermediate_size=width,
        key_is_value=wide and inner.flag("attention_k_eq_v"),
    )


def _head_dim(inner: Fields, heads: int) -> int:
    """`head_dim` where given; else hidden_size / heads, as transformers takes it."""
    hidden = inner.whole("hidden_size", limit="hidden_size")
    if inner.keys.get("head_dim") is None and hidden % heads:
        raise inner.fail(
            "num_attention_heads", f"no divisor of hidden_size {hidden}, and head_dim is missing", "add it"
        )
    return inner.whole("head_dim", limit="head_dim", default=hidden // heads)


def _window(inner: Fields, rules: Architecture, position: int) -> int:
    """Tokens that the layer sees, 0 = all."""
    key = "attention_chunk_size" if rules.sliding == "chunked" else "sliding_window"
    window = inner.whole(key, limit="positions", low=0, default=0)
    if rules.sliding == "never" or (rules.sliding == "qwen" and not inner.flag("use_sliding_window")):
        return 0
    kinds = inner.items("layer_types", kind=str, at_most=2_000)
    if kinds is not None:
        return _window_of(inner, kinds, position, window)
    match rules.sliding:
        case "qwen":
            slides = position >= inner.whole("max_window_layers", limit="num_hidden_layers", low=0, default=0)
        case "even":
            slides = position % 2 == 0
        case "pattern":
            period = inner.whole("sliding_window_pattern", limit="num_hidden_layers", default=rules.pattern)
            slides = (position + 1) % period != 0
        case "chunked":  # every fourth layer is without position encoding, and sees everything
            slides = (position + 1) % inner.whole("no_rope_layer_interval", limit="rank", default=4) != 0
        case "gemma4":
            raise BadInput("layer_types is missing", place=inner.place, mend="give a complete config.json")
        case _:
            slides = True
    return window if slides else 0


def _window_of(inner: Fields, kinds: tuple[str, ...], position: int, window: int) -> int:
    if len(kinds) != inner.whole("num_hidden_layers", limit="num_hidden_layers"):
        raise inner.fail("layer_types", f"of {len(kinds)} entries", "give one entry per layer")
    if kinds[position] == "full_attention":
        return 0
    if kinds[position] not in ("sliding_attention", "chunked_attention"):
        raise BadInput(f"unsupported: layer type {kinds[position][:60]!r} in layer_types", place=inner.place)
    if window == 0:
        raise inner.fail("sliding_window", "missing, though layer_types has sliding layers", "add it")
    return window


def _deepseek_moe(inner: Fields, position: int) -> bool:
    first = inner.whole("first_k_dense_replace", limit="num_hidden_layers", low=0, default=0)
    return position >= first and position % inner.whole("moe_layer_freq", limit="num_hidden_layers", default=1) == 0


def _qwen_moe(inner: Fields, position: int) -> bool:
    dense = inner.items("mlp_only_layers", kind=int, at_most=2_000) or ()
    step = inner.whole("decoder_sparse_step", limit="num_hidden_layers", default=1)
    return position not in dense and (position + 1) % step == 0


def _llama4_moe(inner: Fields, position: int) -> bool:
    named = inner.items("moe_layers", kind=int, at_most=2_000)
    step = inner.whole("interleave_moe_layer_step", limit="num_hidden_layers", low=0, default=1)
    return position in named if named is not None else step > 0 and (position + 1) % step == 0


_EXPERT_RULES: dict[ExpertRule, Callable[[Fields, int], bool]] = {
    "none": lambda _inner, _position: False,
    "all": lambda _inner, _position: True,
    "gemma4": lambda _inner, _position: True,
    "deepseek": _deepseek_moe,
    "qwen": _qwen_moe,
    "llama4": _llama4_moe,
}


def _encoder(tower: Fields | None) -> int:
    """Weights of a transformer encoder: per layer four square projections and a two-matrix (or gated) FFN."""
    if tower is None or tower.keys.get("num_hidden_layers") is None or tower.keys.get("hidden_size") is None:
        return 0
    hidden = tower.whole("hidden_size", limit="hidden_size")
    width = tower.whole("intermediate_size", limit="intermediate_size", default=4 * hidden)
    return tower.whole("num_hidden_layers", limit="num_hidden_layers") * (4 * hidden * hidden + 3 * hidden * width)
