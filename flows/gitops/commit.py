"""One commit on a branch: the wanted files in, listed files that are not wanted any more out, nothing else touched.

The tree is built in an index of its own and committed without a checkout; then the branch moves in one step, only if it
still is where it was. Where the branch is checked out in the working copy, git's own fast-forward moves both.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from catalog.errors import BadInput, FleetplanError, StalePlan
from flows.gitops import published
from flows.gitops.published import Published
from flows.gitops.working_copy import Entry, WorkingCopy, open_copy

PLAN = "plan.json"
FILES = frozenset({"100644", "100755"})
FOLDER_MODE = "040000"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where plans are published: a folder on a branch of a working copy."""

    copy: WorkingCopy
    branch: str
    folder: str

    @staticmethod
    def at(repository: Path | str, *, branch: str, folder: str) -> Target:
        """Check the names; BadInput if one of them cannot be."""
        copy = open_copy(repository)
        folder = published.checked(folder.rstrip("/"), place="--path")
        if branch.startswith("-") or branch == "HEAD" or copy.asked("check-ref-format", f"refs/heads/{branch}") is None:
            raise BadInput(f"{branch[:80]!r} is no name of a branch", place="--branch", mend="write one such as fleet")
        return Target(copy=copy, branch=branch, folder=folder)

    @property
    def ref(self) -> str:
        """The branch's full name."""
        return f"refs/heads/{self.branch}"

    def place(self, name: str) -> str:
        """How messages name a file of the branch."""
        return f"{self.branch}:{self.folder}/{name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What stands on the branch before anything is written."""

    tip: str | None
    """Commit of the branch; None where it does not exist yet."""
    base: str | None
    """Commit to build on: the tip, or for a new branch what is checked out; None in an empty repository."""
    entries: Mapping[str, Entry]
    """By path below the repository's root."""
    published: Published | None


def standing(target: Target) -> Standing:
    """Read what the branch holds."""
    tip = target.copy.commit_of(target.ref)
    base = tip or target.copy.commit_of("HEAD")
    entries, list_ = listed(target, base)
    return Standing(tip=tip, base=base, entries=entries, published=list_)


def listed(target: Target, commit: str | None) -> tuple[dict[str, Entry], Published | None]:
    """A commit's entries, and its list of published files if it has one."""
    entries = target.copy.entries(commit, target.folder)
    known = entries.get(f"{target.folder}/{published.NAME}")
    if known is None or known.mode not in FILES:
        return entries, None
    return entries, published.read(target.copy.content(known.oid), place=target.place(published.NAME))


def refuse_strangers(target: Target, now: Standing, paths: Mapping[str, object]) -> None:
    """Refuse to write over what is not ours: other people's files, links, submodules, changes by hand, dirt.

    Raises:
        BadInput: names the first such path.
    """
    own = {*(now.published.files if now.published else ()), published.NAME}
    wanted = {f"{target.folder}/{path}": path for path in (*paths, published.NAME)}
    for path in sorted({*wanted, *_ancestors(wanted)}):
        entry, on_disk, place = now.entries.get(path), target.copy.root / path, f"{target.branch}:{path}"
        if entry is not None and entry.mode not in (FILES if path in wanted else {FOLDER_MODE}):
            raise BadInput("something else stands there", place=place, mend="move it away, or give another --path")
        if entry is not None and path in wanted and wanted[path] not in own:
            raise BadInput("was not written by fleetplan", place=place, mend="move it away, or give another --path")
        if on_disk.is_symlink() or (on_disk.exists() and on_disk.is_dir() == (path in wanted)):
            raise BadInput("something else stands there", place=str(on_disk), mend="move it away, links too")
    dirt = target.copy.changed(target.folder)
    if dirt:
        what = f"{len(dirt)} uncommitted changes, such as {dirt[0]!r}"
        mend = f"commit them, or drop them: git restore --staged --worktree {target.folder}, git clean {target.folder}"
        raise BadInput(what, place=f"{target.copy.root}/{target.folder}", mend=mend)


