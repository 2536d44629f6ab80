"""Write the golden manifests anew: `python -m tests.regold [NAME ...]`, by default every tests/plans/*.json.

Each plan is sealed again first, so a field that joined the plan's schema needs no hand in the file. Review the diff.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from planner.manifests import render
from planner.plan import Plan, seal, to_json

PLANS = Path(__file__).resolve().parent / "plans"


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


def main(names: list[str]) -> None:
    """Regold the named plans, or all."""
    for path in [PLANS / f"{name}.json" for name in names] or sorted(PLANS.glob("*.json")):
        sys.stdout.write(f"{path.stem}: {regold(path)} files\n")


if __name__ == "__main__":
    main(sys.argv[1:])
