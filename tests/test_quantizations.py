"""Quantizations: bytes per weight, and who serves what."""

from __future__ import annotations

import math

from catalog.quantizations import KV_BYTES, QUANTIZATION_NAMES, QUANTIZATIONS


def test_every_name_has_a_row_of_that_name() -> None:
    """The table and the type list the same formats."""
    assert tuple(QUANTIZATIONS) == QUANTIZATION_NAMES
    assert all(row.name == name for name, row in QUANTIZATIONS.items())


def test_bytes_per_weight_worked_by_hand() -> None:
    """4 bits and a scale: mxfp4 4.25 bits (8 per 32), nvfp4 4.5 bits (8 per 16), int4 4.16 bits (20 per 128)."""
    bits = {name: row.weight_bytes * 8 for name, row in QUANTIZATIONS.items()}
    assert (bits["bf16"], bits["fp8"], bits["int8"], bits["mxfp4"], bits["nvfp4"]) == (16, 8, 8, 4.25, 4.5)
    assert math.isclose(bits["int4"], 4 + 20 / 128)
    assert math.isclose(bits["fp8_block"], 8 + 32 / 128**2)


def test_fewer_bits_are_never_more_bytes() -> None:
    """bf16 is the widest weight, and FP8 halves the KV."""
    assert all(row.weight_bytes <= QUANTIZATIONS["bf16"].weight_bytes for row in QUANTIZATIONS.values())
    assert KV_BYTES["fp8"] * 2 == KV_BYTES["bf16"]


def test_only_fp8_is_made_online() -> None:
    """Every other format needs a published checkpoint, which says itself how it is quantized."""
    assert {name: row.vllm for name, row in QUANTIZATIONS.items() if row.vllm} == {"fp8": "fp8"}


def test_capability_ranges_are_ordered() -> None:
    """The end of a range does not lie below its start."""
    for row in QUANTIZATIONS.values():
        assert row.max_capability is None or row.max_capability >= row.min_capability
