"""Native format of a checkpoint, read from the quantization_config of its config.json."""

from __future__ import annotations

import re
from collections.abc import Iterable

from catalog.errors import BadInput
from catalog.models.fields import Fields
from catalog.quantizations import QuantizationName

_MAX_PATTERNS = 20_000
#: Keys under which the quantizers list modules that stay bf16.
_EXEMPT_KEYS = ("modules_to_not_convert", "ignore", "ignored_layers", "exclude_modules")
# Which entries exempt a whole module: `model.layers.*.self_attn`, `re:.*self_attn.*`, `...self_attn.o_proj`. A norm,
# an indexer or a gate inside a module does not.
_END = r"[\W]*$"
_MODULES = {
    "self_attn": re.compile(rf"(self_attn|attention|attn)([._](q|k|v|o|qkv|q_a|q_b|kv_a|kv_b)_proj)?{_END}"),
    "shared_experts": re.compile(rf"shared_experts?([._](gate|up|down|gate_up)_proj)?{_END}"),
    "mlp": re.compile(rf"mlp(\W*\(?[\w|]*(gate|up|down|gate_up)[\w|]*\)?_proj)?{_END}"),
    "lm_head": re.compile(rf"lm_head{_END}"),
}
_LAYER = re.compile(r"layers?\.(\d{1,5})\.")


def native_format(config: Fields, *, num_layers: int) -> tuple[QuantizationName, tuple[str, ...]]:
    """Format of the checkpoint and the modules that keep bf16 in it (see `Model.unquantized`).

    Raises:
        BadInput: `unsupported: quantization ...` for a method that the planner does not model.
    """
    found = config.nested("quantization_config")
    if found is None:
        return "bf16", ()
    name = _format(found)
    return ("bf16", ()) if name == "bf16" else (name, _unquantized(found, num_layers))


def _format(found: Fields) -> QuantizationName:
    method, algorithm = found.text("quant_method"), found.text("quant_algo")
    match method, (algorithm or "").upper():
        case (("fp8" | "fbgemm_fp8"), _):
            return "fp8_block" if found.keys.get("weight_block_size") is not None else "fp8"
        case "mxfp4", _:
            return "mxfp4"
        case (("awq" | "gptq"), _) if found.keys.get("bits") == 4:
            return "int4"
        case (("modelopt" | "modelopt_fp4" | None), "FP8"):
            return "fp8"
        case (("modelopt" | "modelopt_fp4" | None), "NVFP4"):
            return "nvfp4"
        case "compressed-tensors", _:
            return _compressed(found)
    raise BadInput(
        f"unsupported: quantization {method or algorithm!r}"
        + (f" with {found.whole('bits', limit='rank')} bits" if isinstance(found.keys.get("bits"), int) else ""),
        place=found.place,
        mend="name the unquantized model, or a checkpoint in fp8, int8 (w8a8), int4 (AWQ, GPTQ), mxfp4 or nvfp4",
    )


def _compressed(found: Fields) -> QuantizationName:
    """compressed-tensors: (bits, type) of weights and activations of its groups, which must agree."""
    groups, names = found.nested("config_groups"), set()
    for key in sorted(groups.keys, key=str)[:64] if groups else ():
        group = groups.nested(key) if groups else None
        weights = group.nested("weights") if group else None
        if group is None or weights is None:
            continue
        activations = group.nested("input_activations")
        bits, kind = weights.keys.get("num_bits"), weights.keys.get("type")
        act = activations.keys.get("num_bits") if activations else None
        if (bits, kind, act) == (8, "float", 8):
            names.add("fp8_block" if weights.keys.get("strategy") == "block" else "fp8")
        elif (bits, kind, act) == (8, "int", 8):
            names.add("int8")
        elif (bits, kind, act) == (4, "int", None):
            names.add("int4")
        elif (bits, kind) == (4, "float"):
            names.add("nvfp4" if weights.keys.get("group_size") == 16 else "mxfp4")
        else:
            names.add(f"{kind}{bits} with activations of {act} bits")
    known: tuple[QuantizationName, ...] = ("fp8", "fp8_block", "int8", "int4", "nvfp4", "mxfp4")
    for name in known:
        if names == {name}:
            return name
    what = " and ".join(sorted(str(name)[:60] for name in names)) or "without groups"
    raise BadInput(
        f"unsupported: quantization compressed-tensors ({what})",
        place=found.place,
        mend="name the unquantized model, or a checkpoint in one of " + ", ".join(known),
    )


def _unquantized(found: Fields, num_layers: int) -> tuple[str, ...]:
    """A module is exempt where a pattern names it without a layer, or for at least half of the layers."""
    layers: dict[str, set[int]] = {}
    everywhere = {"lm_head"}  # vLLM quantizes no output head in any of these formats
    for pattern in _patterns(found):
        for module, expression in _MODULES.items():
            if expression.search(pattern) and not (module == "mlp" and "expert" in pattern):
                numbered = _LAYER.search(pattern)
                if numbered:
                    layers.setdefault(module, set()).add(int(numbered[1]))
                else:
                    everywhere.add(module)
    mostly = {module for module, which in layers.items() if 2 * len(which) >= num_layers}
    return tuple(sorted(everywhere | mostly))


def _patterns(found: Fields) -> Iterable[str]:
    for key in _EXEMPT_KEYS:
        for pattern in found.items(key, kind=str, at_most=_MAX_PATTERNS) or ():
            yield pattern[:200].removeprefix("re:").replace("\\", "")
