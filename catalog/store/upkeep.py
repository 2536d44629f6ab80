"""Upkeep of a store: what nothing refers to any more, and copies for another place."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from catalog.store.records import RecordName, Store, key_digest

#: Kinds whose records are parts of a fingerprint that is not finished yet.
PIECES = "piece"


def superseded(names: Iterable[RecordName], *, cited: Collection[str] = ()) -> tuple[RecordName, ...]:
    """Records that are not the newest of their key and that no plan cites.

    Args:
        names: every record of a store.
        cited: names of records that published plans rest on, as `str(name)`.
    """
    ordered = sorted(names)
    newest = {(name.kind, name.key): name for name in ordered}
    return tuple(name for name in ordered if newest[name.kind, name.key] != name and str(name) not in cited)


def spent(store: Store, *, finished: Collection[str]) -> tuple[RecordName, ...]:
    """Pieces of probes whose fingerprint is there: `finished` holds the key digests of the fingerprints."""
    found = []
    for name in store.names(PIECES):
        whole = store.read(name).key.get("fingerprint")
        if isinstance(whole, dict) and key_digest(whole) in finished:
            found.append(name)
    return tuple(found)


def copy(store: Store, names: Iterable[RecordName], target: Store) -> int:
    """Copy records as they are, each verified while it is read; the number that were not there yet."""
    return sum(target.take(name, store.bytes_of(name)) for name in names)
