"""`Fields`: bounded, typed access to the keys of a config.json; an absurd value is an error that names it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from catalog.errors import BadInput

#: Greatest believable values: about ten times what any published model has.
LIMITS: dict[str, int] = {
    "num_hidden_layers": 2_000,
    "hidden_size": 262_144,
    "vocab_size": 10_000_000,
    "num_attention_heads": 8_192,
    "head_dim": 65_536,
    "intermediate_size": 4_194_304,
    "experts": 65_536,
    "positions": 1_000_000_000,
    "rank": 262_144,
}


def brief(value: object) -> str:
    """`repr` cut to 60 characters; safe for values of any size."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 200:
        return f"a number of {value.bit_length()} bits"
    text = repr(value) if isinstance(value, (int, float, str, type(None))) else f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."


@dataclass(frozen=True, slots=True)
class Fields:
    """Keys of one config.json (or its text_config)."""

    keys: Mapping[str, Any]
    place: str

    def fail(self, key: str, what: str, mend: str) -> BadInput:
        """The error for one key, to be raised."""
        return BadInput(f"{key} is {brief(self.keys.get(key))}: {what}", place=self.place, mend=mend)

    def whole(self, key: str, *, limit: str, low: int = 1, default: int | None = None) -> int:
        """A whole number of at least `low` and at most LIMITS[limit]; `default` where the key is absent or null."""
        value, high = self.keys.get(key), LIMITS[limit]
        if value is None:
            if default is None:
                raise BadInput(f"{key} is missing", place=self.place, mend="give a complete Hugging Face config.json")
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.fail(key, "not a whole number", f"write a number from {low} to {high}")
        if not low <= value <= high:
            raise self.fail(key, "out of range", f"write a number from {low} to {high}")
        return value

    def flag(self, key: str, *, default: bool = False) -> bool:
        """True or false; `default` where the key is absent or null."""
        value = self.keys.get(key)
        if value is not None and not isinstance(value, bool):
            raise self.fail(key, "not true or false", "write true or false")
        return default if value is None else value

    def text(self, key: str) -> str | None:
        """A string of at most 200 characters; None where the key is absent or null."""
        value = self.keys.get(key)
        if value is not None and (not isinstance(value, str) or len(value) > 200):
            raise self.fail(key, "not a short text", "write a short text")
        return value

    def items(self, key: str, *, kind: type, at_most: int) -> tuple[Any, ...] | None:
        """A list of values of one type; None where the key is absent or null."""
        value = self.keys.get(key)
        if value is None:
            return None
        if not isinstance(value, (list, tuple)) or len(value) > at_most:
            raise self.fail(key, "not a list of fitting length", f"write at most {at_most} entries")
        for item in value:
            if not isinstance(item, kind) or (isinstance(item, bool) and kind is not bool):
                raise BadInput(
                    f"{key} holds {brief(item)}, no {kind.__name__}", place=self.place, mend="correct the entry"
                )
        return tuple(value)

    def nested(self, key: str) -> Fields | None:
        """A nested object; None where the key is absent or null."""
        value = self.keys.get(key)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise self.fail(key, "not an object", "write an object")
        return Fields(value, f"{self.place}: {key}" if self.place else key)
