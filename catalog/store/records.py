"""`Store`: immutable, content-named records of a kind, each with a key, a note and perhaps a table."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import polars as pl

from catalog.errors import BadInput, CorruptRecord
from catalog.store.blobs import blobs_at

_NAME = re.compile(r"(?P<kind>[a-z][a-z0-9-]{0,40})/(?P<key>[0-9a-f]{32})-(?P<serial>\d{6})-(?P<content>[0-9a-f]{64})"
                   r"\.(?P<suffix>parquet|json)")  # fmt: skip
_METADATA = "fleetplan"


def canonical_json(value: object) -> bytes:
    """Write JSON of which equal values have equal bytes; NaN and infinity are refused with ValueError."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest(value: object) -> str:
    """sha256 of the canonical JSON of a value, as 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class RecordName:
    """Name of a record: everything about it but its content. Sorts by kind, key and serial."""

    kind: str
    key: str
    """First 32 digits of the key's digest."""
    serial: int
    content: str
    """sha256 of the file."""
    suffix: str

    def __str__(self) -> str:
        """Path below the root."""
        return f"{self.kind}/{self.key}-{self.serial:06d}-{self.content}.{self.suffix}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str` wrote; BadInput for anything else."""
        match = _NAME.fullmatch(text)
        if match is None:
            msg = f"{text!r} is no record"
            raise BadInput(msg, mend="list the records with `fleetplan catalog ls`")
        kind, key, serial, content, suffix = match.groups()
        return cls(kind=kind, key=key, serial=int(serial), content=content, suffix=suffix)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Record:
    """What a record holds."""

    key: Mapping[str, Any]
    note: Mapping[str, Any] = field(default_factory=dict)
    """Anything in JSON: provenance, failures, small values."""
    frame: pl.DataFrame | None = None


class Store:
    """Records under one root, a path or a URL."""

    def __init__(self, root: str | Path) -> None:
        self.root = str(root)
        self._blobs = blobs_at(root)

    def put(
        self,
        kind: str,
        key: Mapping[str, Any],
        *,
        note: Mapping[str, Any] | None = None,
        frame: pl.DataFrame | None = None,
    ) -> RecordName:
        """Add a record as the newest of its key and return its name; the same content twice is one record.

        Two writers of one key may draw the same serial: both records stay, and the greater digest counts as newer.
        """
        data = _encode(Record(key=key, note=note or {}, frame=frame))
        content = hashlib.sha256(data).hexdigest()
        newest = self._newest(kind, key)
        if newest is not None and newest.content == content and self._is_sound(newest):
            return newest
        name = RecordName(
            kind=kind,
            key=key_digest(key),
            serial=1 + (newest.serial if newest else 0),
            content=content,
            suffix="json" if frame is None else "parquet",
        )
        self._blobs.put(str(RecordName.parse(str(name))), data)
        return name

    def get(self, kind: str, key: Mapping[str, Any]) -> Record | None:
        """Return the newest record of a key, None if there is none; CorruptRecord if its bytes are not its own."""
        name = self._newest(kind, key)
        return None if name is None else self.read(name)

    def read(self, name: RecordName) -> Record:
        """Return one record, its digest verified; CorruptRecord says which file and what became of it."""
        data, about = self._checked(name)
        if name.suffix == "json":
            return Record(**about)
        try:
            return Record(**about, frame=pl.read_parquet(io.BytesIO(data)))
        except pl.exceptions.PolarsError as error:
            raise self._corrupt(name, f"not a table ({error})") from error

    def bytes_of(self, name: RecordName) -> bytes:
        """Bytes of one record, its digest verified; CorruptRecord otherwise."""
        return self._checked(name)[0]

    def take(self, name: RecordName, data: bytes) -> bool:
        """Add a record of another store under its own name; tell whether it was new. BadInput for other bytes."""
        if hashlib.sha256(data).hexdigest() != name.content:
            what = f"{name}: the bytes are not those that its name promises"
            raise BadInput(what, mend="copy it again")
        return self._blobs.put(str(name), data)

    def remove(self, name: RecordName) -> None:
        """Delete one record. Nothing that is in use may be: `catalog.store.upkeep` says what is not."""
        self._blobs.remove(str(name))

    def names(self, kind: str | None = None) -> tuple[RecordName, ...]:
        """List records, of one kind or all, sorted by kind, key and serial; other files are passed over."""
        return _parsed(self._blobs.names(kind or ""))

    def newest(self, kind: str) -> dict[str, RecordName]:
        """Newest record of each key of a kind, by key digest."""
        return {name.key: name for name in self.names(kind)}  # ascending: the last one stays

    def verify(self, names: Iterable[RecordName] | None = None) -> dict[RecordName, str]:
        """Check every record against its name; return those that are not sound, with what is wrong."""
        wrong = {}
        for name in self.names() if names is None else names:
            try:
                self._checked(name)
            except (CorruptRecord, OSError) as error:
                wrong[name] = str(error)
        return wrong

    def _checked(self, name: RecordName) -> tuple[bytes, dict[str, Any]]:
        """Bytes of a record and what it says of itself, both as its name promises."""
        data = self._blobs.read(str(name))
        found = hashlib.sha256(data).hexdigest()
        if found != name.content:
            raise self._corrupt(name, f"its sha256 is {found[:12]}..., its name says {name.content[:12]}...")
        try:
            about = json.loads(data if name.suffix == "json" else pl.read_parquet_metadata(io.BytesIO(data))[_METADATA])
            key = about["key"]
        except (ValueError, TypeError, KeyError, pl.exceptions.PolarsError) as error:
            raise self._corrupt(name, f"not a record of this catalog ({error})") from error
        if key_digest(key) != name.key or set(about) != {"key", "note"}:
            raise self._corrupt(name, "holds the record of another key")
        return data, about

    def _corrupt(self, name: RecordName, what: str) -> CorruptRecord:
        return CorruptRecord(f"{self.root}/{name}: {what}; remove it")

    def _newest(self, kind: str, key: Mapping[str, Any]) -> RecordName | None:
        return max(_parsed(self._blobs.names(kind, f"{key_digest(key)}-")), default=None)

    def _is_sound(self, name: RecordName) -> bool:
        return not self.verify([name])


def _parsed(names: Iterable[str]) -> tuple[RecordName, ...]:
    return tuple(sorted(RecordName.parse(name) for name in names if _NAME.fullmatch(name)))


def key_digest(key: Mapping[str, Any]) -> str:
    """First 32 hexadecimal digits (128 bits) of the key's digest: the part of a record's name that its key decides."""
    return digest(dict(key))[:32]


def _encode(record: Record) -> bytes:
    about = canonical_json({"key": dict(record.key), "note": dict(record.note)})
    if record.frame is None:
        return about
    buffer = io.BytesIO()
    record.frame.write_parquet(buffer, metadata={_METADATA: about.decode()})
    return buffer.getvalue()
