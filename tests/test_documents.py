"""Documents: YAML and JSON within bounds; a fault names file and line."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from catalog.documents import MAX_DEPTH, content_digest, parse_json, parse_yaml, read_json, read_yaml
from catalog.errors import BadInput

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=12),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text("abcdef", min_size=1, max_size=4), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


def test_values_and_lines_of_a_small_document() -> None:
    """Plain values come out as YAML 1.2 reads them, and each key knows its line."""
    document = parse_yaml("a: 1\nb:\n  - {c: 2.5, d: text}\n  - 1e3\ne: null\nf: true\n", name="x.yaml")
    assert document.value == {"a": 1, "b": [{"c": 2.5, "d": "text"}, 1000.0], "e": None, "f": True}
    assert (document.lines["b", 0, "d"], document.lines["b", 1], document.lines["f",]) == (3, 4, 6)
    assert document.place(("b", 0, "d", "missing")) == "x.yaml:3: b[0].d.missing"


@given(PLAIN)
def test_what_pyyaml_writes_reads_back_equal(value: object) -> None:
    """For every plain value, dump then parse is the identity."""
    document = parse_yaml(yaml.safe_dump({"v": value}), name="x")
    assert document.value == {"v": value}


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a: 1\nb: [1,\n", 3, "broken YAML"),
        ("a: {b: c: d}\n", 1, "broken YAML"),
        ("a: 1\na: 2\n", 2, "stands already on line 1"),
        ("x:\n  y: no\n", 2, "true or false"),
        ("x: 1:30\n", 1, "another number"),
        ("x: 2026-01-01\n", 1, "a date"),
        ("x: 010\n", 1, "zero"),
        ("x: .nan\n", 1, "finite"),
        ("x: 1e999\n", 1, "finite"),
        ("x: " + "9" * 5000, 1, "finite"),
        ("x: !!python/object:os.system y\n", 1, "tag"),
        ("x: *y\n", 1, "anchor"),
        ("<<: {a: 1}\n", 1, "merge"),
        ("? [a]\n: 1\n", 1, "key"),
        ("a: 1\n---\nb: 2\n", 2, "second YAML document"),
        ("", 1, "empty"),
        ("a: \x01\n", 1, "broken YAML"),
    ],
)
def test_a_fault_names_its_line(text: str, line: int, said: str) -> None:
    """Broken YAML, doubled keys and words that YAML turns into something else are refused where they stand."""
    with pytest.raises(BadInput, match=said) as caught:
        parse_yaml(text, name="x.yaml")
    assert caught.value.place.startswith(f"x.yaml:{line}")


@pytest.mark.parametrize("text", ["[" * 20_000, "{a: " * 5_000, "a: " + "[" * 20_000 + "]" * 20_000, "- " * 20_000])
def test_depth_ends_in_an_error_not_in_a_crash(text: str) -> None:
    """Ten thousand levels are refused at once."""
    with pytest.raises(BadInput):
        parse_yaml(text, name="x")


def test_aliases_serve_but_do_not_multiply() -> None:
    """An alias repeats its anchor; nine levels of nine aliases (387 million values) are refused in time."""
    assert parse_yaml("a: &a [1, 2]\nb: *a\n", name="x").value["b"] == [1, 2]
    levels = [f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]" for i in range(9)]
    started = time.perf_counter()
    with pytest.raises(BadInput, match="more than"):
        parse_yaml("\n".join(["a: &a [x]", *levels]), name="x")
    assert time.perf_counter() - started < 2.0


def test_what_is_no_text_file_is_refused(tmp_path: Path) -> None:
    """Missing, directory, device, binary and oversized files each get a sentence of their own."""
    (tmp_path / "binary").write_bytes(b"a: 1\n\xff\xfe")
    (tmp_path / "large").write_bytes(b"#" * (4 * 2**20 + 1))
    expected = {"none": "no such file", "": "directory", "binary": "UTF-8", "large": "larger"}
    for name, said in expected.items():
        with pytest.raises(BadInput, match=said):
            read_yaml(tmp_path / name)
    with pytest.raises(BadInput, match="regular"):
        read_yaml(os.devnull)
    with pytest.raises(BadInput, match="no such file"):
        read_yaml("a\0b")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1,}', "broken JSON"),
        ('{"a": NaN}', "finite"),
        ('{"a": 1, "a": 2}', "twice"),
        ("[" * 100_000, "nested"),
        ("[" * (MAX_DEPTH + 5) + "]" * (MAX_DEPTH + 5), "nested"),
        ("9" * 5000, "broken JSON"),
    ],
)
def test_json_faults_are_bad_input(text: str, said: str) -> None:
    """Broken, deep, doubled and non-finite JSON is refused."""
    with pytest.raises(BadInput, match=said):
        parse_json(text, name="config.json")


def test_json_is_bounded_in_size(tmp_path: Path) -> None:
    """One MiB is enough for any config.json."""
    (tmp_path / "config.json").write_text('{"a": "' + "x" * 2**20 + '"}')
    with pytest.raises(BadInput, match="larger"):
        read_json(tmp_path / "config.json")


@given(st.dictionaries(st.text(max_size=5), st.integers(), max_size=6))
def test_a_digest_does_not_depend_on_the_order_of_keys(value: dict[str, int]) -> None:
    """Canonical content: the same mapping in another order has the same digest; another value has not."""
    assert content_digest(value) == content_digest(dict(reversed(value.items())))
    assert content_digest(value) != content_digest(value | {"another key": 1})
