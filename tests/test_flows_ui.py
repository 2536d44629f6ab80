"""A person at a browser: deploys everything, fills the form in by clicking, waits, opens what the run shows.

Real server, worker, Prometheus and Chromium. The pictures lie in tests/output/ui/ and are kept.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import FLEET, Serving, serving, until

from benchmarks import observe as made

pytestmark = [pytest.mark.ui, pytest.mark.slow]

OUTPUT = Path(__file__).parent / "output" / "ui"
CHROMIUM = os.environ.get("FLEETPLAN_CHROMIUM") or shutil.which("chromium") or ""
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")  # fmt: skip
WIDTH, HEIGHT = 1400, 900


#: What the fleet really served for three days: more mail than its fleet file declares.
SERVED = (made.Service(name="chat", rate=5.0, swing=0.5, weekend=1.0, burst=1.0, tpot=(0.01, 0.2), ttft=(0.08, 0.5)),
          made.Service(name="mail", rate=3.0, swing=0.3, weekend=1.0, burst=2.0, prompt=(800.0, 0.5),
                       output=(80.0, 0.5), tpot=(0.02, 0.2), ttft=(0.1, 0.5)))  # fmt: skip


def watched(url: str) -> str:
    """The fleet with both services on a Prometheus."""
    text = FLEET + f"prometheus: {{url: '{url}', days: 3, scrape: 120 s}}\n"
    for name, rate in (("chat", "4 /s"), ("mail", "1 /s")):
        select = f"prometheus: {{select: {{model_name: org/{name}}}}}"
        text = text.replace(f"workload: {{rate: {rate}", f"workload: {{{select}, rate: {rate}")
    return text


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """Prometheus with what was served, server, deployments and a worker."""
    if made.missing():
        pytest.skip(made.missing())
    folder = tmp_path_factory.mktemp("ui")
    made.fill(folder / "tsdb", SERVED, days=3, scrape_s=120, end_s=int(time.time()) // made.HOUR_S * made.HOUR_S)
    with made.serving(folder / "tsdb") as (url, _), serving(folder / "site", fleet=watched(url)) as started:
        started.work()
        yield started


@pytest.fixture
def page() -> Iterator[Any]:
    """A tab of a headless Chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM:
        pytest.skip("no chromium on this machine: install Debian's, or set FLEETPLAN_CHROMIUM")
    OUTPUT.mkdir(parents=True, exist_ok=True)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        tab = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        tab.set_default_timeout(60_000)
        yield tab
        browser.close()


def keep(page: Any, name: str) -> None:
    """Keep a picture of the whole page: the window is made as high as what scrolls in it."""
    page.wait_for_timeout(1000)  # fonts and transitions
    high = page.evaluate("Math.max(...[...document.querySelectorAll('body, body *')].map(each => each.scrollHeight))")
    page.set_viewport_size({"width": WIDTH, "height": min(max(high + 40, HEIGHT), 5000)})
    page.wait_for_timeout(500)
    page.screenshot(path=str(OUTPUT / f"{name}.png"))
    page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
    assert (OUTPUT / f"{name}.png").stat().st_size > 10_000


def opened(site: Serving, page: Any, run: str, key: str) -> dict[str, Any]:
    """Open the page of an artifact, which must be readable: nothing is cut at its sides, nothing is raw JSON."""
    artifact = site.artifacts(run)[key]
    page.goto(f"http://127.0.0.1:{site.port}/artifacts/artifact/{artifact['id']}")
    page.get_by_text(key).first.wait_for()
    page.wait_for_timeout(500)
    if artifact["type"] == "image":  # Prefect writes the whole URL of a picture below it
        return artifact
    wide = "[...document.querySelectorAll('main *, table, img')].map(each => each.getBoundingClientRect().right)"
    assert page.evaluate(f"Math.max(0, ...{wide})") <= WIDTH, key
    cut = (
        "[...document.querySelectorAll('.p-table, .p-markdown-renderer')].some(e => e.scrollWidth > e.clientWidth + 1)"
    )
    assert not page.evaluate(cut), key
    return artifact


def field(page: Any, label: str) -> Any:
    """The first field of a form under a label."""
    name = page.locator(".schema-form-property__label", has_text=re.compile(rf"^{re.escape(label)}( \(Optional\))?$"))
    return name.first.locator(
        "xpath=ancestor::div[contains(@class, 'schema-form-property')][not(contains(@class, '__'))][1]"
    )


def fill(page: Any, label: str, value: str) -> None:
    """Fill in the field under a label."""
    field(page, label).locator("textarea, input").first.fill(value)


def choose(page: Any, label: str, value: str) -> None:
    """Choose from the list under a label."""
    field(page, label).locator("button.p-select-button__control").first.focus()
    page.keyboard.press("ArrowDown")
    page.locator(".p-select-option__text").get_by_text(value, exact=True).click()


