"""`Step`: one unit of a night's work; and `Perform`, who carries steps out: this process, or Prefect's tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar, get_args

Stage = Literal["observe", "probe", "search", "place", "render", "publish"]
STAGES: tuple[Stage, ...] = get_args(Stage)

#: Set by whoever shows a step at work, called by the step with what it counts, how many are done, and of how many.
TELL: ContextVar[Callable[[str, int, int], None] | None] = ContextVar("TELL", default=None)

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step(Generic[T_co]):
    """One call of a stage, large enough to be worth a task (a batch of pairs, an intent), with its limits."""

    stage: Stage
    label: str
    """What it is about, such as the intent's name."""
    call: Callable[[], T_co]
    retries: int = 0
    """How often it is tried again after an OSError: only steps that read or write have any."""
    timeout_s: float = 900.0
    keep: Callable[[Any], None] | None = None
    """Told the result in the night's own process as soon as it is there, so that a killed night need not repeat it."""

    def kept(self, result: T) -> T:
        """The result, kept where that is wished."""
        if self.keep is not None:
            self.keep(result)
        return result


class Perform(Protocol):
    """Carries out the steps of one stage; the same stages run with and without Prefect, so they cannot drift apart."""

    def __call__(self, steps: Sequence[Step[T]]) -> list[T]:
        """Return the results in the order of the steps; the first error ends the night."""
        ...


def in_process(steps: Sequence[Step[T]]) -> list[T]:
    """Call one after the other, showing nothing."""
    return [step.kept(step.call()) for step in steps]
