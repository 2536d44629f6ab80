"""Laws of searching on a Dask cluster: the plan is the same to the byte, and a worker that dies is made up for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import FLEET, ROOT, Serving, free_port, serving, until

from flows.steps import Step

pytestmark = pytest.mark.prefect
Cluster = tuple[str, list[subprocess.Popen[bytes]], Path]
SLOW = pytest.mark.slow
SIX = FLEET + "".join(
    FLEET.partition("intents:\n")[2].replace("name: chat", f"name: chat{n}").replace("name: mail", f"name: mail{n}")
    .replace("4 /s", f"{4 + n} /s").replace("1 /s", f"{2 + n} /s") for n in (1, 2)
)  # fmt: skip


def test_batches_hold_each_step_once() -> None:
    """Whatever the counts, batches are consecutive, none is empty, and their sizes are equal or one apart."""
    pytest.importorskip("prefect_dask", reason="needs the extra dask")
    from flows.spread import batches  # noqa: PLC0415 - imports Prefect, seconds

    for count in (1, 2, 3, 7, 100):
        for wanted in (1, 2, 4, 99, 200):
            steps = [Step(stage="search", label=str(number), call=int) for number in range(count)]
            split = batches(steps, wanted)
            assert [step for batch in split for step in batch] == steps
            assert len(split) == min(count, wanted)
            assert max(map(len, split)) - min(map(len, split)) <= 1


def test_dask_names_a_batch_without_looking_into_it() -> None:
    """What a night knows is large: a batch has a name of its own, and its calls are not pickled to make one."""
    pytest.importorskip("prefect_dask", reason="needs the extra dask")
    from dask.tokenize import tokenize  # noqa: PLC0415 - as above

    from flows.spread import Calls  # noqa: PLC0415 - as above

    class Sealed:
        def __reduce__(self) -> str:
            raise AssertionError

        def __call__(self) -> int:
            return 1

    one, other = Calls([Sealed()]), Calls([Sealed()])
    assert tokenize(one) == tokenize(one) != tokenize(other)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A Dask scheduler and two workers as processes on loopback: its address, the workers, their log."""
    pytest.importorskip("prefect_dask", reason="needs the extra dask")
    address = f"tcp://127.0.0.1:{free_port()}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", *arguments]
        with (tmp_path / "dask.log").open("ab") as log:
            return subprocess.Popen(argv, cwd=tmp_path, env=environment, stdout=log, stderr=log, start_new_session=True)

    port = address.rpartition(":")[2]
    started = [start("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard")]
    time.sleep(1)
    worker = ("distributed.cli.dask_worker", address, "--host", "127.0.0.1", "--nthreads", "1", "--no-dashboard",
              "--nworkers", "1", "--local-directory", str(tmp_path), "--death-timeout", "60")  # fmt: skip
    started += [start(*worker), start(*worker)]
    try:
        text = tmp_path / "dask.log"
        until(lambda: text.read_text().count("Registered to") >= 2, what="for the workers")
        yield address, started[1:], text
    finally:
        for process in reversed(started):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=30)


def files(folder: Path) -> dict[str, bytes]:
    """A published plan's files."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A server that the night and the workers report to; nothing is deployed."""
    with serving(tmp_path_factory.mktemp("spread") / "site", fleet=SIX, deploy=False) as started:
        yield started


def same(site: Serving, where: str) -> None:
    """The night on the cluster published what a night in one process does, byte for byte."""
    site.fleetplan("plan", "examples/fleet.yaml", "--root", f"{where}/here", "--out", f"{where}/plans-here")
    here, there = (files(site.folder / where / name / "1") for name in ("plans-here", "plans-there"))
    assert len(here) > 5
    assert here == there


@SLOW
def test_the_plan_of_two_workers_is_the_plan_of_one_process(site: Serving, cluster: Cluster) -> None:
    """The night searched on a scheduler with two workers publishes every file byte for byte as one process does."""
    address, workers, log = cluster
    night = ("nightly", "examples/fleet.yaml", "--root", "a/there", "--out", "a/plans-there", "--dask", address)
    site.fleetplan(*night)
    same(site, "a")
    assert "Error" not in log.read_text()
    assert "temporary server" not in log.read_text()
    assert all(worker.poll() is None for worker in workers)
    assert len(list((site.folder / "a" / "there" / "catalog" / "search").iterdir())) == 6


@SLOW
def test_a_worker_that_dies_is_made_up_for(site: Serving, cluster: Cluster) -> None:
    """One of two Dask workers killed -9 while it searches: the other does its batch, and the plan is the same."""
    address, workers, log = cluster
    night = ("nightly", "examples/fleet.yaml", "--root", "b/there", "--out", "b/plans-there", "--dask", address)
    there = site.start("night", "-c", "from flows.cli import main; main()", *night, module="")
    until(lambda: "PrefectDaskClient" in log.read_text(), what="for the search", seconds=300, every=0.1)
    time.sleep(2)
    os.killpg(workers[0].pid, signal.SIGKILL)
    assert there.wait(timeout=300) == 0, (site.folder / "night.log").read_text()[-3000:]
    assert "Remove worker" in log.read_text()
    same(site, "b")


@SLOW
def test_a_scheduler_that_is_not_there_is_said(site: Serving) -> None:
    """An address at which nothing listens ends the night with one line, before anything is searched or published."""
    address = f"tcp://127.0.0.1:{free_port()}"
    night = ("nightly", "examples/fleet.yaml", "--root", "c/there", "--out", "c/plans", "--dask", address)
    done = site.fleetplan(*night, check=False)
    assert done.returncode == 1, done.stderr
    assert "the plan in force stays" in done.stderr.splitlines()[-1]
    assert not (site.folder / "c" / "plans").exists()
