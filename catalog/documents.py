"""`Document`: a YAML or JSON file read within bounds, with the line of every key.

Reads what a stranger may have written: size, depth and number of values are bounded, aliases cannot multiply, tags are
never constructed, and a plain word that YAML 1.1 turns into something else (`no`, `1:30`, `2026-01-01`, `010`) is an
error that says to quote it. Every fault is one `BadInput` that names file, line and key.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml

from catalog.errors import BadInput

MAX_YAML_BYTES = 4 * 2**20
MAX_JSON_BYTES = 2**20
MAX_DEPTH = 40
MAX_VALUES = 500_000
_INT = re.compile(r"[-+]?(0|[1-9](_?[0-9])*)")
_FLOAT = re.compile(r"[-+]?([0-9](_?[0-9])*\.?([0-9](_?[0-9])*)?|\.[0-9]+)([eE][-+]?[0-9]{1,4})?")
_MAX_DIGITS = 400

Key = str | int
Loc = tuple[Key, ...]
_RESOLVER: Any = yaml.resolver.Resolver()
_PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def shown(loc: Loc) -> str:
    """Write a path of keys as `intents[0].slo.ttft`."""
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in loc)
    return text.removeprefix(".")


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """Plain values (dict, list, str, int, float, bool, None) of a file, and the line on which each key stands."""

    name: str
    """As the reader was told: what error messages start with."""
    value: Any
    lines: Mapping[Loc, int] = field(default_factory=dict)

    def place(self, loc: Loc) -> str:
        """Where a key stands: `fleet.yaml:12: intents[0].slo`; the nearest key above it where it is missing."""
        known = loc
        while known and known not in self.lines:
            known = known[:-1]
        return f"{self.name}:{self.lines.get(known, 1)}" + (f": {shown(loc)}" if loc else "")


def read_text(path: Path | str, *, max_bytes: int) -> str:
    """Text of a regular UTF-8 file of at most `max_bytes`; BadInput for anything else."""
    path, name = Path(path), str(path)
    try:
        if not path.exists():
            raise BadInput("no such file", place=name, mend="check the path")
        if not path.is_file():
            what = "a directory" if path.is_dir() else "not a regular file"
            raise BadInput(f"is {what}", place=name, mend="name the file itself")
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot be read: {error}", place=name, mend="check the path and its permissions") from error
    if len(content) > max_bytes:
        raise BadInput(f"is larger than {max_bytes} bytes", place=name, mend="split it or name the right file")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise BadInput(
            "is not UTF-8 text", place=f"{name}:{line}", mend="save it as UTF-8, or name a text file"
        ) from None


def read_yaml(path: Path | str) -> Document:
    """Read one YAML document; BadInput with line and column for anything broken."""
    return parse_yaml(read_text(path, max_bytes=MAX_YAML_BYTES), name=str(path))


def parse_yaml(text: str, *, name: str) -> Document:
    """Parse YAML text; `name` is what errors call it."""
    composer = _Composer(name)
    try:
        value = composer.document(yaml.parse(text, Loader=_PARSER))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark if error.problem_mark is not None else error.context_mark
        place = name if mark is None else f"{name}:{mark.line + 1}:{mark.column + 1}"
        raise BadInput(f"broken YAML: {error.problem or error}", place=place, mend="mend the syntax there") from None
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1 if isinstance(error.position, int) else 1
        raise BadInput(f"broken YAML: {error.reason}", place=f"{name}:{line}", mend="remove that character") from None
    except yaml.YAMLError as error:
        raise BadInput(f"broken YAML: {error}", place=name, mend="mend the syntax") from None
    return Document(name=name, value=value, lines=composer.lines)


class _Composer:
    """Builds plain values out of parser events; recursion is bounded by MAX_DEPTH."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: dict[Loc, int] = {}
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.values = 0

    def fail(self, what: str, line: int, loc: Loc = (), mend: str = "") -> NoReturn:
        raise BadInput(what, place=f"{self.name}:{line}" + (f": {shown(loc)}" if loc else ""), mend=mend)

    def document(self, events: Iterator[Any]) -> Any:  # noqa: ANN401 - whatever the file holds
        value, seen = None, False
        for event in events:
            line = event.start_mark.line + 1
            if isinstance(event, yaml.DocumentStartEvent):
                if seen:
                    self.fail("a second YAML document starts here", line, mend="keep one per file")
                seen, value = True, self.value(next(events), events, ())
        if not seen:
            self.fail("is empty", 1, mend="write the content, or name another file")
        return value

    def value(self, event: Any, events: Iterator[Any], loc: Loc) -> Any:  # noqa: ANN401 - any node
        line = event.start_mark.line + 1
        self.lines.setdefault(loc, line)
        self.count(1, line, loc)
        if len(loc) > MAX_DEPTH:
            self.fail(f"is nested deeper than {MAX_DEPTH} levels", line, (), "flatten it")
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event, line, loc)
        if event.tag not in (None, "!"):
            self.fail(f"the YAML tag {event.tag!r} is not read", line, loc, "remove it and write a plain value")
        before = self.values
        if isinstance(event, yaml.ScalarEvent):
            value = self.scalar(event, line, loc)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self.sequence(events, loc)
        else:
            value = self.mapping(events, loc)
        if event.anchor:
            self.anchors[event.anchor] = (value, self.values - before + 1)
        return value

    def count(self, values: int, line: int, loc: Loc) -> None:
        self.values += values
        if self.values > MAX_VALUES:
            self.fail(f"holds more than {MAX_VALUES} values", line, loc, "split the file, or write fewer aliases")

    def alias(self, event: Any, line: int, loc: Loc) -> Any:  # noqa: ANN401 - any node
        if event.anchor not in self.anchors:
            self.fail(f"the alias *{event.anchor} names no anchor above it", line, loc, f"write &{event.anchor} there")
        value, size = self.anchors[event.anchor]
        self.count(size, line, loc)
        return value

    def sequence(self, events: Iterator[Any], loc: Loc) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            items.append(self.value(event, events, (*loc, len(items))))
        return items

    def mapping(self, events: Iterator[Any], loc: Loc) -> dict[str, Any]:
        items: dict[str, Any] = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            line = event.start_mark.line + 1
            if not isinstance(event, yaml.ScalarEvent):
                self.fail("a key is a list, a mapping or an alias", line, loc, "write a plain word as the key")
            if event.value == "<<":
                self.fail("merge keys (<<) are not read", line, loc, "write the keys out")
            key = event.value if event.style else self.key(event, line, loc)
            if key in items:
                first = self.lines[*loc, key]
                self.fail(f"the key {key!r} stands already on line {first}", line, (*loc, key), "keep one of the two")
            self.lines[*loc, key] = line
            items[key] = None
            items[key] = self.value(next(events), events, (*loc, key))
        return items

    def key(self, event: Any, line: int, loc: Loc) -> str:  # noqa: ANN401 - an event
        value = self.scalar(event, line, loc)
        if value is None or isinstance(value, bool):
            self.fail(f"{event.value!r} is no key", line, loc, f"quote it: '{event.value}'")
        return str(event.value)

    def scalar(self, event: Any, line: int, loc: Loc) -> Any:  # noqa: ANN401 - a plain value
        text = event.value
        if event.style or event.tag == "!":
            return text
        if _INT.fullmatch(text) or _FLOAT.fullmatch(text):
            return self.number(text, line, loc)
        tag = _RESOLVER.resolve(yaml.ScalarNode, text, (True, False)).rpartition(":")[2]
        if tag == "bool" and text.casefold() in ("true", "false"):
            return text.casefold() == "true"
        if tag in ("str", "null"):
            return text if tag == "str" else None
        meaning = {"bool": "true or false", "timestamp": "a date", "float": "no finite number"}.get(
            tag, "another number"
        )
        return self.fail(f"YAML reads the plain word {text[:60]!r} as {meaning}", line, loc, f"quote it: '{text[:60]}'")

    def number(self, text: str, line: int, loc: Loc) -> int | float:
        digits = text.replace("_", "")
        whole = _INT.fullmatch(text) is not None
        if whole and len(digits) <= _MAX_DIGITS:
            return int(digits)
        if not whole and re.match(r"[-+]?0[0-9]", digits):
            self.fail(
                f"{text[:60]!r} starts with a zero, which YAML may read as octal",
                line,
                loc,
                "write it without, or quote it",
            )
        number = float(digits)
        if whole or not math.isfinite(number):
            self.fail(f"{text[:60]!r} is not a finite number", line, loc, "write a number that can be meant")
        return number