def test_a_plan_is_asked_for_by_clicking(site: Serving, page: Any) -> None:
    """The form of replan is filled in and submitted in the browser; the run completes and its artifacts can be read.

    The load of one service is the one that the form states, that of the other what Prometheus says.
    """
    root = f"http://127.0.0.1:{site.port}"
    page.goto(f"{root}/deployments")
    page.get_by_text("replan").first.wait_for()
    page.get_by_text("Ready", exact=True).first.wait_for()
    keep(page, "1-deployments")
    page.goto(f"{root}/deployments/deployment/{site.deployment('replan')}/run")
    page.get_by_text("Services to add").wait_for()
    page.get_by_role("button", name="Add item").first.click()
    page.get_by_text("Request rate").first.wait_for()
    fill(page, "Name", "chat")
    fill(page, "Request rate", "8 apples")
    fill(page, "Time per output token", "50 ms")
    choose(page, "Goal", "min_cost")
    page.get_by_role("button", name="Submit").click()
    page.wait_for_timeout(3000)
    keep(page, "2-wrong-rate-refused")
    assert page.url.endswith("/run")
    assert not runs(site)
    fill(page, "Request rate", "8 /s")
    keep(page, "3-form")
    page.get_by_role("button", name="Submit").click()
    page.wait_for_url(re.compile(r"/deployments/deployment/[^/]+(\?.*)?$"))
    (run,) = until(lambda: runs(site), what="for the run")
    assert site.finished(run["id"])["type"] == "COMPLETED"
    assert run["parameters"]["dry_run"] is True
    assert site.serials() == []
    page.goto(f"{root}/runs/flow-run/{run['id']}")
    page.get_by_text("Completed").first.wait_for()
    keep(page, "4-run")
    found = site.artifacts(run["id"])
    rates = {row["intent"]: float(row["requests/s"]) for row in json.loads(found["decisions"]["data"])}
    assert rates["chat"] == 8.0
    assert 2.5 < rates["mail"] < 9.0  # 3 /s were served, 1 /s is declared
    for key in sorted(key for key in found if not key.startswith("progress-")):
        opened(site, page, run["id"], key)
        keep(page, f"5-{key}")
    opened(site, page, run["id"], "decisions")
    page.get_by_text("h100_sxm-tp1").first.wait_for()
    for key, pictures in (("pareto", 1), ("utilisation", 1), ("summary", 2)):
        opened(site, page, run["id"], key)
        page.wait_for_function(f"[...document.images].filter(image => image.naturalWidth > 300).length >= {pictures}")


def test_a_night_is_published_reviewed_and_compared_with_what_was_served(site: Serving, page: Any) -> None:
    """A night, its scoreboard and a review can be read: artifacts, links to the files, predicted against observed."""
    night = site.run("nightly")
    assert site.finished(night)["type"] == "COMPLETED"
    for key in ("summary", "report", "manifests"):
        opened(site, page, night, key)
        keep(page, f"8-night-{key}")
    assert site.finished(site.run("nightly", ending="review"))["type"] == "COMPLETED"
    kept = {"observe": ("observed",), "calibrate": ("scoreboard", "calibration"), "publish": ("review",),
            "whatif": ("whatif", "whatif-summary"), "fit": ("predictors", "predictor-notes")}  # fmt: skip
    for name, keys in kept.items():
        run = site.run(name)
        assert site.finished(run)["type"] == "COMPLETED", name
        for key in keys:
            opened(site, page, run, key)
            keep(page, f"9-{name}-{key}")
        if name == "observe":
            rows = {row["service"]: row for row in json.loads(site.artifacts(run)["observed"]["data"])}
            assert {row["load from"] for row in rows.values()} == {"observed"}
        if name == "calibrate":
            assert {row["service"] for row in json.loads(site.artifacts(run)["scoreboard"]["data"])} == {"chat", "mail"}


def runs(site: Serving) -> list[dict[str, Any]]:
    """Runs of replan."""
    return [each for each in site.call("/flow_runs/filter", {}) if each["deployment_id"] == site.deployment("replan")]


def test_the_other_forms_render(site: Serving, page: Any) -> None:
    """Each deployment's form shows its fields with their help, and no raw JSON editor."""
    shown = {"nightly": "only the report of what would have happened", "whatif": "Multiples of what it is today",
             "publish": "shows the difference from the plan in force", "probe": "Tensor-parallel degree",
             "fit": "Path of fleet.yaml"}  # fmt: skip
    for name, text in shown.items():
        page.goto(f"http://127.0.0.1:{site.port}/deployments/deployment/{site.deployment(name)}/run")
        page.get_by_text(text).first.wait_for()
        keep(page, f"6-form-{name}")
        assert page.locator(".cm-editor, .monaco-editor").count() == 0


def test_the_automations_are_listed(site: Serving, page: Any) -> None:
    """The automations that were deployed as code stand in the UI."""
    page.goto(f"http://127.0.0.1:{site.port}/automations")
    page.get_by_text("fleetplan: probe a new model").first.wait_for()
    keep(page, "7-automations")
