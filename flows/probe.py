"""The stage probe: a fingerprint for each new (model, GPU, TP, EP, quantization, KV), measured once, then kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import Any

import polars as pl

from catalog.errors import CorruptRecord
from catalog.fingerprints import Fingerprint, FingerprintKey
from catalog.gpus import GPU
from catalog.models import Model
from catalog.store import RecordName, Store
from catalog.store.records import key_digest
from planner.ops import ops
from planner.strategies import Configuration
from probes.runners import Runner

#: Kinds of records: what a runner of the night measured or read from tables, and what `fleetplan probe` measured.
KIND, PROBED = "fingerprint", "probed-fingerprint"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """What one probe measures: the operators of a configuration's rank on a GPU."""

    key: FingerprintKey
    model: Model
    gpu: GPU
    configuration: Configuration


def pair_of(model: Model, gpu: GPU, configuration: Configuration, *, runner: str, version: str) -> Pair:
    """Say which fingerprint a configuration needs."""
    key = FingerprintKey(
        model=model.name,
        model_digest=model.digest,
        gpu=gpu.name,
        tp=configuration.tp,
        ep=configuration.ep,
        quantization=configuration.quantization,
        kv_dtype=configuration.kv_dtype,
        engine_version=version,
        runner=runner,
    )
    return Pair(key=key, model=model, gpu=gpu, configuration=configuration)


def distinct(pairs: Iterable[Pair]) -> tuple[Pair, ...]:
    """One pair per key, in the order of the keys."""
    return tuple(pair for _, pair in sorted({shown(pair.key): pair for pair in pairs}.items()))


def shown(key: FingerprintKey) -> str:
    """One line that tells the key: `Llama-3.1-8B on h100_sxm tp2 fp8 kv bf16`."""
    ep = f" ep{key.ep}" if key.ep > 1 else ""
    return f"{key.model} on {key.gpu} tp{key.tp}{ep} {key.quantization} kv {key.kv_dtype} ({key.runner})"


def batches(pairs: Sequence[Pair]) -> Iterator[tuple[str, tuple[Pair, ...]]]:
    """Split into (label, pairs of one model on one GPU type): the unit that is probed, and lost, together."""
    ordered = sorted(pairs, key=lambda pair: (pair.key.model, pair.key.gpu))
    for (model, gpu), group in groupby(ordered, key=lambda pair: (pair.key.model, pair.key.gpu)):
        yield f"{model} on {gpu}", tuple(group)


#: A fingerprint on its way to another process: failures, provenance, and its points in Arrow's compressed format.
Packed = tuple[FingerprintKey, tuple[dict[str, str], str, bytes] | None]


class Fingerprints:
    """Fingerprints of a store, each read and verified once, with the names of the records that were used."""

    def __init__(self, store: Store, *, kind: str = KIND) -> None:
        self._store = store
        self._newest = store.newest(kind)
        self._read: dict[FingerprintKey, Fingerprint | None] = {}
        self._digests: dict[FingerprintKey, str] = {}
        self._packed: list[Packed] | None = None
        self.damaged: list[str] = []

    def __getstate__(self) -> dict[str, Any]:
        """For another process: what was read, compressed to a tenth, and once however often it is sent."""
        if self._packed is None or len(self._packed) != len(self._read):
            self._packed = [_packed(key, found) for key, found in self._read.items()]
        return {**vars(self), "_read": {}, "_digests": {}}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Unpack."""
        vars(self).update(state)
        self._read = dict(map(_unpacked, self._packed or ()))

    def __getitem__(self, key: FingerprintKey) -> Fingerprint | None:
        """Return the newest fingerprint of a key; None where there is none, or where it is damaged (and noted)."""
        if key not in self._read:
            self._read[key] = self._load(key)
        return self._read[key]

    def record(self, key: FingerprintKey) -> str | None:
        """Name of the record that a key's fingerprint is read from; None where there is none, or it is damaged."""
        name = self._name(key)
        return str(name) if name is not None and self[key] is not None else None

    def missing(self, pairs: Iterable[Pair]) -> tuple[Pair, ...]:
        """Pairs without a sound fingerprint: new ones, and damaged ones."""
        return tuple(pair for pair in pairs if self[pair.key] is None)

    def add(self, probed: Probed) -> None:
        """Take in what was just probed."""
        for key, name in probed.names.items():
            self._newest[name.key] = name
            self._read.pop(key, None)
        self._read |= probed.found
        self._packed = None

    def _name(self, key: FingerprintKey) -> RecordName | None:
        if key not in self._digests:
            self._digests[key] = key_digest(asdict(key))
        return self._newest.get(self._digests[key])

    def _load(self, key: FingerprintKey) -> Fingerprint | None:
        name = self._name(key)
        try:
            return None if name is None else from_record(self._store, name)
        except CorruptRecord as error:
            self.damaged.append(str(error))
            return None


