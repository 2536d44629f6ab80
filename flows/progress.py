"""`Shown`: shows on standard error how far each stage is, whoever carries its steps out."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from flows.steps import TELL, Perform, Stage, Step, in_process

T = TypeVar("T")


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
        self._progress.update(bar, advance=1, description="")
        return result

    def _told(self, label: str, bar: TaskID, what: str, done: int, total: int) -> None:
        self._progress.update(bar, description=f"{label}: {done:,} of {total:,} {what}")
