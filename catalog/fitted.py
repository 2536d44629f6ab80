"""`Constants`: the fitted numbers of fitted.yaml, by dotted name, with the digest that a plan cites."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from catalog.documents import content_digest, read_yaml, shown
from catalog.errors import BadInput

FITTED = Path(__file__).with_name("fitted.yaml")
Value = float | str | tuple[float | str, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Constants(Mapping[str, Value]):
    """Read-only numbers (and words about them, such as sources) under dotted names: `c["gemm.h100_sxm.efficiency"]`.

    Lists of numbers are tuples. `within("gemm")` holds what stands below one prefix; `number(...)` insists on a float.
    """

    values_by_name: Mapping[str, Value]
    digest: str
    """sha256 of the content."""
    source: str

    def __getitem__(self, name: str) -> Value:
        return self.values_by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_by_name)

    def __len__(self) -> int:
        return len(self.values_by_name)

    def number(self, name: str, default: float | None = None) -> float:
        """The number of that name; `default` where it is absent, KeyError where there is none either."""
        value = self.values_by_name.get(name, default)
        if value is None:
            msg = f"{name!r} is not among the fitted constants of {self.source}"
            raise KeyError(msg)
        if isinstance(value, (str, tuple)):
            msg = f"{name!r} of {self.source} is {value!r}, no number"
            raise TypeError(msg)
        return float(value)

    def within(self, prefix: str) -> dict[str, Value]:
        """Entries below `prefix.`, named without it."""
        start = prefix + "."
        return {name[len(start) :]: value for name, value in self.values_by_name.items() if name.startswith(start)}


def load_constants(path: Path | str | None = None) -> Constants:
    """Read fitted.yaml (the package's own, unless another is named) once.

    Raises:
        BadInput: no such file, broken YAML, or an entry that is no finite number, text or list of them.
    """
    return _read(FITTED if path is None else Path(path))


@functools.cache
def _read(path: Path) -> Constants:
    document = read_yaml(path)
    if not isinstance(document.value, dict):
        raise BadInput("holds no mapping of constants", place=str(path), mend="write name: number lines")
    flat: dict[str, Value] = {}
    stack: list[tuple[tuple[str, ...], object]] = [((), document.value)]
    while stack:
        keys, value = stack.pop()
        if isinstance(value, dict):
            stack += [((*keys, key), child) for key, child in value.items()]
        elif isinstance(value, list) and all(_plain(item) for item in value):
            flat[".".join(keys)] = tuple(value)
        elif isinstance(value, (int, float, str)) and _plain(value):
            flat[".".join(keys)] = value
        else:
            raise BadInput(f"{shown(keys)} is no number", place=document.place(keys), mend="write a number")
    name = path.name
    return Constants(values_by_name=dict(sorted(flat.items())), digest=content_digest(document.value), source=name)


def _plain(value: object) -> bool:
    return isinstance(value, (int, float, str)) and not isinstance(value, bool)