def _packed(key: FingerprintKey, found: Fingerprint | None) -> Packed:
    if found is None:
        return key, None
    return key, (found.failures, found.provenance, found.points.write_ipc(None, compression="zstd").getvalue())


def _unpacked(packed: Packed) -> tuple[FingerprintKey, Fingerprint | None]:
    key, found = packed
    if found is None:
        return key, None
    failures, provenance, points = found
    return key, Fingerprint(key=key, points=pl.read_ipc(points), failures=failures, provenance=provenance)


@dataclass(frozen=True, kw_only=True, eq=False)
class Probed:
    """Fingerprints that were just measured, and the records that they are kept in."""

    names: Mapping[FingerprintKey, RecordName]
    found: Mapping[FingerprintKey, Fingerprint]

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which reads them where they are kept: that is less than would be sent."""
        return {"names": self.names, "found": {}}


def probe(pairs: Sequence[Pair], *, store: Store, runner: Runner) -> Probed:
    """Measure each pair and keep it at once, so that a killed night repeats only what is missing."""
    names, found = {}, {}
    for pair in pairs:
        found[pair.key] = measure(pair, runner)
        names[pair.key] = keep(found[pair.key], store)
    return Probed(names=names, found=found)


def measure(pair: Pair, runner: Runner) -> Fingerprint:
    """Run the probe of one pair."""
    return runner.run(pair.key, ops(pair.model, pair.configuration), gpu=pair.gpu)


def keep(fingerprint: Fingerprint, store: Store, *, kind: str = KIND) -> RecordName:
    """Write one fingerprint as a record."""
    note = {"failures": fingerprint.failures, "provenance": fingerprint.provenance}
    return store.put(kind, asdict(fingerprint.key), note=note, frame=fingerprint.points)


def from_record(store: Store, name: RecordName) -> Fingerprint:
    """Read one fingerprint; CorruptRecord where the record holds none."""
    record = store.read(name)
    if record.frame is None or not {"failures", "provenance"} <= record.note.keys():
        msg = f"{store.root}/{name}: holds no fingerprint; remove it"
        raise CorruptRecord(msg)
    key = FingerprintKey(**{**record.key, "flags": tuple(record.key["flags"])})
    note: Mapping[str, Any] = record.note
    return Fingerprint(key=key, points=record.frame, failures=note["failures"], provenance=note["provenance"])


def reference_runner(gpus: Mapping[str, GPU]) -> Runner:
    """Build the runner that composes fingerprints from published kernel measurements; it needs no GPU."""
    from planner.roofline import op_time  # noqa: PLC0415 - the tables are read only where something is missing
    from probes.reference import ReferenceRunner  # noqa: PLC0415

    return ReferenceRunner(bound=op_time, gpus=gpus)


#: How a configuration is reduced to what its fingerprint and its predictor depend on.
def shape_of(configuration: Configuration) -> Configuration:
    """The configuration without its batch limits: configurations of equal shape have equal step times."""
    plain = Configuration(model=configuration.model, gpu=configuration.gpu)
    return replace(
        configuration,
        max_num_seqs=plain.max_num_seqs,
        max_num_batched_tokens=plain.max_num_batched_tokens,
        max_model_len=plain.max_model_len,
    )


PairOf = Callable[[Configuration], Pair]
