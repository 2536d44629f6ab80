"""Write the golden manifests anew: `python -m tests.regold [--plan] [NAME ...]`, by default every tests/plans/*.json.

Each plan is sealed again first, so a field that joined the plan's schema needs no hand in the file. `--plan` plans
examples/fleet.yaml from nothing before that (a minute or two) and keeps the result as tests/plans/example.json: it is
needed after a change of that fleet, of a prediction or of placement. Review the diff.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from flows.fleet import read_fleet
from flows.night import plan_night
from flows.site import site_at
from planner.manifests import render
from planner.plan import Plan, seal, to_json

PLANS = Path(__file__).resolve().parent / "plans"
EXAMPLE = PLANS.parents[1] / "examples" / "fleet.yaml"


def planned() -> Plan:
    """The example fleet's first night: nothing is measured before it and nothing runs yet."""
    with tempfile.TemporaryDirectory(prefix="fleetplan-") as folder:
        site = site_at(f"{folder}/var", f"{folder}/plans")
        return plan_night(read_fleet(EXAMPLE), site, dry_run=True).plan


def regold(path: Path) -> int:
    """Seal one plan and write its manifests beside it; the number of files."""
    plan = seal(Plan.model_validate_json(path.read_text(encoding="utf-8")))
    path.write_text(to_json(plan), encoding="utf-8")
    folder = path.with_suffix("")
    shutil.rmtree(folder, ignore_errors=True)
    files = render(plan)
    for name, text in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return len(files)


def main(arguments: list[str]) -> None:
    """Plan the example fleet if told to; regold the named plans, or all."""
    names = [argument for argument in arguments if argument != "--plan"]
    if names != arguments:
        (PLANS / "example.json").write_text(to_json(planned()), encoding="utf-8")
    for path in [PLANS / f"{name}.json" for name in names] or sorted(PLANS.glob("*.json")):
        sys.stdout.write(f"{path.stem}: {regold(path)} files\n")


if __name__ == "__main__":
    main(sys.argv[1:])