def held(target: Target, now: Standing) -> dict[str, str]:
    """Published files as the branch holds them, which is not how they were written if a hand changed them."""
    own = now.published.files if now.published else {}
    found = {path: now.entries.get(f"{target.folder}/{path}") for path in own}
    return {path: entry.oid for path, entry in found.items() if entry is not None}


def changed_by_hand(target: Target, now: Standing) -> list[str]:
    """Published files that the branch holds otherwise than they were written, or not any more."""
    own, found = now.published.files if now.published else {}, held(target, now)
    return sorted(path for path in own if found.get(path) != own[path])


def _ancestors(paths: Mapping[str, object]) -> set[str]:
    parts = [path.split("/") for path in paths]
    return {"/".join(names[:end]) for names in parts for end in range(1, len(names))}


def written(target: Target, contents: Mapping[str, bytes]) -> dict[str, str]:
    """Put contents into the repository's store of objects: path -> object id. Nothing refers to them yet."""
    with tempfile.TemporaryDirectory(prefix="fleetplan-") as folder:
        names = sorted(contents)
        files = [Path(folder) / str(number) for number in range(len(names))]
        for file, name in zip(files, names, strict=True):
            file.write_bytes(contents[name])
        told = "".join(f"{file}\n" for file in files).encode()
        oids = target.copy.git("hash-object", "-w", "--no-filters", "--stdin-paths", given=told).decode().split()
    return dict(zip(names, oids, strict=True))


def commit(target: Target, now: Standing, files: Mapping[str, str], *, list_: Published, message: str) -> str | None:
    """Commit the files (path -> object id) with their list and move the branch; None where nothing differs.

    Raises:
        StalePlan: the branch moved meanwhile.
    """
    kept = dict(files) | written(target, {published.NAME: list_.text().encode()})
    gone = sorted(set(now.published.files) - set(kept)) if now.published else []
    nothing = "0" * len(kept[published.NAME])
    lines = [f"0 {nothing}\t{target.folder}/{path}" for path in gone]
    lines += [f"100644 {oid}\t{target.folder}/{path}" for path, oid in sorted(kept.items())]
    with tempfile.TemporaryDirectory(prefix="fleetplan-") as folder:
        index = Path(folder) / "index"
        if now.base is not None:
            target.copy.git("read-tree", now.base, index=index)
        target.copy.git("update-index", "-z", "--index-info", given="\0".join([*lines, ""]).encode(), index=index)
        tree = target.copy.git("write-tree", index=index).decode().strip()
    if now.base is not None and target.copy.asked("rev-parse", f"{now.base}^{{tree}}") == tree:
        return None
    parents = ["-p", now.base] if now.base else []
    try:
        made = target.copy.git("commit-tree", tree, *parents, "-F", "-", given=message.encode()).decode().strip()
    except FleetplanError as error:
        if "tell me who you are" in str(error):
            mend = "git config user.name and user.email"
            raise BadInput("git does not know who commits", place=str(target.copy.root), mend=mend) from None
        raise
    _move(target, now, made)
    return made


def _move(target: Target, now: Standing, made: str) -> None:
    """Move the branch to the commit, with the files where the branch is checked out."""
    where = target.copy.checked_out().get(target.branch)
    if where is not None and where.resolve() != target.copy.root:
        raise BadInput(f"{target.branch!r} is checked out in {where}", place="--branch", mend=f"write --repo {where}")
    if where is None:
        old = now.tip or "0" * len(made)
        if target.copy.asked("update-ref", "-m", "fleetplan publish", target.ref, made, old) is not None:
            return
        raise StalePlan(f"{target.branch}: moved while the plan was being published; nothing was changed, run again")
    if target.copy.commit_of(target.ref) != now.tip:
        raise StalePlan(f"{target.branch}: moved while the plan was being published; nothing was changed, run again")
    target.copy.git("merge", "--quiet", "--ff-only", "--no-overwrite-ignore", made)
