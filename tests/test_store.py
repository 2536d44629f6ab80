"""Laws of the store: whole or absent, verified at every read, nothing lost to a race, a kill or a full disk."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from catalog.errors import BadInput, CorruptRecord, StalePlan
from catalog.store import Plans, Record, RecordName, Store, blobs_at, canonical_json, digest

KEY = {"model": "meta-llama/Llama-3.1-8B", "gpu": "h100_sxm", "tp": 2}
FRAME = pl.DataFrame({"op": ["qkv", "down"] * 200, "x": [float(i) for i in range(400)], "time_s": [1e-6] * 400})
ROOT = Path(__file__).parent.parent

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
mappings = st.dictionaries(st.text(), scalars | st.lists(scalars, max_size=4), max_size=5)


def contents(root: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@given(key=mappings, note=mappings, rows=st.lists(st.floats(allow_nan=False), max_size=20))
@settings(max_examples=40, deadline=None)
def test_what_is_put_is_got(tmp_path_factory: pytest.TempPathFactory, key: dict, note: dict, rows: list[float]) -> None:
    """Any key, note and table come back as they were put."""
    store = Store(tmp_path_factory.mktemp("store"))
    frame = pl.DataFrame({"time_s": pl.Series(rows, dtype=pl.Float64)})
    store.put("fingerprint", key, note=note, frame=frame)
    found = store.get("fingerprint", key)
    assert found is not None
    assert (dict(found.key), dict(found.note)) == (key, note)
    assert found.frame is not None
    assert_frame_equal(frame, found.frame)


@pytest.mark.parametrize("root", ["directory", "memory:///"])
def test_newest_serial_wins_and_the_old_one_stays(tmp_path: Path, root: str) -> None:
    """A second put under a key wins at get; both records remain; the same content twice is one record."""
    store = Store(tmp_path / root if root == "directory" else root)
    first = store.put("note", KEY, note={"v": 1})
    second = store.put("note", KEY, note={"v": 2})
    assert second == store.put("note", KEY, note={"v": 2})
    assert store.names("note") == store.names() == (first, second)
    found = store.get("note", KEY)
    assert found is not None
    assert found.note == {"v": 2}
    assert store.read(first).note == {"v": 1}
    assert store.get("note", {"model": "other"}) is None


def test_equal_content_has_equal_bytes(tmp_path: Path) -> None:
    """The order of a mapping's entries changes neither name nor bytes."""
    turned = dict(reversed(KEY.items()))
    one, two = Store(tmp_path / "1"), Store(tmp_path / "2")
    assert one.put("fingerprint", KEY, frame=FRAME) == two.put("fingerprint", turned, frame=FRAME)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


@pytest.mark.parametrize("frame", [None, FRAME], ids=["json", "parquet"])
def test_every_flipped_bit_is_found(tmp_path: Path, frame: pl.DataFrame | None) -> None:
    """150 random bits, flipped one at a time, are each refused at the read with the file's name."""
    store = Store(tmp_path)
    name = store.put("fingerprint", KEY, note={"by": "test"}, frame=frame)
    path = tmp_path / str(name)
    sound = path.read_bytes()
    for seed in range(150):
        bit = random.Random(seed).randrange(8 * len(sound))  # noqa: S311 - seeded
        flipped = bytearray(sound)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(CorruptRecord, match=name.content):
            store.read(name)
    assert list(store.verify()) == [name]


@pytest.mark.parametrize("kept", [0, 1, 100])
def test_a_truncated_record_is_found(tmp_path: Path, kept: int) -> None:
    """A file cut at any length is refused."""
    store = Store(tmp_path)
    name = store.put("fingerprint", KEY, frame=FRAME)
    path = tmp_path / str(name)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CorruptRecord):
        store.get("fingerprint", KEY)


