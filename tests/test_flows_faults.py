"""Faults of a night with real parts: processes are killed and stopped, the server goes away, the disk fills up.

Stated outcomes: what was measured and searched is never repeated; exactly one plan per serial; a night that was
overtaken is refused; the plan in force can always be read.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import FLEET, ROOT, Serving, serving, until

from catalog.store import Plans
from flows.publish import in_force

pytestmark = [pytest.mark.prefect, pytest.mark.slow]

INTENTS = 12


def many(count: int = INTENTS) -> str:
    """A fleet with so many intents that its night can be met in the middle."""
    head, _, rest = FLEET.partition("  - name: chat\n")
    body = rest.partition("  - name: mail\n")[0]
    rates = [f"  - name: s{number:02}\n" + body.replace("4 /s", f"{2 + number / 8} /s") for number in range(count)]
    return head.replace("nodes: 2", "nodes: 8") + "".join(rates).replace(
        "disaggregated: forbidden", "disaggregated: allowed"
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """Server and deployments for all tests of this file; each test has a root and plans of its own."""
    with serving(tmp_path_factory.mktemp("faults") / "site", fleet=many()) as started:
        yield started


@pytest.fixture
def worker(site: Serving) -> Iterator[subprocess.Popen[bytes]]:
    """A worker; it and its runs are killed when the test is over."""
    started = site.work()
    yield started
    if started.poll() is None:
        signal_all(started.pid, signal.SIGKILL)
        started.wait(timeout=30)


@pytest.fixture
def night(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Parameters of a night that writes where no other test does."""
    where = re.sub(r"\W", "-", request.node.name)[:60]
    return {"fleet": "examples/fleet.yaml", "root": f"{where}/var", "out": f"{where}/plans"}


def kept(site: Serving, night: dict[str, Any], kind: str) -> int:
    """Records of a kind that are there."""
    folder = site.folder / night["root"] / "catalog" / kind
    return len([path for path in folder.glob("*") if not path.name.startswith(".")]) if folder.is_dir() else 0


def published(site: Serving, night: dict[str, Any]) -> tuple[int, ...]:
    """Serials of a test's plans."""
    return Plans(site.folder / night["out"]).serials()


def below(process: int) -> list[int]:
    """A process and everything that it started, whatever group or session that is in."""
    found = [process]
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError, ValueError):
            continue
        if parent == process:
            found += below(int(path.parent.name))
    return found


def signal_all(process: int, how: int) -> list[int]:
    """Send a signal to a process and all below it, the children first found."""
    found = below(process)
    for each in found:
        os.kill(each, how)
    return found


def flow_of(worker: int) -> list[int]:
    """The processes in which a worker's runs are."""
    return below(worker)[1:]


def midway(site: Serving, run: str, night: dict[str, Any], *, searched: int = 2) -> None:
    """Wait until a night has kept some searches."""
    until(lambda: kept(site, night, "search") >= searched, every=0.05, seconds=240, what=f"for searches of {run}")


def test_a_killed_worker_leaves_a_night_that_is_crashed_and_can_be_repeated(
    site: Serving, worker: subprocess.Popen[bytes], night: dict[str, Any]
) -> None:
    """Worker and run killed -9: nothing is published, the run is called crashed, nothing that was kept is repeated."""
    run = site.run("nightly", **night)
    midway(site, run, night)
    signal_all(worker.pid, signal.SIGKILL)
    worker.wait(timeout=30)
    probes, searches = kept(site, night, "fingerprint"), kept(site, night, "search")
    assert 2 <= searches < INTENTS
    assert published(site, night) == ()
    state = until(lambda: (s := site.state(run))["type"] == "CRASHED" and s, seconds=300, every=2, what="for the crash")
    assert "no sign of life" in state["message"]
    second = site.work()
    again = site.run("nightly", **night)
    assert site.finished(again)["type"] == "COMPLETED"
    assert published(site, night) == (1,)
    assert kept(site, night, "fingerprint") == probes
    shown = site.artifacts(again)
    assert shown["progress-search"]["description"].startswith(f"search: {INTENTS - searches} step")
    assert "progress-probe" not in shown
    signal_all(second.pid, signal.SIGKILL)
    second.wait(timeout=30)


def test_a_worker_killed_alone_leaves_a_run_whose_end_is_known(
    site: Serving, worker: subprocess.Popen[bytes], night: dict[str, Any]
) -> None:
    """The worker alone killed -9: its run ends with it or goes on, its state says which; a repeat publishes."""
    run = site.run("nightly", **night)
    midway(site, run, night)
    worker.kill()
    worker.wait(timeout=30)
    ended = site.finished(run)["type"]
    assert ended in {"COMPLETED", "CRASHED"}
    assert published(site, night) == ((1,) if ended == "COMPLETED" else ())
    second = site.work()
    assert site.finished(site.run("nightly", **night))["type"] == "COMPLETED"
    assert published(site, night) == ((1, 2) if ended == "COMPLETED" else (1,))
    signal_all(second.pid, signal.SIGKILL)
    second.wait(timeout=30)


