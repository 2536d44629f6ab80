"""Faults of a user's file: pydantic's errors in clear words, each at its line, the first of them raised."""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from catalog.documents import Document, Loc
from catalog.errors import BadInput, near_names

SHOWN = 10
# `what: mend`, where a quoted value may hold a colon of its own.
_WHAT_MEND = re.compile(r"((?:'[^']*'|[^:']|:(?! ))*): (.*)", re.DOTALL)
_NAME = "letters, digits, '.', '_' and '-', starting with a letter or digit, at most 63 long"
_PATTERNS = {"model": "write it as on Hugging Face, such as Qwen/Qwen3-32B", "vllm_version": "such as 0.32.0"}

Boundary = TypeVar("Boundary", bound=BaseModel)


def raise_first(faults: Iterable[BadInput]) -> None:
    """Raise the first fault in line order, the others listed below it; nothing where there is none."""
    ordered = sorted(faults, key=_line)
    if not ordered:
        return
    first, rest = ordered[0], ordered[1:]
    lines = [first.mend, *(f"also: {fault}" for fault in rest[: SHOWN - 1])]
    lines += [f"and {len(rest) - SHOWN + 1} more errors"] if len(rest) >= SHOWN else []
    raise BadInput(first.what, place=first.place, mend="\n  ".join(lines)) from None


def _line(fault: BadInput) -> int:
    number = fault.place.partition(": ")[0].rpartition(":")[2]
    return int(number) if number.isdigit() else 0


def placed(fault: BadInput, document: Document, loc: Loc) -> BadInput:
    """The same fault at a line of the document; the place that it had (another file) joins the text."""
    return BadInput(f"{fault.place}: " * bool(fault.place) + fault.what, place=document.place(loc), mend=fault.mend)


def validated(kind: type[Boundary], document: Document, *, known: Sequence[BadInput] = ()) -> Boundary:
    """The document as a pydantic model. Through JSON: lists become tuples there, and nothing else is converted.

    Raises:
        BadInput: the first of all faults, with those `known` before.
    """
    try:
        return kind.model_validate_json(json.dumps(document.value))
    except ValidationError as error:
        details = error.errors(include_url=False)
        places = {found["loc"] for found in details}
        faults = [_fault(found, document, kind) for found in details if not _follows(found, places)]
        raise_first([*known, *(fault for fault in faults if not (known and "is declared twice" in fault.what))])
        raise


def _follows(found: ErrorDetails, places: set[tuple[int | str, ...]]) -> bool:
    """A list is too short only because its entries are faulty."""
    loc = found["loc"]
    return found["type"] == "too_short" and any(place[: len(loc)] == loc and place != loc for place in places)


def _fault(found: ErrorDetails, document: Document, kind: type[BaseModel]) -> BadInput:
    """One error of pydantic in the project's words."""
    loc: Loc = tuple(key for key in found["loc"] if key != "[key]")
    what, mend = _words(found, loc, kind)
    return BadInput(what, place=document.place(loc), mend=mend)


def _words(found: ErrorDetails, loc: Loc, kind: type[BaseModel]) -> tuple[str, str]:
    value, last = found.get("input"), str(loc[-1])[:80] if loc else ""
    match found["type"]:
        case "extra_forbidden":
            return f"unknown key {last!r}", near_names(last, keys_at(kind, loc[:-1]))
        case "missing":
            return f"{last} is missing", f"add {last}:"
        case "value_error":
            text = str(found["ctx"]["error"])
            split = _WHAT_MEND.fullmatch(text)
            return (split[1], split[2]) if split else (text, "")
        case "string_type" if value is None:
            return f"{last} is empty", "write a text"
        case "string_type":
            return f"{brief(value)} is no text", f"quote it: '{brief(value)}'"
        case "literal_error":
            return f"{brief(value)} is not possible here", f"write {found['ctx']['expected']}"
        case "string_pattern_mismatch":
            return f"{brief(value)} is no possible {last}", _PATTERNS.get(last, _NAME)
        case "too_short":
            return f"{last} is empty", "add at least one entry"
    expected = found["msg"].removeprefix("Input should be ")
    return f"{brief(value)} is not possible here", f"it must be {expected}"


def brief(value: object) -> str:
    """`repr` of a plain value, cut to 80 characters; a list or mapping by its kind."""
    text = "a list" if isinstance(value, list) else "a mapping" if isinstance(value, dict) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def keys_at(kind: type[BaseModel], loc: Loc) -> list[str]:
    """Keys that the model at that place below `kind` has."""
    models: list[type[BaseModel]] = [kind]
    for key in loc:
        if isinstance(key, str):
            found = [model.model_fields[key].annotation for model in models if key in model.model_fields]
            models = [model for annotation in found for model in _models_in(annotation)] or models
    return [name for model in models for name in model.model_fields]


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        if issubclass(annotation, BaseModel):
            yield annotation
        return
    for inner in typing.get_args(annotation):
        yield from _models_in(inner)
