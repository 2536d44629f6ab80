"""Laws of deployments and automations: set up twice they change nothing, and what a night says reaches people."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml
from serving import FLEET, ROOT, Serving, serving, until
from small_fleet import UNMEETABLE

pytestmark = pytest.mark.prefect
SLOW = pytest.mark.slow
NAMES = {
    "fleetplan: probe a new model", "fleetplan: a silent run has crashed", "fleetplan: an intent is unmet",
    "fleetplan: a plan was refused", "fleetplan: a service drifts", "fleetplan: a plan waits for a review",
    "fleetplan: a night crashed",
}  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """Server, deployments, a worker, and a fleet of which one intent cannot be met."""
    with serving(tmp_path_factory.mktemp("automations") / "site", fleet=FLEET + UNMEETABLE.lstrip("\n")) as started:
        started.work()
        yield started


@pytest.fixture
def listener() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An HTTP server that remembers what it is sent: its URL, and that."""
    told: list[dict[str, Any]] = []

    class Listen(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Listen)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", told
    server.shutdown()
    server.server_close()
    thread.join()


def deployed(site: Serving, *arguments: str) -> dict[str, str]:
    """Deploy, and return what became of each automation."""
    done = site.fleetplan("deploy", "--json", "--root", str(site.folder / "var"), *arguments)
    return dict(json.loads(done.stdout)["automations"])


def automations(site: Serving) -> dict[str, dict[str, Any]]:
    """Automations on the server."""
    return {each["name"]: each for each in site.call("/automations/filter", {})}


@SLOW
def test_deploying_twice_changes_nothing(site: Serving) -> None:
    """A second deployment leaves every deployment, schedule and automation as it was, ids too."""
    before = {each["id"]: (each["name"], len(each["schedules"])) for each in site.call("/deployments/filter", {})}
    ids = {name: each["id"] for name, each in automations(site).items()}
    assert set(ids) == NAMES
    assert deployed(site) == dict.fromkeys(NAMES, "unchanged")
    again = {each["id"]: (each["name"], len(each["schedules"])) for each in site.call("/deployments/filter", {})}
    assert again == before
    assert {name: each["id"] for name, each in automations(site).items()} == ids
    written = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    assert sorted(before.values()) == sorted((each["name"], len(each.get("schedules", []))) for each in written)


@SLOW
def test_what_people_decided_stays_and_what_was_bent_is_mended(site: Serving) -> None:
    """An automation that was switched off stays off; one that was changed by hand is as the code says again."""
    off, bent = automations(site)["fleetplan: an intent is unmet"], automations(site)["fleetplan: a service drifts"]
    site.call(f"/automations/{off['id']}", {"enabled": False}, method="PATCH")
    changed = {key: bent[key] for key in ("name", "enabled", "tags", "trigger", "actions")}
    site.call(f"/automations/{bent['id']}", {**changed, "description": "bent"}, method="PUT")
    assert deployed(site) == {**dict.fromkeys(NAMES, "unchanged"), bent["name"]: "changed"}
    assert automations(site)[off["name"]]["enabled"] is False
    assert automations(site)[bent["name"]]["description"] == bent["description"]
    site.call(f"/automations/{off['id']}", {"enabled": True}, method="PATCH")


@SLOW
def test_a_night_probes_new_models_and_tells_of_unmet_intents(
    site: Serving, listener: tuple[str, list[dict[str, Any]]]
) -> None:
    """Each model that is planned for the first time is probed once; an unmet intent and a bad end are notified."""
    url, told = listener
    kind = next(each for each in site.call("/block_types/filter", {}) if each["slug"] == "custom-webhook")
    schemas = {"block_schemas": {"block_type_id": {"any_": [kind["id"]]}}}
    schema = site.call("/block_schemas/filter", schemas)[0]["id"]
    data = {"name": "night", "url": url, "method": "POST", "json_data": {"subject": "{{subject}}", "body": "{{body}}"}}
    block = {"name": "night", "block_type_id": kind["id"], "block_schema_id": schema, "data": data}
    site.call("/block_documents/", block)
    notified = NAMES - {"fleetplan: probe a new model", "fleetplan: a silent run has crashed"}
    states = deployed(site, "--notify", "custom-webhook/night")
    assert {name for name, state in states.items() if state == "changed"} == notified
    for _ in range(2):
        assert site.finished(site.run("nightly"))["type"] == "COMPLETED"
    assert site.finished(site.run("nightly", fleet="no-such.yaml"))["type"] == "FAILED"
    until(lambda: len({each["subject"] for each in told}) >= 3, seconds=60, what=f"for notifications, got {told}")
    subjects = {each["subject"] for each in told}
    assert "fleetplan: dream is unmet" in subjects
    assert "fleetplan: no plan tonight" in subjects
    assert any("ended badly" in subject for subject in subjects)
    assert any("no such file" in each["body"] for each in told)
    probes = [each for each in site.call("/flow_runs/filter", {}) if each["deployment_id"] == site.deployment("probe")]
    models = sorted(each["parameters"]["model"] for each in probes)
    assert models == ["Qwen/Qwen3-8B", "meta-llama/Llama-3.1-8B-Instruct"]


@SLOW
def test_a_notification_block_that_is_not_there_is_said(site: Serving) -> None:
    """A wrong name ends with one line that says where to make the block."""
    done = site.fleetplan("deploy", "--notify", "slack-webhook/nobody", check=False)
    assert done.returncode == 2
    assert "no notification block 'slack-webhook/nobody'" in done.stderr


#: Days on which clocks change, by zone: forward, back.
SWITCHES = {
    "America/New_York": ("2026-03-08", "2026-11-01"), "Europe/Berlin": ("2026-03-29", "2026-10-25"),
    "Australia/Lord_Howe": ("2026-10-04", "2026-04-05"), "America/Sao_Paulo": ("2026-03-08", "2026-11-01"),
}  # fmt: skip


def fires(cron: str, timezone: str, start: datetime) -> list[datetime]:
    """The next four times of a schedule, as Prefect's server computes them."""
    from prefect.server.schemas.schedules import CronSchedule  # noqa: PLC0415 - seconds to import

    return list(asyncio.run(CronSchedule(cron=cron, timezone=timezone).get_dates(n=4, start=start)))


@pytest.mark.parametrize("zone", SWITCHES)
@pytest.mark.parametrize("which", [0, 1], ids=["forward", "back"])
def test_every_night_has_one_run_when_clocks_change(zone: str, which: int) -> None:
    """Around each switch of each zone our schedules fire once a day, 24 hours apart, whatever the local clock does."""
    day = datetime.fromisoformat(SWITCHES[zone][which]).replace(tzinfo=ZoneInfo(zone)) - timedelta(days=1)
    written = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    schedules = [each for deployment in written for each in deployment.get("schedules", [])]
    assert {schedule["slug"] for schedule in schedules} >= {"nightly"}
    for schedule in schedules:
        times = fires(schedule["cron"], schedule["timezone"], day)
        assert {(later - earlier).total_seconds() for earlier, later in pairwise(times)} == {86400.0}


def test_a_local_schedule_would_slip() -> None:
    """The same night in local time is not 24 hours apart when clocks change: the check above can fail."""
    times = fires("30 2 * * *", "America/New_York", datetime(2026, 3, 6, tzinfo=ZoneInfo("America/New_York")))
    assert {(later - earlier).total_seconds() for earlier, later in pairwise(times)} != {86400.0}
