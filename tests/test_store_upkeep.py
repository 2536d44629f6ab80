"""Laws of upkeep: only what nothing needs goes, and copies are the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalog.errors import BadInput, CorruptRecord
from catalog.store import Store
from catalog.store.records import key_digest
from catalog.store.upkeep import PIECES, copy, spent, superseded


def filled(root: Path) -> Store:
    """Two keys of which one was written three times, and one piece of each key's probe."""
    store = Store(root)
    for value in (1, 2, 3):
        store.put("fingerprint", {"model": "a"}, note={"value": value})
    store.put("fingerprint", {"model": "b"}, note={"value": 1})
    for model in "ac":
        store.put(PIECES, {"fingerprint": {"model": model}, "piece": {"x": 1}})
    return store


def test_the_newest_of_every_key_stays(tmp_path: Path) -> None:
    """Older records of a key are superseded, unless a plan cites them."""
    store = filled(tmp_path)
    old = superseded(store.names())
    assert [store.read(name).note["value"] for name in old] == [1, 2]
    assert superseded(store.names(), cited=[str(old[0])]) == (old[1],)


def test_pieces_of_a_finished_probe_are_spent(tmp_path: Path) -> None:
    """Pieces whose fingerprint is there are spent; those of an unfinished probe are not."""
    store = filled(tmp_path)
    finished = {name.key for name in store.names("fingerprint")}
    assert key_digest({"model": "a"}) in finished
    assert [store.read(name).key["fingerprint"] for name in spent(store, finished=finished)] == [{"model": "a"}]


def test_a_removed_record_is_gone_and_the_rest_is_sound(tmp_path: Path) -> None:
    """Removing a superseded record leaves the newest readable; removing it twice is no error."""
    store = filled(tmp_path)
    for name in (*superseded(store.names()), *superseded(store.names())):
        store.remove(name)
    record = store.get("fingerprint", {"model": "a"})
    assert record is not None
    assert record.note["value"] == 3
    assert not store.verify()
    assert not superseded(store.names())


def test_a_copy_is_the_same_record(tmp_path: Path) -> None:
    """Copies have the names and bytes of their originals; a second copy adds nothing; a damaged one is refused."""
    store, other = filled(tmp_path / "a"), Store(tmp_path / "b")
    assert copy(store, store.names(), other) == len(store.names())
    assert other.names() == store.names()
    assert copy(store, store.names(), other) == 0
    assert not other.verify()
    name = store.names()[0]
    with pytest.raises(BadInput, match="promises"):
        other.take(name, b"other bytes")
    (tmp_path / "a" / str(name)).write_bytes(b"{}")
    with pytest.raises(CorruptRecord):
        copy(store, [name], Store(tmp_path / "c"))
