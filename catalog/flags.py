"""`Flag`: the arguments of `vllm serve`, by vLLM minor version (rows in flags.yaml).

The image's version decides which arguments exist and how they are spelled: vLLM 0.32 turns prefix caching off with
`--no-enable-prefix-caching`, 0.33 with `--disable-prefix-caching`. Whatever is emitted is checked here, offline,
before it reaches a parser in a cluster. A version that was not recorded is refused, never guessed.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from importlib import resources
from typing import Literal

from pydantic import BaseModel, ConfigDict

from catalog.documents import parse_yaml
from catalog.errors import BadInput, near_names

FlagType = Literal["int", "int_or_auto", "float", "str", "bool", "json", "json_or_str"]
FlagValue = str | int | float | bool | dict[str, object] | list[object]


class Flag(BaseModel):
    """One long argument of one vLLM version."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    type: FlagType
    choices: tuple[str, ...] | None = None
    negative: str | None = None
    """What turns a switch off, without dashes; None for a switch that can only be turned on."""
    many: bool = False
    """Takes one value or more."""


#: Limits that vLLM's configuration checks and its parser does not (config/{cache,parallel,scheduler}.py, 0.32).
BOUNDS: dict[str, tuple[float, float]] = {
    "tensor-parallel-size": (1, math.inf),
    "pipeline-parallel-size": (1, math.inf),
    "data-parallel-size": (1, math.inf),
    "max-num-seqs": (1, math.inf),
    "max-num-batched-tokens": (1, math.inf),
    "max-num-queued-tokens": (0, math.inf),
    "max-num-queued-reqs": (0, math.inf),
    "max-model-len": (1, math.inf),
    "kv-cache-memory-bytes": (1, math.inf),
    "gpu-memory-utilization": (1e-9, 1.0),
    "shutdown-timeout": (0, math.inf),
    "port": (1, 65535),
}


@functools.cache
def load_flags() -> Mapping[str, Mapping[str, Flag]]:
    """Read the packaged table: `{minor version: {long flag without dashes: Flag}}`."""
    text = resources.files("catalog").joinpath("flags.yaml").read_text(encoding="utf-8")
    versions = parse_yaml(text, name="catalog/flags.yaml").value["versions"]
    return {
        version: {name: Flag.model_validate_json(json.dumps(row)) for name, row in table["flags"].items()}
        for version, table in versions.items()
    }


def flags(version: str) -> Mapping[str, Flag]:
    """Look up the arguments of a vLLM version such as `0.32.0`.

    Raises:
        BadInput: no parser of that minor version was recorded.
    """
    minor = ".".join(version.split(".")[:2])
    known = load_flags()
    if minor not in known:
        shown = ", ".join(f"{name}.x" for name in sorted(known))
        raise BadInput(
            f"vLLM {version!r} has no recorded table of arguments (recorded: {shown})",
            place="vllm_version",
            mend="use a recorded version, or record this one with tests/record_flags.py",
        )
    return known[minor]


def switch(version: str, name: str, *, on: bool) -> str:
    """Spell a switch in one version: `switch('0.33.0', 'enable-prefix-caching', on=False)`.

    Raises:
        BadInput: the version has no such switch, or cannot turn it off.
    """
    flag = flags(version).get(name)
    if flag is not None and flag.type == "bool" and (on or flag.negative is not None):
        return name if on else str(flag.negative)
    way = "on" if on else "off"
    raise BadInput(f"vLLM {version} cannot turn {name!r} {way}", place="vllm_version", mend="plan without it")


def negatives(version: str) -> Mapping[str, str]:
    """What turns a switch off -> the switch, in one version."""
    return _negatives(".".join(version.split(".")[:2]))


@functools.cache
def _negatives(minor: str) -> Mapping[str, str]:
    return {flag.negative: name for name, flag in flags(minor).items() if flag.negative}


def check_arguments(version: str, arguments: Mapping[str, FlagValue]) -> list[str]:
    """Say what vLLM of this version would refuse, one sentence each; an empty list means accepted.

    `arguments` are long flags without dashes, with values as in a `--config` file: numbers, strings, True for a
    switch, mappings for JSON. Names, types, choices and the bounds of `BOUNDS` are checked.
    """
    table, off = flags(version), negatives(version)
    problems = [
        problem
        for name, value in sorted(arguments.items())
        if (problem := _problem(name, value, table, off)) is not None
    ]
    both = sorted(name for name in arguments if off.get(name) in arguments)
    return problems + [f"{name}: given together with {off[name]!r}" for name in both]


def _problem(name: str, value: FlagValue, table: Mapping[str, Flag], off: Mapping[str, str]) -> str | None:
    if name in off:
        return None if value is True else f"{name}: {value!r} is not a switch's True"
    if name not in table:
        return f"{name}: unknown argument; {near_names(name, table)}"
    flag = table[name]
    values = value if flag.many and isinstance(value, list) else [value]
    wrong = next((item for item in values if not _has_type(item, flag.type)), None)
    if wrong is not None:
        return f"{name}: {wrong!r} is not {flag.type}"
    if flag.choices is not None and any(str(item) not in flag.choices for item in values):
        return f"{name}: {value!r} is none of its choices; {near_names(str(value), flag.choices)}"
    low, high = BOUNDS.get(name, (-math.inf, math.inf))
    if isinstance(value, (int, float)) and not low <= value <= high:
        return f"{name}: {value!r} is outside {low:g} to {high:g}"
    return None


def _has_type(value: object, kind: FlagType) -> bool:
    if isinstance(value, bool):
        return kind == "bool" and value
    match kind:
        case "int":
            return isinstance(value, int)
        case "int_or_auto":
            return isinstance(value, int) or value == "auto"
        case "float":
            return isinstance(value, (int, float)) and math.isfinite(value)
        case "json":
            return isinstance(value, (dict, list))
        case "json_or_str":
            return isinstance(value, (dict, list, str))
        case "str":
            return isinstance(value, str)
        case _:
            return False
