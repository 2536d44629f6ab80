"""`Blobs`: bytes under names, written once, on a directory or an object store.

Both do the same four things and keep the same promise: a name holds the whole of what was put, or nothing; and of
several writers of one name exactly one wins. A directory keeps it with a temporary file, fsync and a hard link (which
fails where the name is taken), an object store with a conditional put.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol, final

from catalog.errors import BadInput

#: One part of a name: never hidden, never `..`, nothing that a shell, a URL or an object store treats specially.
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}")
_TEMPORARY = ".tmp-"
#: How long an object store is asked again when it is busy (503) or silent; with jitter, then it is an OSError.
RETRY: Any = {"max_retries": 8, "retry_timeout": timedelta(seconds=60)}
_SCHEMES = ("s3", "s3a", "gs", "az", "abfs", "memory")


class Blobs(Protocol):
    """Where bytes lie."""

    def read(self, name: str) -> bytes:
        """Return what was put under `name`; FileNotFoundError if nothing was."""

    def put(self, name: str, data: bytes) -> bool:
        """Write `data` under `name` unless something is there; tell whether it was written."""

    def put_folder(self, folder: str, files: Mapping[str, bytes], *, last: str) -> bool:
        """Write all `files` under `folder` unless it is taken; readers who look for `last` see all of them or none."""

    def remove(self, name: str) -> None:
        """Delete what was put under `name`; nothing there is no error."""

    def names(self, folder: str = "", begin: str = "") -> list[str]:
        """List every name below `folder`, sorted (with `begin` those in it that begin so); empty without a folder."""


def blobs_at(root: str | Path) -> Blobs:
    """Open a root: a path, or a URL such as `s3://bucket/prefix` (credentials and endpoint from the environment)."""
    scheme, separator, _ = str(root).partition("://")
    if not separator:
        return Directory(Path(root))
    if scheme == "file":
        return Directory(Path(str(root).removeprefix("file://")))
    if scheme not in _SCHEMES:
        msg = f"root {str(root)!r} has the scheme {scheme!r}"
        raise BadInput(msg, mend=f"write a path or a URL of {', '.join(_SCHEMES)}")
    return Bucket(str(root))


def _checked(name: str) -> str:
    """Return the name if each of its parts is harmless; names from outside never reach the file system unchecked."""
    if not all(_PART.fullmatch(part) for part in name.split("/")):
        msg = f"{name!r} is no name for a record"
        raise BadInput(msg, mend="use letters, digits, '.', '_', '+', '-' and '/'")
    return name


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@final
class Directory:
    """Blobs on a local or mounted file system that knows hard links."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, name: str) -> bytes:
        """Return the bytes of one file."""
        return (self.root / _checked(name)).read_bytes()

    def put(self, name: str, data: bytes) -> bool:
        """Write a temporary file, sync it, link it to its name (fails if taken), sync the folder."""
        path = self.root / _checked(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f"{_TEMPORARY}{secrets.token_hex(8)}"
        try:
            _write_synced(temporary, data)
            os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)
        return True

    def put_folder(self, folder: str, files: Mapping[str, bytes], *, last: str) -> bool:
        """Write all into a temporary folder, sync, rename it (fails if there is one with files in it)."""
        target = self.root / _checked(folder)
        temporary = self.root / f"{_TEMPORARY}{secrets.token_hex(8)}"
        try:
            for name in sorted(files, key=lambda name: (name == last, name)):
                path = temporary / _checked(name)
                path.parent.mkdir(parents=True, exist_ok=True)
                _write_synced(path, files[name])
            for inner, _, _ in os.walk(temporary):
                _sync_folder(Path(inner))
            temporary.rename(target)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return False
            raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        _sync_folder(target.parent)
        return True

    def remove(self, name: str) -> None:
        """Unlink the file and sync the folder."""
        path = self.root / _checked(name)
        path.unlink(missing_ok=True)
        if path.parent.is_dir():
            _sync_folder(path.parent)

    def names(self, folder: str = "", begin: str = "") -> list[str]:
        """List the files below a folder; temporary ones, of which a killed writer may leave some, are not names."""
        start = self.root / _checked(folder) if folder else self.root
        if begin:
            # a night lists it once for each record that it adds: names alone, without an entry's other facts
            inside = os.listdir(start) if start.is_dir() else ()  # noqa: PTH208
            return sorted(f"{folder}/{name}" for name in inside if name.startswith(begin))
        found = []
        for inner, folders, files in os.walk(start):
            folders[:] = [name for name in folders if not name.startswith(".")]
            shown = Path(inner).relative_to(self.root).as_posix()
            prefix = "" if shown == "." else f"{shown}/"
            found += [f"{prefix}{name}" for name in files if not name.startswith(".")]
        return sorted(found)


@contextmanager
def _reached() -> Iterator[None]:
    """Turn an object store's own errors, after its own retries, into OSError, as of a disk."""
    from obstore.exceptions import BaseError  # noqa: PLC0415 - most roots are directories

    try:
        yield
    except BaseError as error:
        first = str(error).partition("\n")[0]
        raise OSError(f"object store: {first}") from error


@final
class Bucket:
    """Blobs in an object store that honours conditional puts (S3, GCS, Azure), through obstore."""

    def __init__(self, url: str) -> None:
        import obstore.store  # noqa: PLC0415

        self.url = url
        with _reached():
            self._store = obstore.store.from_url(url, retry_config=RETRY)

    def read(self, name: str) -> bytes:
        """Return the bytes of one object."""
        import obstore  # noqa: PLC0415

        with _reached():
            return bytes(obstore.get(self._store, _checked(name)).bytes())

    def put(self, name: str, data: bytes) -> bool:
        """Put with the condition that nothing is there."""
        import obstore  # noqa: PLC0415
        from obstore.exceptions import AlreadyExistsError, PreconditionError  # noqa: PLC0415

        with _reached():
            try:
                obstore.put(self._store, _checked(name), data, mode="create", use_multipart=False)
            except (AlreadyExistsError, PreconditionError):
                return False
        return True

    def put_folder(self, folder: str, files: Mapping[str, bytes], *, last: str) -> bool:
        """Claim the folder with a conditional put, write the files, and `last` last: without it there is no folder."""
        if not self.put(f"{folder}/claim", secrets.token_bytes(16)):
            return False
        for name in sorted(files, key=lambda name: (name == last, name)):
            self.put(f"{folder}/{name}", files[name])
        return True

    def remove(self, name: str) -> None:
        """Delete one object."""
        import obstore  # noqa: PLC0415

        with _reached():
            obstore.delete(self._store, _checked(name))

    def names(self, folder: str = "", begin: str = "") -> list[str]:
        """List the objects below a folder."""
        import obstore  # noqa: PLC0415

        prefix = _checked(folder) if folder else None
        with _reached():
            paths = (entry["path"] for chunk in obstore.list(self._store, prefix) for entry in chunk)
            return sorted(path for path in paths if not begin or path.startswith(f"{folder}/{begin}"))
