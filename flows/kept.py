"""`Kept`: what an unfinished probe has measured, each piece a record of its own, so that a kill loses at most one."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from catalog.errors import CorruptRecord
from catalog.fingerprints import FingerprintKey
from catalog.store import Store

KIND = "piece"
Row = dict[str, Any]
#: What tells one piece of a probe from another; the rest of a row is its result.
_NAMES = ("op", "engine", "kind", "x", "y", "round")


class Kept:
    """Pieces of one fingerprint in a store."""

    def __init__(self, store: Store, key: FingerprintKey) -> None:
        self._store = store
        self._key = asdict(key)
        self.rows = self._read()
        """Rows that earlier runs measured or saw fail; damaged records are left out, and measured again."""

    def add(self, row: Row) -> None:
        """Keep one row at once."""
        piece = {name: row[name] for name in _NAMES if name in row}
        self._store.put(KIND, {"fingerprint": self._key, "piece": piece}, note=_plain(row))

    def _read(self) -> list[Row]:
        # as the store writes keys: tuples have become lists
        wanted = {name: list(value) if isinstance(value, tuple) else value for name, value in self._key.items()}
        rows = []
        for name in self._store.newest(KIND).values():
            try:
                record = self._store.read(name)
            except CorruptRecord:
                continue
            if record.key.get("fingerprint") == wanted:
                rows.append(dict(record.note))
        return rows


def _plain(row: Row) -> Row:
    """The row in JSON: NaN and infinity, which no record holds, become null (and are refused as times)."""
    return {
        name: value if not isinstance(value, float) or math.isfinite(value) else None for name, value in row.items()
    }
