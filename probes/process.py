"""Run a probe in a process group of its own: a deadline, no credentials, and an outcome that is a fact.

Out of memory, crash and hang end a probe, never the night: what the child printed before its end is kept. The child
inherits an allow-list of environment variables alone, so no token of the planner reaches code that a probe runs.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

Ending = Literal["finished", "out_of_memory", "crashed", "hung"]

#: Variables that a probe may see; everything else (tokens, credentials, proxies) is withheld.
ALLOWED: Final = (
    "PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "VIRTUAL_ENV",
)  # fmt: skip

_OUT_OF_MEMORY: Final = (
    "out of memory", "outofmemoryerror", "cannot allocate memory", "memoryerror", "std::bad_alloc",
    "no available memory for the cache blocks", "failed to allocate memory", "defaultcpuallocator: can't allocate",
)  # fmt: skip
_TAIL_CHARS: Final = 4000
_GRACE_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a probe's process ended, and what it printed."""

    ending: Ending
    returncode: int
    lines: tuple[str, ...]
    """Standard output, one entry per line, also of a probe that was killed."""
    errors: str
    """End of standard error."""
    wall_s: float

    def records(self) -> list[dict[str, Any]]:
        """The JSON objects among the lines; what a library printed, or a line that the kill cut, is passed over."""
        return [found for found in map(record, self.lines) if found is not None]


def record(line: str) -> dict[str, Any] | None:
    """Read one line as a JSON object; None for anything else."""
    try:
        found = json.loads(line)
    except (json.JSONDecodeError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def run(
    argv: Sequence[str],
    *,
    deadline_s: float,
    stdin: str | Callable[[], str] = "",
    env: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] | None = None,
) -> Outcome:
    """Run `argv` until it ends or `deadline_s` passes; then the whole process group is killed, grandchildren included.

    `env` is added to the allow-listed variables. `stdin` may be a function, called when the process has started.
    `on_line` sees every line of standard output as it comes.

    Raises:
        FileNotFoundError: the program does not exist.
    """
    started = time.monotonic()
    child = subprocess.Popen(  # noqa: S603 - argv is a list made by a runner, never a shell line
        list(argv),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
        env=environment(env or {}),
    )
    lines: list[str] = []
    errors: list[str] = []
    readers = (
        threading.Thread(target=_read, args=(child.stdout, lines, on_line), daemon=True),
        threading.Thread(target=_read, args=(child.stderr, errors, None), daemon=True),
        threading.Thread(target=_feed, args=(child, stdin), daemon=True),
    )
    for reader in readers:
        reader.start()
    hung = False
    try:
        child.wait(timeout=deadline_s)
    except subprocess.TimeoutExpired:
        hung = True
    finally:
        _kill_group(child)
    for reader in readers:
        reader.join(timeout=5.0)
    for stream in (child.stdin, child.stdout, child.stderr):
        if stream is not None and not stream.closed:
            stream.close()
    tail = "\n".join(errors)[-_TAIL_CHARS:]
    return Outcome(
        ending="hung" if hung else _ending(child.returncode, tail),
        returncode=child.returncode,
        lines=tuple(lines),
        errors=tail,
        wall_s=time.monotonic() - started,
    )


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """The variables that a probe sees: the allow-listed ones of ours, and `more`."""
    return {name: os.environ[name] for name in ALLOWED if name in os.environ} | dict(more)


def _read(stream: object, into: list[str], on_line: Callable[[str], None] | None) -> None:
    for line in stream:  # type: ignore[attr-defined]
        into.append(line.rstrip("\n"))
        if on_line is not None:
            on_line(line.rstrip("\n"))


def _feed(child: subprocess.Popen[str], text: str | Callable[[], str]) -> None:
    if child.stdin is None:
        return
    try:
        child.stdin.write(text if isinstance(text, str) else text())
        child.stdin.close()
    except (BrokenPipeError, ValueError):
        pass  # the child ended before it read its points: its ending says why


def _kill_group(child: subprocess.Popen[str]) -> None:
    """End every process of the child's session, politely for a moment if the child itself still runs."""
    for sent in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, sent)
        except (ProcessLookupError, PermissionError):
            break
        try:
            child.wait(timeout=_GRACE_S)
        except subprocess.TimeoutExpired:
            continue
    child.wait()


def _ending(returncode: int, errors: str) -> Ending:
    if returncode == 0:
        return "finished"
    folded = errors.lower()
    killed = returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)  # the kernel's out-of-memory killer sends SIGKILL
    return "out_of_memory" if killed or any(mark in folded for mark in _OUT_OF_MEMORY) else "crashed"
