"""`Searched`: what a night has searched, kept in the store by everything that decided it, so that no night repeats it.

The key holds the intent, the cluster, the requests drawn, the records that predictions rest on, and a digest of this
program's own source: a search found under an equal key is the search that would be made. It is kept as JSON in a
compressed column, never as code, and only if it reads back equal. The records are a convenience: the folder
`<root>/catalog/search` may be removed at any time.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from pydantic import ConfigDict, TypeAdapter, ValidationError

from catalog.errors import CorruptRecord
from catalog.store import Store
from catalog.store.records import digest, key_digest
from flows.search import Facts, pairs
from planner.intents import Intent
from planner.plan import Search
from planner.workload import Requests

KIND = "search"
#: Kinds of records that no prediction rests on.
BESIDE = {KIND, "piece", "review", "model", "observed", "comparison", "probe-wanted"}
PACKAGES = ("catalog", "flows", "planner", "probes")
LIBRARIES = ("aiconfigurator-core", "numba", "numpy", "polars")
#: In a tuple, since a dataclass takes no setting from outside; infinities survive as words.
_JSON = TypeAdapter(tuple[Search], config=ConfigDict(ser_json_inf_nan="strings"))


class Searched:
    """Searches of a store, for the facts of one night."""

    def __init__(self, store: Store, facts: Facts) -> None:
        self._store = store
        self._facts = facts
        self._rests_on = [str(name) for name in store.names() if name.kind not in {*BESIDE, "fingerprint"}]
        self._newest = store.newest(KIND)

    def find(self, intent: Intent) -> Search | None:
        """The search that an earlier night made of the very same question; None where there is none that is sound."""
        name = self._newest.get(key_digest(self.key(intent)))
        if name is None:
            return None
        try:
            frame = self._store.read(name).frame
            return None if frame is None else read(frame["search"][0])
        except (CorruptRecord, ValidationError, pl.exceptions.PolarsError):
            return None

    def keep(self, intent: Intent, search: Search) -> None:
        """Keep one search, if it reads back as it is."""
        data = written(search)
        if read(data) == search:
            self._store.put(KIND, self.key(intent), frame=pl.DataFrame({"search": [data]}))

    def key(self, intent: Intent) -> dict[str, str]:
        """Everything that decides the search of an intent."""
        fleet = self._facts.loaded.fleet
        asked = {
            "cluster": json.loads(fleet.cluster.model_dump_json()),
            "model": self._facts.loaded.models[intent.model].digest,
            "vllm": fleet.vllm_version,
            "requests": drawn(self._facts.requests[intent.name]),
            "constants": self._facts.constants.digest,
            "records": [*self._rests_on, *self._fingerprints(intent)],
        }
        return {"intent": digest(json.loads(intent.model_dump_json())), "asked": digest(asked), "program": program()}

    def _fingerprints(self, intent: Intent) -> Iterable[str]:
        found = {self._facts.fingerprints.record(pair.key) or "" for pair in pairs(intent, self._facts)}
        return sorted(found)


def written(search: Search) -> bytes:
    """The JSON of a search; equal searches have equal bytes."""
    return _JSON.dump_json((search,))


def read(data: bytes) -> Search:
    """What `written` wrote; ValidationError for anything else."""
    return _JSON.validate_json(data)[0]


def drawn(requests: Requests) -> str:
    """Digest of requests, their arrays byte by byte."""

    def plain(value: Any) -> Any:  # noqa: ANN401 - whatever a request draws from
        if isinstance(value, np.ndarray):
            return [str(value.dtype), value.shape, hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()]
        return value if isinstance(value, (str, int, float, bool, type(None))) else repr(value)

    return digest({field.name: plain(getattr(requests, field.name)) for field in fields(requests)})


@functools.cache
def program() -> str:
    """Digest of this program's source and of the libraries that its numbers come from."""
    found = hashlib.sha256()
    for package in PACKAGES:
        folder = Path(__file__).parent.parent / package
        for path in sorted(path for path in folder.rglob("*") if path.suffix in {".py", ".yaml"}):
            found.update(path.relative_to(folder.parent).as_posix().encode() + path.read_bytes())
    versions = [importlib.metadata.version(name) for name in LIBRARIES]
    return hashlib.sha256((found.hexdigest() + " ".join(versions)).encode()).hexdigest()