def test_a_record_under_another_keys_name_is_found(tmp_path: Path) -> None:
    """Renaming a sound file to another key's name does not make it that key's record."""
    store = Store(tmp_path)
    name = store.put("note", KEY, note={"v": 1})
    other = RecordName(kind="note", key="0" * 32, serial=1, content=name.content, suffix="json")
    (tmp_path / str(name)).rename(tmp_path / str(other))
    with pytest.raises(CorruptRecord, match="another key"):
        store.read(other)


def test_a_damaged_record_is_replaced_by_a_newer_one(tmp_path: Path) -> None:
    """Putting again what was damaged writes a new serial, and get is whole again."""
    store = Store(tmp_path)
    name = store.put("note", KEY, note={"v": 1})
    (tmp_path / str(name)).write_bytes(b"{}")
    assert store.put("note", KEY, note={"v": 1}).serial == 2
    found = store.get("note", KEY)
    assert found is not None
    assert found.note == {"v": 1}


@given(kind=st.text(max_size=20) | st.sampled_from(["..", "../x", "a/../b", "/etc", "a\x00b", "-", "A"]))
@settings(max_examples=60, deadline=None)
def test_no_name_leaves_the_root(tmp_path_factory: pytest.TempPathFactory, kind: str) -> None:
    """Whatever kind or key is given, files appear below the root or not at all."""
    outside = tmp_path_factory.mktemp("outside")
    store = Store(outside / "a" / "root")
    try:
        store.put(kind, {"model": "../../../" + kind})
    except BadInput:
        assert not contents(outside)
    assert all(name.startswith("a/root/") for name in contents(outside))


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a//b", ".hidden", "a/.tmp-1", "", "a\nb"])
def test_hostile_blob_names_are_refused(tmp_path: Path, name: str) -> None:
    """A blob's name never climbs, hides or is empty."""
    for root in (tmp_path, "memory:///"):
        with pytest.raises(BadInput):
            blobs_at(root).put(name, b"x")


def test_an_unknown_scheme_is_bad_input() -> None:
    """A root such as ftp:// is refused with the schemes that are known."""
    with pytest.raises(BadInput, match="s3"):
        Store("ftp://host/folder")


def test_an_object_store_that_cannot_be_reached_is_an_os_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket that nobody answers for fails like a disk, with an OSError that holds no secret."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "canary-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-secret")
    monkeypatch.setattr("catalog.store.blobs.RETRY", {"max_retries": 0})
    with pytest.raises(OSError, match="object store") as failure:
        Store("s3://bucket/prefix").put("note", KEY)
    assert "canary" not in str(failure.value)


def test_not_a_number_is_refused() -> None:
    """NaN has no canonical JSON, so it never enters a key, a note or a digest."""
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"x": float("nan")})
    assert digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})


def test_foreign_files_are_passed_over(tmp_path: Path) -> None:
    """A stray file under the root is neither listed nor read."""
    (tmp_path / "note").mkdir()
    (tmp_path / "note" / "readme.txt").write_text("hello")
    assert Store(tmp_path).names() == ()
    assert Store(tmp_path / "absent").names() == ()


