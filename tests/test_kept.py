"""Pieces of an unfinished probe: kept one by one, found again, told apart by their fingerprint's key."""

from dataclasses import fields, replace

import pytest

from catalog.fingerprints import FingerprintKey
from catalog.store import Store
from flows.kept import KIND, Kept

KEY = FingerprintKey(
    model="tiny", model_digest="d", gpu="cpu", tp=1, quantization="bf16", kv_dtype="bf16", engine_version="0.32.0",
    driver="1", flags=("a=1", "b=2"), runner="vllm",
)  # fmt: skip
ROW = {"engine": 0, "kind": "block_decode", "x": 4, "y": 16, "round": 0, "time_s": 1e-3}


def test_what_was_kept_is_found_again(tmp_path):
    """A second probe of the same key finds the rows of the first, each once, the newest of a piece."""
    Kept(Store(tmp_path), KEY).add(ROW)
    Kept(Store(tmp_path), KEY).add(ROW | {"x": 8})
    Kept(Store(tmp_path), KEY).add(ROW | {"time_s": 2e-3})
    rows = Kept(Store(tmp_path), KEY).rows
    assert sorted((row["x"], row["time_s"]) for row in rows) == [(4, 2e-3), (8, 1e-3)]


@pytest.mark.parametrize("field", [field.name for field in fields(FingerprintKey)])
def test_any_change_of_the_key_makes_it_another_probe(tmp_path, field):
    """A new driver, engine version, flag, model digest, TP, format or GPU shares no piece with the old one."""
    Kept(Store(tmp_path), KEY).add(ROW)
    value = getattr(KEY, field)
    other = (*value, "c=3") if isinstance(value, tuple) else value + 1 if isinstance(value, int) else f"{value}x"
    assert Kept(Store(tmp_path), replace(KEY, **{field: other})).rows == []


def test_a_time_that_is_no_number_is_kept_as_missing(tmp_path):
    """NaN is no JSON: the piece is kept without a time, and refused where it is read."""
    Kept(Store(tmp_path), KEY).add(ROW | {"time_s": float("nan")})
    assert Kept(Store(tmp_path), KEY).rows == [ROW | {"time_s": None}]


def test_a_damaged_piece_is_measured_again(tmp_path):
    """A piece whose bytes changed is left out, the others stay."""
    Kept(Store(tmp_path), KEY).add(ROW)
    Kept(Store(tmp_path), KEY).add(ROW | {"x": 8})
    path = next((tmp_path / KIND).iterdir())
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b"0.001", b"0.009"))
    assert len(Kept(Store(tmp_path), KEY).rows) == 1
