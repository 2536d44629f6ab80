"""`StandIn`: a config.json cut to its repeating blocks, true shapes, random weights, no download.

A model of 80 equal blocks is measured on one or two of them: the time and memory of a block repeat, what stands outside
the blocks (embedding, head, scheduler) is met once (iServe, arXiv 2501.13111, section 4). One block of every kind is
kept, in the order of first appearance, so alternating attention and leading dense layers survive the cut.
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from catalog.errors import BadInput

#: Keys that would make a loader run code from the checkpoint, or bind it to another checkpoint.
_NEVER: Final = ("auto_map", "trust_remote_code", "_name_or_path", "adapters")

#: What config.json calls the number of routed experts.
_EXPERT_COUNTS: Final = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")

#: Most words of a stand-in's tokenizer: ids beyond are served, and decoded as unknown.
_WORDS: Final = 4096

Config = Mapping[str, Any]
Kind = tuple[str, str]
"""(attention, FFN) of a block: ("sliding_attention", "moe")."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StandIn:
    """A reduced model that a probe runs; `config` is ready to be written as config.json."""

    config: dict[str, Any]
    kept: tuple[int, ...]
    """Indices of the blocks kept, in the full model."""
    of_layers: int
    """Blocks of the full model."""

    @property
    def layers(self) -> int:
        """Blocks of the stand-in."""
        return len(self.kept)


def kinds(config: Config) -> dict[Kind, int]:
    """How many blocks of each kind the model has, in order of first appearance. Raises BadInput as `cut` does."""
    text = _text(config)
    return dict(Counter(_kind(text, index) for index in range(_layers(text))))


def cut(config: Config, repeats: int | Mapping[Kind, int] = 1) -> StandIn:
    """Keep the first `repeats` blocks (a number for all kinds, or one per kind) of every kind that `config` has.

    Raises:
        BadInput: the config names no positive `num_hidden_layers`, or `repeats` is below 1.
    """
    small: dict[str, Any] = {k: copy.deepcopy(v) for k, v in config.items() if k not in _NEVER}
    text = _text(small)
    total = _layers(text)
    wanted = repeats if isinstance(repeats, Mapping) else dict.fromkeys(kinds(config), repeats)
    if min(wanted.values()) < 1:
        raise BadInput(f"a stand-in of {min(wanted.values())!r} blocks of a kind", mend="keep at least 1")
    kept = _first_of_each_kind([_kind(text, index) for index in range(total)], wanted)
    _keep(text, kept)
    return StandIn(config=small, kept=kept, of_layers=total)


def write(config: Config, folder: Path) -> Path:
    """Write what vLLM reads of a checkpoint that it fills with dummy weights: config.json and a tokenizer.

    The tokenizer knows one word per token id, so that a server can start; prompts are sent as token ids.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plain = {key: value for key, value in config.items() if key not in _NEVER}
    words = {f"t{index}": index for index in range(min(int(_text(config).get("vocab_size") or 32000), _WORDS))}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "t0"},
    }
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "t0", "bos_token": "t1", "eos_token": "t2"}
    for name, value in (("config", plain), ("tokenizer", tokenizer), ("tokenizer_config", settings)):
        (folder / f"{name}.json").write_text(json.dumps(value, sort_keys=True), encoding="utf-8")
    return folder


def _text(config: Config) -> Any:  # noqa: ANN401 - the part of a multimodal config that speaks of the LLM
    return config["text_config"] if isinstance(config.get("text_config"), dict) else config


def _layers(text: Config) -> int:
    total = text.get("num_hidden_layers")
    if not isinstance(total, int) or isinstance(total, bool) or not 1 <= total <= 10_000:
        raise BadInput(f"num_hidden_layers is {total!r}", place="config.json", mend="give a number from 1 to 10000")
    return total


def _kind(text: Config, index: int) -> Kind:
    return _attention_kind(text, index), _ffn_kind(text, index)


def _attention_kind(text: Config, index: int) -> str:
    types = text.get("layer_types")
    if isinstance(types, Sequence) and not isinstance(types, str) and index < len(types):
        return str(types[index])
    pattern = text.get("sliding_window_pattern")
    if isinstance(pattern, int) and pattern > 1:
        return "full_attention" if (index + 1) % pattern == 0 else "sliding_attention"
    return "attention"


def _ffn_kind(text: Config, index: int) -> str:
    if not any(text.get(key) for key in _EXPERT_COUNTS):
        return "dense"
    if index in (text.get("mlp_only_layers") or ()) or index < int(text.get("first_k_dense_replace") or 0):
        return "dense"
    every = int(text.get("moe_layer_freq") or text.get("decoder_sparse_step") or 1)
    if text.get("decoder_sparse_step"):
        return "moe" if (index + 1) % every == 0 else "dense"
    step = int(text.get("interleave_moe_layer_step") or 1)
    if step > 1:
        return "moe" if (index + 1) % step == 0 else "dense"
    return "moe" if index % every == 0 else "dense"


def _first_of_each_kind(blocks: Sequence[Kind], wanted: Mapping[Kind, int]) -> tuple[int, ...]:
    seen: Counter[Kind] = Counter()
    kept = []
    for index, kind in enumerate(blocks):
        seen[kind] += 1
        if seen[kind] <= wanted[kind]:
            kept.append(index)
    return tuple(kept)


def _keep(text: dict[str, Any], kept: tuple[int, ...]) -> None:
    """Rewrite every per-layer key so that block `i` of the stand-in is block `kept[i]` of the model."""
    ffn = [_ffn_kind(text, index) for index in kept]
    attention = [_attention_kind(text, index) for index in kept]
    if "layer_types" in text or "sliding_window_pattern" in text:
        text["layer_types"] = attention
        text.pop("sliding_window_pattern", None)
    if "first_k_dense_replace" in text:
        text["first_k_dense_replace"] = ffn.index("moe") if "moe" in ffn else len(ffn)
    if "mlp_only_layers" in text or text.get("decoder_sparse_step"):
        text["decoder_sparse_step"] = 1
        text["mlp_only_layers"] = [i for i, kind in enumerate(ffn) if kind == "dense"]
    if int(text.get("interleave_moe_layer_step") or 1) > 1:
        text["interleave_moe_layer_step"] = 1 if all(kind == "moe" for kind in ffn) else 2
    if "moe_layer_freq" in text:
        text["moe_layer_freq"] = 1
    if isinstance(text.get("max_window_layers"), int):
        text["max_window_layers"] = min(int(text["max_window_layers"]), len(kept))
    text["num_hidden_layers"] = len(kept)
