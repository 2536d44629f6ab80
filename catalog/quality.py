"""`Quality`: which share of the unquantized model's score a format keeps (rows in quality.yaml).

    share = share of the weight format x share of the KV format

The format in which the publisher releases a model (mxfp4 of gpt-oss, fp8 blocks of DeepSeek) keeps all of the score by
definition: there is no better model to compare with.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalog.documents import read_yaml
from catalog.errors import BadInput, near_names
from catalog.models import Model, find_model
from catalog.quantizations import KVDtype, QuantizationName

#: A published checkpoint that keeps less is broken rather than quantized.
SUSPECT_BELOW = 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """A share of the unquantized score."""

    value: float
    low: float
    high: float
    source: str
    default: bool
    """True: taken by format, not from an evaluation of this model."""

    @property
    def suspect(self) -> bool:
        """True: the checkpoint loses so much that it is likely broken."""
        return self.value < SUSPECT_BELOW


@functools.cache
def _file() -> Mapping[str, Any]:
    found: dict[str, Any] = read_yaml(Path(__file__).with_name("quality.yaml")).value
    return found


def quality(
    model_name: str | Model, quantization: QuantizationName, kv_dtype: KVDtype = "bf16", *, native: str | None = None
) -> Quality:
    """Share of the unquantized score that the model keeps in these formats.

    `native` is the published format of a model that the catalog does not know; a `Model` may stand for its name.

    Raises:
        BadInput: an unknown format.
    """
    family, published = _identity(model_name, native)
    weights, is_default = _weights(family, published, quantization)
    if kv_dtype not in _file()["kv"]:
        raise BadInput(f"unknown KV format {kv_dtype!r}", mend=near_names(str(kv_dtype), _file()["kv"]))
    kv = _file()["kv"][kv_dtype]
    return Quality(
        value=weights["share"] * kv["share"],
        low=weights["low"] * kv["low"],
        high=weights["high"] * kv["high"],
        source=weights["source"] + (f"; KV {kv_dtype}: {kv['source']}" if kv_dtype != "bf16" else ""),
        default=is_default or kv_dtype != "bf16",
    )


def _identity(model: str | Model, native: str | None) -> tuple[str, str]:
    if isinstance(model, Model):
        return model.family, native or model.native
    try:
        found = find_model(model)
    except BadInput:  # a model of the user's own: only the defaults speak of it
        return "", native or "bf16"
    return found.family, native or found.native


def _weights(family: str, published: str, quantization: QuantizationName) -> tuple[Mapping[str, Any], bool]:
    if quantization == published:
        return {"share": 1.0, "low": 1.0, "high": 1.0, "source": "the format in which the model is published"}, False
    row = _file()["rows"].get(family, {}).get(quantization)
    if row is not None:
        return row, False
    if quantization not in _file()["weights"]:
        raise BadInput(f"unknown format {quantization!r}", mend=near_names(str(quantization), _file()["weights"]))
    return _file()["weights"][quantization], quantization != "bf16"
