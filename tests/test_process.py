"""A probe's process: deadline, process group, environment, endings."""

import os
import sys
import time

import pytest

from probes.process import run


def _python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_finished_probe_returns_its_lines():
    """Standard output comes back line by line with the ending `finished`."""
    seen: list[str] = []
    outcome = run(_python("print(input()); print(2)"), deadline_s=20, stdin="1\n", on_line=seen.append)
    assert (outcome.ending, outcome.lines, seen) == ("finished", ("1", "2"), ["1", "2"])


def test_a_hung_probe_and_its_grandchild_are_killed_at_the_deadline():
    """A child that ignores SIGTERM, and its own child, are gone after the deadline; lines printed before are kept."""
    grandchild = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"
    code = (
        "import signal, subprocess, sys, time; signal.signal(15, signal.SIG_IGN)\n"
        f"p = subprocess.Popen([sys.executable, '-c', {grandchild!r}]); print(p.pid, flush=True); time.sleep(60)"
    )
    outcome = run(_python(code), deadline_s=1.5)
    assert outcome.ending == "hung"
    pid = int(outcome.lines[0])
    deadline = time.monotonic() + 5
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(pid)


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123 - a pseudo file
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("code", "ending"),
    [
        ("import sys; sys.exit('torch.OutOfMemoryError: CUDA out of memory')", "out_of_memory"),
        ("import os; os.kill(os.getpid(), 9)", "out_of_memory"),
        ("raise ValueError('bad shape')", "crashed"),
    ],
)
def test_endings_are_told_apart(code, ending):
    """Out of memory (said, or the kernel's SIGKILL) is told from a crash."""
    assert run(_python(code), deadline_s=20).ending == ending


def test_no_credential_reaches_a_probe(monkeypatch):
    """Variables outside the allow-list are withheld; those given for the probe arrive."""
    monkeypatch.setenv("HF_TOKEN", "canary")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    outcome = run(_python("import os; print(sorted(os.environ.items()))"), deadline_s=20, env={"HF_HUB_OFFLINE": "1"})
    assert "canary" not in outcome.lines[0]
    assert "HF_HUB_OFFLINE" in outcome.lines[0]


def test_a_missing_program_is_an_error():
    """A runner whose program does not exist says so instead of returning an outcome."""
    with pytest.raises(FileNotFoundError):
        run([os.path.join(os.sep, "no", "such", "program")], deadline_s=1)  # noqa: PTH118
