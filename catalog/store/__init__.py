"""The store: what the night must not lose, as files that are written once and verified at every read.

No file is ever rewritten, so there is no lock and no lost update; a reader sees a whole record or none. A record's
name holds the digest of its key, a serial and the sha256 of its bytes: a flipped bit, a truncation or a swapped file
is found at the read, not in the plan. The newest serial of a key wins; what it replaces stays. Two nights that
overlap are fenced by the serial of the plan: the second to publish finds it taken.

    Store   records under `<root>/<kind>/`, on a directory or an object store
    Plans   whole plans under `<root>/<serial>/`, likewise
"""

from catalog.store.blobs import Blobs, Bucket, Directory, blobs_at
from catalog.store.plans import Plans
from catalog.store.records import Record, RecordName, Store, canonical_json, digest

__all__ = [
    "Blobs",
    "Bucket",
    "Directory",
    "Plans",
    "Record",
    "RecordName",
    "Store",
    "blobs_at",
    "canonical_json",
    "digest",
]
