"""The night as a page: one self-contained HTML file, and PNG plots for Prefect's artifacts.

No script, no font and no request leaves the file; equal plans give equal bytes.
"""

from __future__ import annotations

from planner.diff import diff
from planner.plan import Plan
from planner.report import outlook, sections
from planner.report.images import images
from planner.report.style import CSS

__all__ = ["html", "images"]


def html(plan: Plan, previous: Plan | None = None) -> str:
    """Write report.html; `previous` is the plan in force, if there is one."""
    difference = diff(previous, plan) if previous is not None else None
    parts = [
        f"<h1>Fleet plan {plan.serial}</h1>",
        sections.summary(plan, previous),
        sections.tiles(plan, previous, difference),
        sections.attention(plan),
        sections.decisions(plan),
        sections.changes(previous, difference) if previous is not None and difference is not None else "",
        sections.pools(plan),
        sections.trade_offs(plan),
        outlook.day(plan),
        outlook.robust(plan),
        sections.savings(plan, previous),
        sections.rejections(plan),
        sections.placements(plan),
        sections.provenance(plan),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>Fleet plan {plan.serial}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main>\n</body>\n</html>\n"
    )
