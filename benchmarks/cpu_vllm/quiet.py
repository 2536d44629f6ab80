"""How much of this machine other programs use while ours rest: what a wall-clock measurement must be read beside."""

from __future__ import annotations

import os
import time
from pathlib import Path

_STAT = Path("/proc/stat")
_SAMPLE_S = 0.4
#: Busy cores below which a machine counts as quiet.
QUIET_CORES = 0.15


def others() -> float:
    """Cores kept busy over the next moment, while we sleep; 0 where the system does not tell."""
    if not _STAT.exists():
        return 0.0
    before, begun = _busy(), time.perf_counter()
    time.sleep(_SAMPLE_S)
    return max(0.0, (_busy() - before) / os.sysconf("SC_CLK_TCK") / (time.perf_counter() - begun))


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
