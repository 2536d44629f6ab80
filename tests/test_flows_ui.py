"""A person at a browser: deploys everything, fills the form in by clicking, waits, opens what the run shows.

Real server, worker and Chromium. The pictures lie in tests/output/ui/ and are kept.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import Serving, serving, until

pytestmark = [pytest.mark.ui, pytest.mark.slow]

OUTPUT = Path(__file__).parent / "output" / "ui"
CHROMIUM = os.environ.get("FLEETPLAN_CHROMIUM") or shutil.which("chromium") or ""
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """Server, deployments and a worker."""
    with serving(tmp_path_factory.mktemp("ui") / "site") as started:
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
        tab = browser.new_page(viewport={"width": 1400, "height": 2300})
        tab.set_default_timeout(60_000)
        yield tab
        browser.close()


def keep(page: Any, name: str) -> None:
    """Keep a picture of the whole page."""
    page.wait_for_timeout(1500)  # fonts and transitions
    page.screenshot(path=str(OUTPUT / f"{name}.png"), full_page=True)
    assert (OUTPUT / f"{name}.png").stat().st_size > 10_000


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
    """The form of replan is filled in and submitted in the browser; the run completes and its artifacts can be read."""
    root = f"http://127.0.0.1:{site.port}"
    page.goto(f"{root}/deployments")
    page.get_by_text("replan").first.wait_for()
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
    for key, artifact in sorted(site.artifacts(run["id"]).items()):
        if not key.startswith("progress-"):
            page.goto(f"{root}/artifacts/artifact/{artifact['id']}")
            page.get_by_text(key).first.wait_for()
            keep(page, f"5-{key}")
    page.goto(f"{root}/artifacts/artifact/{site.artifacts(run['id'])['decisions']['id']}")
    page.get_by_text("h100_sxm-tp1").first.wait_for()
    page.goto(f"{root}/artifacts/artifact/{site.artifacts(run['id'])['pareto']['id']}")
    page.wait_for_function("[...document.images].some(image => image.naturalWidth > 300)")


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