@pytest.mark.parametrize("call", ["fsync", "link", "rename"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_failing_disk_leaves_the_old_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    """If any call of a write fails, the error is raised, the old record and plan stand, and no litter stays."""
    store, plans = Store(tmp_path / "var"), Plans(tmp_path / "plans")
    store.put("note", KEY, note={"v": 1})
    plans.publish(1, {"plan.json": b"{}"})
    before = contents(tmp_path)

    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(*((Path, "rename") if call == "rename" else (os, call)), fail)
        for write in _writes(store, plans, call):
            with pytest.raises(OSError, match=os.strerror(code)):
                write()
    assert contents(tmp_path) == before


def _writes(store: Store, plans: Plans, call: str) -> list[Callable[[], object]]:
    record = [lambda: store.put("note", KEY, note={"v": 2})] if call != "rename" else []
    return record + (
        [lambda: plans.publish(2, {"plan.json": b"{}", "manifests/a.yaml": b"a"})] if call != "link" else []
    )


def test_a_full_file_system_leaves_the_old_state(tmp_path: Path) -> None:
    """On a real 2 MB file system that fills up, the old record stays readable and the error is clear."""
    mount = tmp_path / "small"
    mount.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", mount], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("may not mount a small file system here")
    try:
        store = Store(mount)
        store.put("note", KEY, note={"v": 1})
        with pytest.raises(OSError, match="No space"):
            store.put("note", KEY, note={"v": "x" * 4_000_000})
        assert store.verify() == {}
        found = store.get("note", KEY)
        assert found is not None
        assert found.note == {"v": 1}
    finally:
        subprocess.run(["umount", mount], check=True)


WRITER = textwrap.dedent("""
    import sys
    import polars as pl
    from catalog.store import Store
    store = Store(sys.argv[1])
    for i in range(100_000):
        frame = pl.DataFrame({"x": list(range(2000))})
        print(store.put("fingerprint", {"i": i}, frame=frame), flush=True)
""")


def test_a_killed_writer_leaves_whole_records(tmp_path: Path) -> None:
    """Kill -9 at random instants: every record listed is sound, and every record acknowledged is listed."""
    acknowledged: set[str] = set()
    for seed in range(4):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        acknowledged.add(writer.stdout.readline().strip())
        time.sleep(random.Random(seed).uniform(0.0, 0.15))  # noqa: S311 - seeded
        writer.send_signal(signal.SIGKILL)
        acknowledged |= {line.strip() for line in writer.stdout.read().splitlines(keepends=True) if line.endswith("\n")}
        writer.wait()
        writer.stdout.close()
    store = Store(tmp_path)
    assert store.verify() == {}
    assert acknowledged <= {str(name) for name in store.names()}
    assert len(acknowledged) > 4


def test_racing_writers_lose_nothing(tmp_path: Path) -> None:
    """60 writers of one key at once: 60 records, all sound, one of them the newest."""
    store = Store(tmp_path)
    with ThreadPoolExecutor(16) as pool:
        names = list(pool.map(lambda i: store.put("note", KEY, note={"writer": i}), range(60)))
    assert {store.read(name).note["writer"] for name in store.names("note")} == set(range(60))
    assert max(names) == store.newest("note")[names[0].key]


@pytest.mark.parametrize("root", ["directory", "memory:///"])
def test_one_of_racing_nights_publishes(tmp_path: Path, root: str) -> None:
    """Of 16 nights that publish the same serial, one wins, the others learn it, and its files are its own."""
    plans = Plans(tmp_path / root if root == "directory" else root)

    def publish(night: int) -> bool:
        try:
            plans.publish(1, {"plan.json": b"%d" % night, "manifests/chat.yaml": b"%d" % night})
        except StalePlan:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(publish, range(16)))
    assert won.count(True) == 1
    winner = b"%d" % won.index(True)
    assert plans.read(1) == plans.read(1, "manifests/chat.yaml") == winner
    assert (plans.latest(), plans.next_serial()) == (1, 2)


def test_plans_count_up(tmp_path: Path) -> None:
    """Serials start at 1, the latest is in force, and a folder without plan.json is no plan."""
    plans = Plans(tmp_path / "plans")
    assert (plans.latest(), plans.next_serial()) == (None, 1)
    folder = plans.publish(plans.next_serial(), {"plan.json": b"{}", "report.html": b"<html>"})
    assert folder == str(tmp_path / "plans" / "1")
    assert sorted(contents(Path(folder))) == ["plan.json", "report.html"]
    (tmp_path / "plans" / "2").mkdir()
    (tmp_path / "plans" / "2" / "notes.txt").write_text("mine")
    assert (plans.latest(), plans.next_serial()) == (1, 3)
    with pytest.raises(BadInput, match="published plans: 1"):
        plans.read(9)


def test_a_record_needs_no_table() -> None:
    """A record is a key and a note; the table is optional."""
    assert Record(key=KEY).frame is None
