"""What users bring: fingerprints and `vllm bench` results, kept in the store and found again for an engine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from catalog.errors import CorruptRecord
from catalog.fingerprints import Fingerprint, FingerprintKey
from catalog.store import RecordName, Store
from flows.bench_results import BenchRun, Refused, Said, read_results
from flows.probe import PROBED, Pair, from_record, keep
from probes.imported import read_fingerprints

#: Kinds of records.
BENCH = "bench"
IMPORTED = "imported-fingerprint"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedFingerprint:
    """One fingerprint as it was taken in."""

    record: str
    key: FingerprintKey
    points: int
    failures: Mapping[str, str]
    """What it lacks, and rows that were refused, with the reason."""
    new: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedBench:
    """Results of `vllm bench` as they were taken in."""

    records: tuple[str, ...]
    runs: tuple[BenchRun, ...]
    refused: tuple[Refused, ...]
    new: int


def import_fingerprints(folder: Path, store: Store) -> tuple[ImportedFingerprint, ...]:
    """Read every fingerprint below a folder and keep it; what the store already holds is not written again.

    Raises:
        BadInput: a file that is no profile, with its path; nothing is written then.
    """
    known = set(store.names(IMPORTED))
    found = []
    for fingerprint in read_fingerprints(folder):
        name = keep(fingerprint, store, kind=IMPORTED)
        found.append(
            ImportedFingerprint(
                record=str(name),
                key=fingerprint.key,
                points=fingerprint.points.height,
                failures=fingerprint.failures,
                new=name not in known,
            )
        )
    return tuple(found)


def brought(store: Store) -> dict[FingerprintKey, Fingerprint]:
    """Fingerprints that users brought or probed, in the order of their records; damaged records are passed over."""
    return {key: fingerprint for key, (_, fingerprint) in _kept(store).items()}


def _kept(store: Store) -> dict[FingerprintKey, tuple[RecordName, Fingerprint]]:
    found = {}
    for name in (name for kind in (IMPORTED, PROBED) for _, name in sorted(store.newest(kind).items())):
        try:
            fingerprint = from_record(store, name)
            found[fingerprint.key] = (name, fingerprint)
        except CorruptRecord:
            continue
    return found


def nearest(known: Mapping[FingerprintKey, Fingerprint], wanted: FingerprintKey) -> Fingerprint | None:
    """The fingerprint of the same engine: of the same vLLM version if there is one, else of the newest."""
    key = _nearest(known, wanted)
    return None if key is None else known[key]


def _nearest(known: Iterable[FingerprintKey], wanted: FingerprintKey) -> FingerprintKey | None:
    alike = sorted((key for key in known if same_engine(key, wanted)), key=lambda key: (*_release(key), key.flags))
    same = [key for key in alike if key.engine_version == wanted.engine_version]
    return (same or alike)[-1] if alike else None


def same_engine(one: FingerprintKey, other: FingerprintKey) -> bool:
    """Whether two keys name the same model, GPU, parallelism and formats."""
    names = ("model_digest", "gpu", "tp", "ep", "quantization", "kv_dtype")
    return all(getattr(one, name) == getattr(other, name) for name in names)


class Own:
    """What a user brought or probed of a pair: its fingerprint, and the record that says so; None without one."""

    def __init__(self, store: Store | None = None) -> None:
        self._kept = {} if store is None else _kept(store)

    def __call__(self, pair: Pair) -> Fingerprint | None:
        """The fingerprint; of another vLLM release it counts as extrapolated, until the pair is probed again."""
        key = _nearest(self._kept, pair.key)
        return None if key is None else _as_of(self._kept[key][1], pair.key.engine_version)

    def record(self, pair: Pair) -> str | None:
        """The record's name."""
        key = _nearest(self._kept, pair.key)
        return None if key is None else str(self._kept[key][0])


def _as_of(fingerprint: Fingerprint, version: str) -> Fingerprint:
    """The fingerprint as it holds for a version of vLLM; kernels that torch ran, and versions not said, hold as is."""
    measured_on, key = fingerprint.key.engine_version, fingerprint.key
    if key.engine == "torch" or not (version and measured_on) or _minor(measured_on) == _minor(version):
        return fingerprint
    carried = pl.when(pl.col("source") == "measured").then(pl.lit("transferred")).otherwise(pl.col("source"))
    return replace(
        fingerprint,
        points=fingerprint.points.with_columns(source=carried),
        provenance=f"{fingerprint.provenance}; measured on vLLM {measured_on}, extrapolated to {version}",
    )


def import_bench(files: Iterable[Path], store: Store, *, said: Said) -> ImportedBench:
    """Read results of `vllm bench` and keep each run as a record; the same run twice is one record."""
    known = set(store.names(BENCH))
    runs: list[BenchRun] = []
    refused: list[Refused] = []
    for path in files:
        good, bad = read_results(path, said)
        runs += good
        refused += bad
    names = [keep_bench(run, store) for run in runs]
    new = len(set(names) - known)
    return ImportedBench(records=tuple(map(str, names)), runs=tuple(runs), refused=tuple(refused), new=new)


def keep_bench(run: BenchRun, store: Store) -> RecordName:
    """Write one run as a record: what was run is its key, what was measured its note."""
    note = {"measured": dict(run.measured), "source": run.source}
    return store.put(BENCH, {"row": dict(run.row), "date": run.date}, note=note)


def bench_runs(store: Store) -> tuple[BenchRun, ...]:
    """Runs of `vllm bench` in the store, sorted by key; damaged records are passed over."""
    found = []
    for _, name in sorted(store.newest(BENCH).items()):
        try:
            record = store.read(name)
        except CorruptRecord:
            continue
        found.append(
            BenchRun(
                row=record.key["row"],
                date=record.key["date"],
                measured=record.note["measured"],
                source=record.note["source"],
                record=str(name),
            )
        )
    return tuple(found)


def _release(key: FingerprintKey) -> tuple[int, ...]:
    return _numbers(key.engine_version)


def _minor(version: str) -> tuple[int, ...]:
    return _numbers(version)[:2]


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.split(".")
    return tuple(int(part) if part.isdecimal() else -1 for part in (*parts, "", "")[:3])
