"""What the catalog survives and what it costs: flipped bits, killed writers, racing writers; milliseconds.

    python -m benchmarks catalog --json [--flips 150] [--kills 30] [--writers 60]

A flip counts as undetected when a record with one bit turned over reads as sound. A killed writer is a process that
puts records until SIGKILL meets it at a random instant; afterwards every record that it announced must read back and
nothing may be damaged. A lost update is a record of a racing writer that is not there when all have ended.
"""

from __future__ import annotations

import argparse
import json as json_text
import multiprocessing
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from catalog.store import RecordName, Store

_ROWS = 200
_WRITER = """
import sys
from benchmarks.catalog import table
from catalog.store import Store
store = Store(sys.argv[1])
for number in range(10**6):
    name = store.put("fingerprint", {"model": f"m{sys.argv[2]}-{number % 4}"}, frame=table(number))
    print(name, flush=True)
"""


def main(json: bool, argv: list[str]) -> None:  # noqa: FBT001 - what `python -m benchmarks` hands over
    """Flip, kill, race and time, each on a store of its own."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks catalog")
    parser.add_argument("--flips", type=int, default=150)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--writers", type=int, default=60)
    parser.add_argument("--records", type=int, nargs="*", default=[100, 1000, 10_000])
    options = parser.parse_args(argv)
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="fleetplan-") as folder:
        root = Path(folder)
        figures |= flips(root / "flips", options.flips)
        figures |= kills(root / "kills", options.kills)
        figures |= races(root / "races", options.writers)
        figures |= costs(root, options.records)
    print(json_text.dumps(figures) if json else "\n".join(f"{name}  {value}" for name, value in figures.items()))


def table(seed: int) -> pl.DataFrame:
    """A table of the size of a fingerprint."""
    dice = random.Random(seed)  # noqa: S311 - test data
    return pl.DataFrame({"x": range(_ROWS), "time_s": [dice.random() for _ in range(_ROWS)]})


def flips(root: Path, count: int) -> dict[str, int]:
    """Turn over single random bits of records, tables and JSON in turn; count those that still read as sound."""
    store, dice = Store(root), random.Random(0)  # noqa: S311 - test data
    names = [
        store.put("fingerprint", {"model": "a"}, frame=table(0)),
        store.put("note", {"model": "b"}, note={"value": 1.5}),
    ]
    undetected = sum(not _notices_a_flip(store, root / str(names[n % len(names)]), names[n % len(names)], dice)
                     for n in range(count))  # fmt: skip
    return {"flips": count, "flips_undetected": undetected}


def _notices_a_flip(store: Store, path: Path, name: RecordName, dice: random.Random) -> bool:
    sound = path.read_bytes()
    damaged = bytearray(sound)
    damaged[dice.randrange(len(damaged))] ^= 1 << dice.randrange(8)
    path.chmod(0o644)
    path.write_bytes(bytes(damaged))
    try:
        return bool(store.verify([name]))
    finally:
        path.write_bytes(sound)


def kills(root: Path, count: int) -> dict[str, int]:
    """Kill writers at random instants; count damaged records and records that were announced and are not there."""
    dice, announced, corrupt, missing = random.Random(1), set[str](), 0, 0  # noqa: S311 - test data
    store = Store(root)
    for number in range(count):
        announced |= _killed_writer(root, number, dice.uniform(0.0, 0.25))
        names = store.names()
        corrupt += len(store.verify(names))
        missing += len(announced - set(map(str, names)))
    return {"kills": count, "records_announced": len(announced), "corrupt_after_kill": corrupt,
            "lost_after_kill": missing}  # fmt: skip


def _killed_writer(root: Path, number: int, after_s: float) -> set[str]:
    argv = [sys.executable, "-c", _WRITER, str(root), str(number)]
    child = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])  # noqa: S603 - our own program
    first = child.stdout.readline() if child.stdout else ""
    time.sleep(after_s)
    child.send_signal(signal.SIGKILL)
    rest, _ = child.communicate()
    # the kill may have cut the last line
    return {line for line in (first + rest).split("\n")[:-1] if line}


def races(root: Path, writers: int) -> dict[str, int]:
    """Let many processes put different records under one key at once; count those that are not there at the end."""
    # spawned: a fork would copy a process whose threads hold locks
    with multiprocessing.get_context("spawn").Pool(min(writers, 6)) as pool:
        names = pool.starmap(_race, [(str(root), number) for number in range(writers)], chunksize=1)
    return {"writers": writers, "lost_updates": lost(Store(root), names)}


def lost(store: Store, names: Sequence[str]) -> int:
    """Puts that left no sound record of their own: absent, damaged, or one record for two writers."""
    kept = set(map(str, store.names())) - set(map(str, store.verify()))
    return len(names) - len(set(names) & kept)


def _race(root: str, number: int) -> str:
    return str(Store(root).put("note", {"model": "one"}, note={"writer": number}))


def costs(root: Path, counts: list[int]) -> dict[str, float]:
    """Median time of a put, and of listing and reading every record of stores of several sizes."""
    store, times = Store(root / "writes"), []
    for number in range(50):
        begun, frame = time.perf_counter(), table(number)
        store.put("fingerprint", {"model": str(number)}, frame=frame)
        times.append(time.perf_counter() - begun)
    figures = {"write_ms": round(statistics.median(times) * 1e3, 2)}
    for count in counts:
        filled = Store(root / f"scan-{count}")
        _fill(filled, root / f"scan-{count}", count)
        begun = time.perf_counter()
        names = filled.names()
        sound = len(names) - len(filled.verify(names))
        figures[f"scan_ms_{count}"] = round((time.perf_counter() - begun) * 1e3, 1)
        if sound != count:
            msg = f"{sound} sound records of {count}"
            raise RuntimeError(msg)
    return figures


def _fill(store: Store, root: Path, count: int) -> None:
    """Fill a store fast: the bytes of real records, written without waiting for the disk."""
    first = store.put("note", {"model": "0"}, note={"value": 0})
    folder = (root / str(first)).parent
    for number in range(1, count):
        name, data = record_bytes(number)
        (folder / name).write_bytes(data)


def record_bytes(number: int) -> tuple[str, bytes]:
    """File name and bytes of a record as `Store.put` writes it."""
    import hashlib  # noqa: PLC0415 - here alone

    from catalog.store.records import canonical_json, key_digest  # noqa: PLC0415 - as above

    key = {"model": str(number)}
    data = canonical_json({"key": key, "note": {"value": number}})
    return f"{key_digest(key)}-000001-{hashlib.sha256(data).hexdigest()}.json", data
