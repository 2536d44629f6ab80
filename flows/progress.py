"""`Shown`: shows on standard error how far each stage is, whoever carries its steps out."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from flows.steps import TELL, Perform, Stage, Step, in_process

T = TypeVar("T")
#: From where to where of a step each part of it goes, by what it tells of; about as their times are.
PARTS = {"configurations": (0.0, 0.1), "screened": (0.1, 0.6), "paired": (0.6, 0.7), "verified": (0.7, 0.9),
         "wishes relaxed": (0.9, 1.0)}  # fmt: skip


class Shown:
    """A `Perform` around another: a bar per stage on a terminal, elsewhere a line when a stage is done."""

    def __init__(self, perform: Perform = in_process) -> None:
        columns = (
            TextColumn("{task.fields[stage]:<8}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
        )
        console = Console(stderr=True)
        self._perform = perform
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self._bars: dict[Stage, TaskID] = {}
        self._parts: dict[tuple[TaskID, str], float] = {}
        self._done: Counter[TaskID] = Counter()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def __call__(self, steps: Sequence[Step[T]]) -> list[T]:
        """Let the steps be carried out, naming the one at work."""
        if not steps:
            return []
        started, stage = time.monotonic(), steps[0].stage
        bar = self._bar(stage, len(steps))
        results = self._perform([replace(step, call=partial(self._watched, step, bar)) for step in steps])
        if self._progress.disable:
            sys.stderr.write(f"{stage:<8} {len(steps)} done in {time.monotonic() - started:.1f} s\n")
        return results

    def _bar(self, stage: Stage, steps: int) -> TaskID:
        """The stage's bar, longer by these steps."""
        if stage not in self._bars:
            self._bars[stage] = self._progress.add_task("", total=0, stage=stage)
        bar = self._bars[stage]
        self._progress.update(bar, total=(self._progress.tasks[bar].total or 0) + steps)
        return bar

    def _watched(self, step: Step[T], bar: TaskID) -> T:
        self._progress.update(bar, description=step.label)
        before = TELL.set(partial(self._told, step.label, bar))
        try:
            result = step.call()
        finally:
            TELL.reset(before)
        self._parts.pop((bar, step.label), None)
        self._done[bar] += 1
        self._progress.update(bar, completed=self._completed(bar), description="")
        return result

    def _told(self, label: str, bar: TaskID, what: str, done: int, total: int) -> None:
        low, high = PARTS.get(what, (0.0, 1.0))
        share = low + (high - low) * done / max(1, total)
        self._parts[bar, label] = max(share, self._parts.get((bar, label), 0.0))
        count = f"{done:,}" if done == total else f"{done:,} of {total:,}"
        self._progress.update(bar, completed=self._completed(bar), description=f"{label}: {count} {what}")

    def _completed(self, bar: TaskID) -> float:
        """Steps that are done, and what is done of those at work."""
        return self._done[bar] + sum(share for (at, _), share in self._parts.items() if at == bar)
