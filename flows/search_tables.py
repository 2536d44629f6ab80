"""Rich tables of one intent's search: the front of cost, latency and quality, and what was rejected, by reason."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions
from rich.table import Table
from rich.text import Text

from flows.tables import dollars, seconds
from planner.candidates.front import order, slowness, undominated
from planner.strategies import Candidate, Rejection

#: Columns of candidates, and from how many columns of the terminal on each is shown.
COLUMNS = {"front": 0, "strategy": 0, "USD/h": 0, "E2E": 0, "TTFT": 0, "TPOT": 0, "quality": 0, "holds": 100,
           "goodput /s": 100, "load": 118, "known from": 118}  # fmt: skip
WORDS = ("front", "strategy", "known from", "reason", "for example", "since")
LEGEND = {
    "front": "front: no other is at least as cheap, as fast (E2E) and as good; best: in quality.",
    "E2E": "E2E: P90 of a whole request.",
    "TTFT": "TTFT, TPOT: at the SLO's quantile, slow end of the interval.",
    "quality": "quality: share of the unquantized score.",
    "holds": "holds: probability that the SLO holds at this load.",
    "goodput /s": "goodput: requests/s within the SLO, slow end to middle.",
    "load": "load: share of capacity in use.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """The candidates that serve the whole rate, those on the front first of all; as many columns as there is room."""

    found: Sequence[Candidate]
    top: int
    """Rows beside the front's."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table | str]:
        """Fit the terminal."""
        whole = sorted((one for one in self.found if one.share >= 1.0), key=order)
        part = len(self.found) - len(whole)
        if not whole:
            mixes = f"; {part:,} serve a part of it, for mixes" if part else ""
            yield f"no strategy serves the whole rate{mixes}"
            return
        yield self._table(whole, part, options.max_width)

    def _table(self, whole: Sequence[Candidate], part: int, width: int) -> Table:
        marks = marked(whole)
        title = f"{len(whole):,} candidates serve the whole rate, {len(marks):,} of them on the front"
        title += f"; {part:,} serve a part of it, for mixes" * bool(part)
        names = [name for name, least in COLUMNS.items() if width >= least]
        legend = " ".join(LEGEND[name] for name in names if name in LEGEND)
        table = _table(title, names, caption=legend)
        others = [one for one in whole if id(one) not in marks][: max(0, self.top - len(marks))]
        shown = {id(one) for one in others} | marks.keys()
        for candidate in (one for one in whole if id(one) in shown):
            cells = _cells(candidate, marks.get(id(candidate)))
            table.add_row(*(cells[name] for name in names))
        return table


def marked(whole: Sequence[Candidate]) -> dict[int, tuple[str, ...]]:
    """The candidates on the front, by identity, with what each of them is the first in."""
    found = undominated(whole)
    firsts = {
        "cheapest": min(found, key=lambda one: one.cost_per_hour),
        "fastest": min(found, key=slowness),
        "best": max(found, key=lambda one: one.quality),
    }
    return {id(one): tuple(name for name, first in firsts.items() if first is one) for one in found}


def _cells(candidate: Candidate, marks: tuple[str, ...] | None) -> dict[str, str | Text]:
    estimate = candidate.estimate
    standing = ", ".join(f"{gpus} of {pool}" for pool, gpus in candidate.gpus)
    front = "" if marks is None else "\n".join(f"* {mark}" for mark in marks) or "*"
    return {
        "front": Text(front, style="bold green"),
        "strategy": Text.assemble(str(candidate.strategy).replace(" / ", "\n/ "), "\n", (standing, "dim")),
        "USD/h": dollars(candidate.cost_per_hour),
        "E2E": seconds(slowness(candidate)),
        "TTFT": seconds(estimate.ttft_high),
        "TPOT": seconds(estimate.tpot_high),
        "quality": f"{candidate.quality:.3f}",
        "holds": f"{estimate.slo_probability:.0%}",
        "goodput /s": f"{estimate.goodput_low:.3g}-{estimate.goodput:.3g}",
        "load": f"{estimate.utilisation:.0%}",
        "known from": f"{estimate.method.replace('_', ' ')},\n{estimate.source}",
    }


def rejections(found: Iterable[Rejection], *, top: int) -> Table:
    """Show why strategies were rejected: the reasons by count, each with its largest families as examples."""
    by_reason: dict[str, list[Rejection]] = defaultdict(list)
    for rejection in sorted(found, key=lambda rejection: (-rejection.count, rejection.strategy)):
        by_reason[rejection.reason].append(rejection)
    ranked = sorted(by_reason.items(), key=lambda item: (-_total(item[1]), item[0]))
    total = _total(family for families in by_reason.values() for family in families)
    table = _table(f"{total:,} strategies rejected", ["count", "share", "reason", "for example", "since"])
    shown = max(1, top // max(1, len(ranked)))
    for reason, families in ranked:
        for at, family in enumerate(families[:shown]):
            count = _total(families)
            first = (f"{count:,}", f"{count / total:.1%}", reason.replace("_", " ")) if at == 0 else ("", "", "")
            table.add_row(*first, f"{family.strategy} ({family.count:,})", family.detail)
    return table


def _table(title: str, names: Iterable[str], *, caption: str | None = None) -> Table:
    """A table without vertical lines, so that 80 columns hold it."""
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left", box=box.SIMPLE_HEAD,
                  pad_edge=False, collapse_padding=True)  # fmt: skip
    for name in names:
        left = name in WORDS
        table.add_column(name, justify="left" if left else "right", overflow="fold", no_wrap=not left)
    return table


def _total(families: Iterable[Rejection]) -> int:
    return sum(family.count for family in families)
