"""Where nights keep things: the catalog on S3, Prefect on PostgreSQL; and what gets into neither of them: a secret."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import obstore
import pytest
from obstore.store import S3Store
from serving import Serving, free_port, serving, until
from test_flows_faults import INTENTS, many, signal_all

pytestmark = [pytest.mark.prefect, pytest.mark.slow]

#: Secrets that the environment of a worker holds, none of which may be found anywhere afterwards.
CANARIES = {
    "AWS_ACCESS_KEY_ID": "CANARYKEY1f0c5d", "AWS_SECRET_ACCESS_KEY": "canary-aws-7f3e1a",
    "HF_TOKEN": "hf_canary9b2d", "PREFECT_API_AUTH_STRING": "night:canary-auth-55aa",
    "FLEETPLAN_PROMETHEUS_PASSWORD": "canary-prom-31c9",
}  # fmt: skip
IN_PARAMETERS = "canary-param-8e21"
#: First bytes of a pickle of protocol 2 to 5.
PICKLES = tuple(b"\x80" + bytes([protocol]) for protocol in (2, 3, 4, 5))


@contextmanager
def bucket(folder: Path) -> Iterator[dict[str, str]]:
    """An S3 server of moto's with a bucket; yields what a client's environment must hold."""
    pytest.importorskip("moto.server", reason="moto[server] is not installed")
    port = free_port()
    with (folder / "moto.log").open("ab") as log:
        argv = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        server = subprocess.Popen(argv, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return httpx.put(f"{url}/nights", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    try:
        until(answers, what="for moto")
        yield {"AWS_ENDPOINT_URL": url, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1"}
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait(timeout=30)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A server that asks for a key, deployments and a worker whose environment is full of secrets, and an S3 server."""
    folder = tmp_path_factory.mktemp("places")
    asked = {"PREFECT_SERVER_API_AUTH_STRING": CANARIES["PREFECT_API_AUTH_STRING"]}
    with bucket(folder) as s3, serving(folder / "site", **s3, **CANARIES, **asked) as started:
        started.work()
        yield started


def everything(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Every file below a folder, Prefect's database and logs among them, with its bytes."""
    yield from ((path, path.read_bytes()) for path in sorted(folder.rglob("*")) if path.is_file())


def opened(site: Serving) -> S3Store:
    """The bucket."""
    return S3Store("nights", endpoint=site.extra["AWS_ENDPOINT_URL"], client_options={"allow_http": True},
                   access_key_id="any", secret_access_key="any", region="us-east-1")  # noqa: S106  # fmt: skip


def named(site: Serving, prefix: str = "") -> list[str]:
    """Names of the objects in the bucket."""
    return sorted(entry["path"] for chunk in obstore.list(opened(site), prefix) for entry in chunk)


def objects(site: Serving) -> dict[str, bytes]:
    """Objects in the bucket."""
    store = opened(site)
    return {name: bytes(obstore.get(store, name).bytes()) for name in named(site)}


def test_a_night_on_s3_publishes_once_and_repeats_nothing(site: Serving) -> None:
    """Catalog and plans in a bucket: a night publishes there, the next finds everything, and a folder stays empty."""
    where = {"root": "s3://nights/var", "out": "s3://nights/plans"}
    first = site.run("nightly", **where)
    assert site.finished(first)["type"] == "COMPLETED", site.finished(first)
    held = objects(site)
    assert {"plans/1/plan.json", "plans/1/report.html"} <= set(held)
    assert any(name.startswith("var/catalog/fingerprint/") for name in held)
    second = site.run("nightly", **where)
    assert site.finished(second)["type"] == "COMPLETED"
    again = objects(site)
    new = {name.split("/")[0] + "/" + name.split("/")[1] for name in set(again) - set(held)}
    assert new == {"plans/2"}
    assert "progress-probe" not in site.artifacts(second)
    assert site.artifacts(first)["report"]["data"] == "[plan 1: report.html](s3://nights/plans/1/report.html)"
    assert not (site.folder / "var" / "catalog").exists()
    assert not (site.folder / "plans").exists()


def test_a_night_on_s3_that_was_killed_is_repeated_where_it_stopped(site: Serving) -> None:
    """Worker and run killed -9 while a bucket holds everything: no plan is there; a repeat searches the rest alone."""
    (site.folder / "examples" / "many.yaml").write_text(many())
    where = {"fleet": "examples/many.yaml", "root": "s3://nights/killed/var", "out": "s3://nights/killed/plans"}
    kinds = {kind: f"killed/var/catalog/{kind}" for kind in ("search", "fingerprint")}
    site.run("nightly", **where)
    until(lambda: len(named(site, kinds["search"])) >= 2, every=0.1, seconds=240, what="for searches")
    worker = site.processes["worker-fleetplan"]
    signal_all(worker.pid, signal.SIGKILL)
    worker.wait(timeout=30)
    time.sleep(1)  # a put that was under way may still arrive
    before = {kind: named(site, prefix) for kind, prefix in kinds.items()}
    assert 2 <= len(before["search"]) < INTENTS
    assert named(site, "killed/plans") == []
    site.work()
    again = site.run("replan", **where, dry_run=False)
    assert site.finished(again)["type"] == "COMPLETED"
    assert {name.split("/")[2] for name in named(site, "killed/plans")} == {"1"}
    assert "killed/plans/1/plan.json" in named(site, "killed/plans")
    assert named(site, kinds["fingerprint"]) == before["fingerprint"]
    assert set(before["search"]) < set(named(site, kinds["search"]))
    shown = site.artifacts(again)
    assert shown["progress-search"]["description"].startswith(f"search: {INTENTS - len(before['search'])} step")
    assert "progress-probe" not in shown


def test_no_secret_is_left_anywhere(site: Serving) -> None:
    """Keys of the environment, and one that somebody tries to give as a parameter, are in no file and no object."""
    for parameters in ({"root": f"s3://me:{IN_PARAMETERS}@nights/var"}, {"dask": f"tcp://{IN_PARAMETERS}@host:1"},
                       {"out": f"https://host/plans?token={IN_PARAMETERS}"}):  # fmt: skip
        with pytest.raises(AssertionError, match="409"):
            site.run("replan", **parameters)
    run = site.run("replan", root="s3://no-such-bucket/var", out="s3://no-such-bucket/plans")
    assert site.finished(run)["type"] == "FAILED"
    run = site.run("replan", fleet="no-such-file.yaml")
    assert site.finished(run)["type"] == "FAILED"
    time.sleep(3)  # logs and events are written behind
    found = [
        (str(path.relative_to(site.folder)), name)
        for path, data in everything(site.folder)
        for name, canary in {**CANARIES, "parameter": IN_PARAMETERS}.items()
        if canary.encode() in data
    ]
    assert found == []
    assert not [name for name, data in objects(site).items() if b"canary" in data or b"CANARY" in data]


def test_no_pickle_lies_where_anybody_reads(site: Serving) -> None:
    """No file that runs have left is a pickle, neither results nor records; what Prefect keeps of a failure is JSON."""
    kept = [
        (path, data) for path, data in everything(site.folder)
        if not {"__pycache__"} & set(path.parts) and path.suffix not in {".log", ".pyc"}
    ]  # fmt: skip
    assert kept
    assert [str(path) for path, data in kept if data.startswith(PICKLES)] == []
    storage = [(path, data) for path, data in kept if "storage" in path.parts]
    assert all(data.lstrip()[:1] in (b"{", b"[", b'"') for _, data in storage)
    assert b"cloudpickle" not in b"".join(data for _, data in storage)


def test_a_server_beyond_this_machine_must_ask_who_calls(tmp_path: Path) -> None:
    """Deploying to, or running against, a server elsewhere that answers anybody is refused; a flag allows it."""
    host = next(
        iter(subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=False).stdout.split()), ""
    )
    if not host:
        pytest.skip("this machine has no address but loopback")
    with serving(tmp_path / "open", deploy=False, host=host) as site:
        done = site.fleetplan("deploy", check=False)
        assert done.returncode == 2
        assert "answers calls without a key" in done.stderr
        assert site.call("/deployments/filter", {}) == []
        refused = site.fleetplan("nightly", "examples/fleet.yaml", check=False)
        assert refused.returncode == 2
        assert site.serials() == []
        site.fleetplan("deploy", "--allow-anonymous")
        assert len(site.call("/deployments/filter", {})) >= 6


