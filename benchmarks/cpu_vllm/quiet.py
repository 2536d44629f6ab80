"""How much of this machine others use, and how fast it is just now: what a wall-clock measurement is read beside."""

from __future__ import annotations

import os
import time
from pathlib import Path

_STAT = Path("/proc/stat")
_SAMPLE_S = 0.4
#: Times that the yardstick's computation runs, about 3 ms each.
_PACED = 160
#: Busy cores below which a machine counts as quiet.
QUIET_CORES = 0.15


def others() -> float:
    """Cores kept busy over the next moment by what we did not start, while we sleep; 0 where the system is silent."""
    if not _STAT.exists():
        return 0.0
    before, ours, begun = _busy(), _ours(), time.perf_counter()
    time.sleep(_SAMPLE_S)
    others = _busy() - before - (_ours() - ours)
    return max(0.0, others / os.sysconf("SC_CLK_TCK") / (time.perf_counter() - begun))


def pace_s() -> float:
    """Seconds that a fixed computation takes just now, the mean over half a second: a shared host's speed changes."""
    begun = time.perf_counter()
    for _ in range(_PACED):
        sum(range(200_000))
    return (time.perf_counter() - begun) / _PACED


def wait(patience_s: float) -> float:
    """Wait until the machine is quiet, or for `patience_s`; the busy cores at the end."""
    deadline = time.monotonic() + patience_s
    while (busy := others()) > QUIET_CORES and time.monotonic() < deadline:
        time.sleep(0.2)
    return busy


def _busy() -> int:
    # user nice system idle iowait irq softirq steal (proc(5))
    numbers = [int(number) for number in _STAT.read_text(encoding="ascii").splitlines()[0].split()[1:9]]
    return sum(numbers) - numbers[3] - numbers[4]


def _ours() -> int:
    """Ticks of the sessions that this process's children lead: a server may never be quite idle."""
    processes = [numbers for path in _STAT.parent.glob("[0-9]*/stat") if (numbers := _process(path)) is not None]
    sessions = {session for _, parent, session, _ in processes if parent == os.getpid()} - {os.getsid(0)}
    return sum(ticks for _, _, session, ticks in processes if session in sessions)


def _process(path: Path) -> tuple[int, int, int, int] | None:
    """(pid, parent, session, ticks of user and system) of proc(5); None where it ended meanwhile."""
    try:
        pid, _, rest = path.read_text(encoding="utf-8", errors="replace").partition(" (")
    except OSError:
        return None
    fields = rest.rpartition(") ")[2].split()
    return int(pid), int(fields[1]), int(fields[3]), int(fields[11]) + int(fields[12])
