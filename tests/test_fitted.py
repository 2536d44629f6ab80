"""Fitted constants: numbers by dotted name, with a digest."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalog.errors import BadInput
from catalog.fitted import load_constants


def test_nested_numbers_get_dotted_names(tmp_path: Path) -> None:
    """A tree of numbers, lists and texts is a flat mapping."""
    (tmp_path / "f.yaml").write_text("a:\n  b: {c: 1.5, d: [1, 2]}\n  source: measured\ne: 3\n")
    found = load_constants(tmp_path / "f.yaml")
    assert dict(found) == {"a.b.c": 1.5, "a.b.d": (1, 2), "a.source": "measured", "e": 3}
    assert found.within("a.b") == {"c": 1.5, "d": (1, 2)}
    assert (found.number("e"), found.number("absent", 2.0)) == (3.0, 2.0)
    with pytest.raises(KeyError, match="absent"):
        found.number("absent")
    with pytest.raises(TypeError, match="no number"):
        found.number("a.source")


def test_the_digest_follows_the_content(tmp_path: Path) -> None:
    """Comments and order do not count, a changed number does."""
    for name, text in {"a": "x: 1\ny: 2\n", "b": "# why\ny: 2\nx: 1\n", "c": "x: 1\ny: 3\n"}.items():
        (tmp_path / name).write_text(text)
    a, b, c = (load_constants(tmp_path / name).digest for name in "abc")
    assert a == b != c


@pytest.mark.parametrize("text", ["- 1\n", "a: null\n", "a: true\n", "a: [[1]]\n", "a: [true]\n", "a: .inf\n"])
def test_what_is_no_constant_is_refused(tmp_path: Path, text: str) -> None:
    """Only finite numbers, texts and flat lists of them are constants."""
    (tmp_path / "f.yaml").write_text(text)
    with pytest.raises(BadInput, match=r"f\.yaml"):
        load_constants(tmp_path / "f.yaml")


def test_the_packages_own_constants_load() -> None:
    """fitted.yaml of the package is readable and not empty."""
    assert len(load_constants()) > 0
