"""`WorkingCopy`: a Git working copy, reached through plain `git` with lists of arguments.

No hook runs, no terminal is asked, and variables that would point git elsewhere are not passed on.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from catalog.errors import BadInput, FleetplanError

_CONFIG = ("core.hooksPath=/dev/null", "core.fsmonitor=false", "core.quotePath=false", "gc.auto=0")
#: Variables of git that say who commits and where its configuration lies; all others could point it elsewhere.
_KEPT = ("GIT_AUTHOR_", "GIT_COMMITTER_", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM")
_SET = {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "GIT_LITERAL_PATHSPECS": "1"}
_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a commit's tree."""

    mode: str
    """`100644` file, `100755` program, `040000` folder, `120000` symbolic link, `160000` submodule."""
    oid: str
    """Git's object id of the content."""


@dataclass(frozen=True, slots=True)
class WorkingCopy:
    """A working copy by the folder that it fills."""

    root: Path

    def git(self, *arguments: str, given: bytes = b"", index: Path | None = None) -> bytes:
        """Run one git command and return its output.

        Raises:
            FleetplanError: git failed; the text is its own.
        """
        done = self._run(arguments, given=given, index=index)
        if done.returncode:
            said = " ".join(done.stderr.decode(errors="replace").split())[:600] or f"exit {done.returncode}"
            raise FleetplanError(f"{self.root}: git {arguments[0]}: {said}")
        return done.stdout

    def asked(self, *arguments: str) -> str | None:
        """One line of git's answer, None where it says no."""
        done = self._run(arguments)
        return None if done.returncode else done.stdout.decode(errors="surrogateescape").strip()

    def _run(
        self, arguments: Iterable[str], *, given: bytes = b"", index: Path | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        settings = [part for setting in _CONFIG for part in ("-c", setting)]
        line = ["git", "-C", str(self.root), *settings, *arguments]
        try:
            return subprocess.run(  # noqa: S603 - a list made here, no shell
                line, input=given, capture_output=True, check=False, timeout=_SECONDS, env=environment(index)
            )
        except (FileNotFoundError, NotADirectoryError):
            raise FleetplanError("git is not installed: publishing needs it") from None
        except subprocess.TimeoutExpired:
            raise FleetplanError(f"{self.root}: git {line[len(settings) + 3]} took over {_SECONDS:.0f} s") from None

    def commit_of(self, name: str) -> str | None:
        """The commit that a name such as `HEAD` or `refs/heads/main` stands for; None where there is none."""
        return self.asked("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")

    def entries(self, commit: str | None, folder: str) -> dict[str, Entry]:
        """Everything in a folder of a commit and on the way to it, by path; subfolders included."""
        if commit is None:
            return {}
        parts = folder.split("/")
        way = ["/".join(parts[: end + 1]) for end in range(len(parts))]
        listed = self.git("ls-tree", "-z", commit, "--", *way) + self.git("ls-tree", "-r", "-t", "-z", commit, folder)
        found: dict[str, Entry] = {}
        for line in listed.decode(errors="surrogateescape").split("\0")[:-1]:
            said, _, path = line.partition("\t")
            mode, _, oid = said.split(" ")
            found[path] = Entry(mode=mode, oid=oid)
        return found

    def content(self, oid: str) -> bytes:
        """The content of one object."""
        return self.git("cat-file", "blob", oid)

    def checked_out(self) -> dict[str, Path]:
        """Branch -> the working copy that has it checked out; this repository may have several."""
        found: dict[str, Path] = {}
        where = self.root
        for line in self.git("worktree", "list", "--porcelain").decode(errors="surrogateescape").splitlines():
            key, _, value = line.partition(" ")
            if key == "worktree":
                where = Path(value)
            elif key == "branch":
                found[value.removeprefix("refs/heads/")] = where
        return found

    def changed(self, folder: str) -> list[str]:
        """Paths in a folder that differ from what is checked out: changed, staged or not known to git."""
        listed = self.git("status", "--porcelain=v1", "-z", "--untracked-files=all", "--no-renames", "--", folder)
        return [line[3:] for line in listed.decode(errors="surrogateescape").split("\0") if line]


def environment(index: Path | None) -> Mapping[str, str]:
    """What git is told besides its arguments."""
    passed = {k: v for k, v in os.environ.items() if not k.startswith("GIT_") or k.startswith(_KEPT)}
    return passed | _SET | ({"GIT_INDEX_FILE": str(index)} if index else {})


def open_copy(folder: Path | str) -> WorkingCopy:
    """Open a working copy by its root.

    Raises:
        BadInput: there is none, or the folder is not its root.
    """
    root = Path(folder)
    if not root.is_dir():
        raise BadInput("no such folder", place=str(folder), mend="give the root of a Git working copy")
    copy = WorkingCopy(root.resolve())
    top = copy.asked("rev-parse", "--show-toplevel")
    if not top:
        raise BadInput("no Git working copy", place=str(folder), mend="git init it, or give the root of a clone")
    if Path(top).resolve() != copy.root:
        raise BadInput(f"lies inside the working copy {top}", place=str(folder), mend=f"write --repo {top} --path ...")
    return copy
