"""Quality: which share of the score a format keeps, and who says so."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from catalog.errors import BadInput
from catalog.models import load_models
from catalog.quality import Quality, quality
from catalog.quantizations import QUANTIZATION_NAMES


@pytest.mark.parametrize("name", sorted(load_models()))
def test_shares_are_shares_and_lie_in_their_interval(name: str) -> None:
    """0 < low <= value <= high <= 1 for every model, format and KV format; each has a source."""
    for quantization in QUANTIZATION_NAMES:
        for kv_dtype in ("bf16", "fp8"):
            found = quality(name, quantization, kv_dtype)
            assert 0.6 < found.low <= found.value <= found.high <= 1.0
            assert found.source


@pytest.mark.parametrize("model", load_models().values(), ids=load_models())
def test_the_published_format_keeps_everything(model: object) -> None:
    """gpt-oss in mxfp4 and DeepSeek in FP8 blocks are 1 by definition, as bf16 is where bf16 is published."""
    found = quality(model, model.native)
    assert (found.value, found.low, found.high, found.default) == (1.0, 1.0, 1.0, False)


def test_a_published_evaluation_comes_before_the_default() -> None:
    """Llama-3.1-70B-Instruct in INT4: 78.54 / 78.67 = 0.9983, its own row, whatever the spelling."""
    found = quality("RedHatAI/Meta-Llama-3.1-70B-Instruct-quantized.w4a16", "int4")
    assert math.isclose(found.value, 78.54 / 78.67, abs_tol=5e-5)
    assert not found.default
    assert quality("Qwen/Qwen3-32B", "int4").default


def test_a_format_of_the_kv_costs_on_top() -> None:
    """Shares multiply: FP8 weights with FP8 KV keep less than either alone."""
    both = quality("Qwen/Qwen3-32B", "fp8", "fp8")
    assert math.isclose(
        both.value, quality("Qwen/Qwen3-32B", "fp8").value * quality("Qwen/Qwen3-32B", "bf16", "fp8").value
    )
    assert both.default


def test_a_model_of_the_users_own_gets_defaults() -> None:
    """An unknown name is judged by format alone, and its published format is named by the caller."""
    assert quality("acme/own", "fp8").default
    assert quality("acme/own", "fp8", native="fp8").value == 1.0


def test_an_unknown_format_is_bad_input() -> None:
    """No guess for a format that is not in the file."""
    with pytest.raises(BadInput, match="unknown format"):
        quality("Qwen/Qwen3-8B", "int3")
    with pytest.raises(BadInput, match="unknown KV format"):
        quality("Qwen/Qwen3-8B", "bf16", "int2")


def test_a_broken_checkpoint_is_suspect() -> None:
    """Below 0.6 of the score a checkpoint is broken rather than quantized."""
    found = Quality(value=0.61, low=0.5, high=0.7, source="x", default=False)
    assert not found.suspect
    assert replace(found, value=0.59).suspect