def state_of(process: int) -> str:
    """State of a process, `T` where it is stopped, `Z` where it has ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


@pytest.mark.usefixtures("worker")
def test_a_night_outlives_a_restart_of_the_server(site: Serving, night: dict[str, Any]) -> None:
    """The server killed -9 mid-night and started again: the night goes on, publishes once, and has completed."""
    run = site.run("nightly", **night)
    midway(site, run, night)
    site.kill("server")
    time.sleep(3)
    site.serve()
    assert site.finished(run, seconds=240)["type"] == "COMPLETED"
    assert published(site, night) == (1,)


def test_a_paused_night_that_goes_on_after_its_successor_is_refused(
    site: Serving, worker: subprocess.Popen[bytes], night: dict[str, Any]
) -> None:
    """A run is stopped mid-night, its successor publishes, the run goes on: its serial is refused, and it says so."""
    run = site.run("nightly", **night)
    midway(site, run, night, searched=1)
    paused = until(lambda: flow_of(worker.pid), what="for the run's processes")
    for each in paused:
        os.kill(each, signal.SIGSTOP)
    until(lambda: {state_of(each) for each in paused} == {"T"}, seconds=20, what="for the run to stop")
    successor = site.run("replan", **night, dry_run=False)
    assert site.finished(successor)["type"] == "COMPLETED"
    assert published(site, night) == (1,)
    before = Plans(site.folder / night["out"]).read(1)
    for each in paused:
        os.kill(each, signal.SIGCONT)
    state = site.finished(run)
    assert (state["type"], "superseded" in state["message"]) == ("FAILED", True)
    assert published(site, night) == (1,)
    assert Plans(site.folder / night["out"]).read(1) == before
    asked = {"filter": {"event": {"name": ["fleetplan.plan.refused"]}}, "limit": 50}
    until(
        lambda: any(each["payload"]["kind"] == "StalePlan" for each in site.call("/events/filter", asked)["events"]),
        seconds=60, what="for the event",
    )  # fmt: skip


@pytest.mark.usefixtures("worker")
def test_two_overlapping_nights_publish_one_plan(site: Serving, night: dict[str, Any]) -> None:
    """A second scheduled night is cancelled; one that comes another way computes along, and one of both publishes."""
    first, second, other = (
        site.run("nightly", **night), site.run("nightly", **night), site.run("replan", **night, dry_run=False),
    )  # fmt: skip
    ended = [site.finished(each, seconds=300) for each in (first, second, other)]
    types = sorted(state["type"] for state in ended)
    assert types == ["CANCELLED", "COMPLETED", "FAILED"], [(s["type"], s["message"]) for s in ended]
    assert "superseded" in next(state["message"] for state in ended if state["type"] == "FAILED")
    assert published(site, night) == (1,)


FULL = """
set -e
mount -t tmpfs -o size={size} none {folder}
cd {folder}
cp ../fleet.yaml .
plan() {{ {python} -c "from flows.cli import main; main()" plan "$1" --root {folder}/var --out {folder}/plans; }}
plan fleet.yaml > first.log
head -c 100M /dev/zero > ballast 2>/dev/null || true
sed -i 's#rate: 4 /s#rate: 9 /s#' ../fleet.yaml
set +e
plan ../fleet.yaml 2> ../second.log
echo $? > ../second.rc
rm ballast
plan ../fleet.yaml 2> ../third.log
echo $? > ../third.rc
cp -r plans ../plans
find . -name '.tmp*' > ../left
"""


def test_a_full_disk_leaves_the_plan_in_force(tmp_path: Path) -> None:
    """On a full disk the night fails with one line and leaves no rest; the plan in force stays; room heals it."""
    if subprocess.run(["unshare", "--mount", "--map-root-user", "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a tmpfs")
    folder = tmp_path / "small"
    folder.mkdir()
    (tmp_path / "fleet.yaml").write_text(FLEET)
    script = FULL.format(folder=folder, python=sys.executable, size="6m")
    done = subprocess.run(
        ["unshare", "--mount", "--map-root-user", "bash", "-c", script], check=False, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=300,
    )  # fmt: skip
    if "mount" in done.stderr and "denied" in done.stderr:
        pytest.skip("this machine lets nobody mount a tmpfs")
    assert (tmp_path / "second.rc").read_text().strip() == "1", done.stderr + (tmp_path / "second.log").read_text()
    said = (tmp_path / "second.log").read_text().splitlines()[-1]
    assert "No space left on device" in said
    assert "the plan in force stays" in said
    assert (tmp_path / "third.rc").read_text().strip() == "0", (tmp_path / "third.log").read_text()
    assert (tmp_path / "left").read_text() == ""
    base = in_force(Plans(tmp_path / "plans"))
    assert base.notes == ()
    assert (base.plan is not None and base.plan.serial, base.serial) == (2, 3)