def read_json(path: Path | str) -> Document:
    """Read one JSON object or list; BadInput for broken, deep, large or non-finite content."""
    return parse_json(read_text(path, max_bytes=MAX_JSON_BYTES), name=str(path))


def parse_json(text: str, *, name: str) -> Document:
    """Parse JSON text; `name` is what errors call it."""
    try:
        value = json.loads(text, object_pairs_hook=lambda pairs: _unique(pairs, name), parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        place = f"{name}:{error.lineno}:{error.colno}"
        raise BadInput(f"broken JSON: {error.msg}", place=place, mend="mend the syntax there") from None
    except RecursionError:
        raise BadInput(f"is nested deeper than {MAX_DEPTH} levels", place=name, mend="flatten it") from None
    except ValueError as error:
        raise BadInput(f"broken JSON: {error}", place=name, mend="write a number that can be meant") from None
    check_depth(value, name=name)
    return Document(name=name, value=value)


def _unique(pairs: list[tuple[str, Any]], name: str) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for position, key in enumerate(keys) if key in keys[:position])
        raise BadInput(f"the key {twice!r} stands twice in one object", place=name, mend="keep one of the two")
    return found


def _no_constant(text: str) -> NoReturn:
    msg = f"{text} is not a finite number"
    raise ValueError(msg)


def check_depth(value: object, *, name: str) -> None:
    """BadInput if plain values nest deeper than MAX_DEPTH or are more than MAX_VALUES; never recurses."""
    stack, seen = [(value, 0)], 0
    while stack:
        node, depth = stack.pop()
        seen += 1
        if depth > MAX_DEPTH:
            raise BadInput(f"is nested deeper than {MAX_DEPTH} levels", place=name, mend="flatten it")
        if seen > MAX_VALUES:
            raise BadInput(f"holds more than {MAX_VALUES} values", place=name, mend="name the right file")
        if isinstance(node, (dict, list)):
            stack += [(child, depth + 1) for child in (node.values() if isinstance(node, dict) else node)]


def content_digest(value: object) -> str:
    """sha256 of the canonical JSON of plain values: sorted keys, no spaces, no NaN."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