def postgres(folder: Path) -> tuple[str, list[str]] | None:
    """Where PostgreSQL's programs lie, and the words before them that run them as somebody who may."""
    found = shutil.which("initdb") or next(iter(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb"))), "")
    if not found:
        return None
    if os.getuid() != 0:
        return str(Path(found).resolve().parent), []
    try:
        owner = pwd.getpwnam("postgres")
    except KeyError:
        return None
    os.chown(folder, owner.pw_uid, owner.pw_gid)
    for parent in folder.parents[:3]:
        parent.chmod(0o755)
    return str(Path(found).resolve().parent), ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}",
                                               "--clear-groups"]  # fmt: skip


def test_a_night_on_postgresql(tmp_path: Path) -> None:
    """Server on PostgreSQL: everything deploys, a night publishes, and its artifacts are there."""
    pytest.importorskip("asyncpg")
    folder = tmp_path / "pg"
    folder.mkdir()
    known = postgres(folder)
    if known is None:
        pytest.skip("no initdb on this machine: install Debian's postgresql")
    programs, become = known
    subprocess.run([*become, f"{programs}/initdb", "-D", str(folder / "data"), "-U", "prefect", "-A", "trust"],
                   check=True, capture_output=True, cwd="/")  # fmt: skip
    port = free_port()
    argv = [*become, f"{programs}/postgres", "-D", str(folder / "data"), "-h", "127.0.0.1", "-p", str(port), "-k", ""]
    with (tmp_path / "postgres.log").open("ab") as log:
        server = subprocess.Popen(argv, stdout=log, stderr=log, cwd="/", start_new_session=True)
    try:
        until(lambda: "ready to accept" in (tmp_path / "postgres.log").read_text(), what="for PostgreSQL")
        url = f"postgresql+asyncpg://prefect@127.0.0.1:{port}/postgres"
        with serving(tmp_path / "site", PREFECT_API_DATABASE_CONNECTION_URL=url) as site:
            site.work()
            run = site.run("nightly")
            ended: dict[str, Any] = site.finished(run)
            assert ended["type"] == "COMPLETED", ended
            assert site.serials() == [1]
            assert {"decisions", "difference", "summary", "pareto", "utilisation"} <= set(site.artifacts(run))
            assert not (site.folder / "home" / "prefect.db").exists()
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait(timeout=30)
