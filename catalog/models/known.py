"""Known models (rows of models.yaml), found by any usual spelling of their name."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from catalog.documents import read_yaml
from catalog.errors import BadInput, near_names
from catalog.models.config import parse_config
from catalog.models.shapes import Model
from catalog.quantizations import QUANTIZATION_NAMES, QuantizationName

# Endings of published checkpoints' names, longest first, and the format each tells.
_SUFFIXES: tuple[tuple[str, QuantizationName], ...] = (
    ("quantized.w8a8", "int8"),
    ("quantized.w4a16", "int4"),
    ("fp8-static-pertensor", "fp8"),
    ("fp8-dynamic", "fp8"),
    ("fp8-block", "fp8_block"),
    ("gptq-int4", "int4"),
    ("awq-int4", "int4"),
    ("nvfp4", "nvfp4"),
    ("mxfp4", "mxfp4"),
    ("w8a8", "int8"),
    ("w4a16", "int4"),
    ("int8", "int8"),
    ("int4", "int4"),
    ("awq", "int4"),
    ("fp8", "fp8"),
    ("fp4", "nvfp4"),
    ("bf16", "bf16"),
)
# Endings that tell how a base model was trained further, or when: its shapes stay. Several may follow one another.
_TUNED = re.compile(r"([-_.](instruct|chat|it|hf|base|thinking|preview|2[3-6](0[1-9]|1[0-2])))+$", re.IGNORECASE)


@functools.cache
def _file() -> Mapping[str, Mapping[str, Any]]:
    rows: dict[str, Mapping[str, Any]] = read_yaml(Path(__file__).parents[1] / "models.yaml").value
    return rows


def _read(name: str) -> Model:
    row = _file()[name]
    config = (_file()[row["like"]]["config"] if "like" in row else {}) | row.get("config", {})
    checkpoints = tuple((q, row["checkpoints"][q]) for q in QUANTIZATION_NAMES if q in row.get("checkpoints", {}))
    model = parse_config(config, name=name, source=row["source"])
    return replace(model, checkpoints=checkpoints, family=row.get("family", name.rpartition("/")[2]))


@functools.cache
def _rows() -> tuple[Model, ...]:
    refused = {name for name in _file() if set(_file()[name].get("config", {})) == {"architectures"}}
    return tuple(_read(name) for name in _file() if name not in refused)


def load_models() -> dict[str, Model]:
    """Every known model by its Hugging Face name."""
    return {model.name: model for model in _rows()}


def _squashed(name: str) -> str:
    """Letters and digits of the name without organisation and `Meta-`."""
    bare = name.rpartition("/")[2].casefold().removeprefix("meta-")
    return "".join(letter for letter in bare if letter.isalnum())


@functools.cache
def _spellings() -> dict[str, str]:
    return {_squashed(spelling): name for name, row in _file().items() for spelling in (name, *row.get("aliases", ()))}


@functools.cache
def _published() -> dict[str, tuple[str, QuantizationName]]:
    return {_squashed(path): (model.name, name) for model in _rows() for name, path in model.checkpoints}


def split_quantization(name: str) -> tuple[str, QuantizationName | None]:
    """Name of the base model and the format that the name's ending tells (`Qwen/Qwen3-32B-AWQ` -> int4), else None.

    A checkpoint of the catalog gives its row's name; any other name loses its ending. A known model whose own name
    ends so (`zai-org/GLM-5-FP8`) is left whole.
    """
    if _squashed(name) in _spellings():
        return name, None
    if _squashed(name) in _published():
        return _published()[_squashed(name)]
    for suffix, quantization in _SUFFIXES:
        bare = name[: -len(suffix) - 1]
        if bare and name.casefold().endswith(suffix) and name[-len(suffix) - 1] in "-_.":
            return bare, quantization
    return name, None


def find_model(name: str, extra: Iterable[Model] = ()) -> Model:
    """The model of that name, leniently: case, punctuation, organisation, `Meta-` and a format's ending do not count.

    `extra` (a user's own config.json files) is searched first. Weights are never exchanged behind a name's back: a
    fine-tune of a known model (another organisation's `X`, or `X-Instruct` where only `X` is known) gets the shapes of
    `X`, its own name and no checkpoints of `X`; a name that tells a format (`acme/X-FP8`) is `X` with that checkpoint.

    Raises:
        BadInput: unknown (with near names), or `unsupported: NAME` for a known model that cannot be modelled.
    """
    own = {_squashed(model.name): model for model in extra}
    base, quantization = split_quantization(name)
    for spelling in (name, base):
        if _squashed(spelling) in own:
            return own[_squashed(spelling)]
        if _squashed(spelling) in _spellings():
            return _as_written(name, _known(_spellings()[_squashed(spelling)]), quantization)
    bare = _TUNED.sub("", base)
    written = (_squashed(bare + ending) for ending in ("", "-hf", "-Instruct", "-it"))
    tuned_of = next((_spellings()[spelling] for spelling in written if spelling in _spellings()), None)
    if tuned_of is not None:
        return _tuned(base, _known(tuned_of))
    known = [*load_models(), *(model.name for model in own.values())]
    raise BadInput(
        f"unknown model {name[:120]!r}",
        mend=near_names(name[:120], known) + " Or list its config.json under models:",
    )


def _as_written(name: str, found: Model, quantization: QuantizationName | None) -> Model:
    organisation = name.rpartition("/")[0]
    if not organisation:
        return found
    if quantization is not None:
        return replace(found, checkpoints=tuple(sorted((dict(found.checkpoints) | {quantization: name}).items())))
    same = organisation.casefold() == found.name.partition("/")[0].casefold()
    return found if same else _tuned(name, found)


def _known(name: str) -> Model:
    found = load_models().get(name)
    # A row that cannot be modelled says why when it is read.
    return parse_config(_file()[name]["config"], name=name, source=name) if found is None else found


def _tuned(name: str, shapes_of: Model) -> Model:
    organisation = shapes_of.name.partition("/")[0]
    full = name if "/" in name else f"{organisation}/{name}"
    return replace(shapes_of, name=full, checkpoints=(), source=f"shapes of {shapes_of.name}: {shapes_of.source}")
