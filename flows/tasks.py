"""`tasks`: carries steps out as Prefect tasks: retries on I/O alone, time-outs, a progress artifact per stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from prefect import State, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas import TaskRun
from prefect.logging import get_run_logger
from prefect.tasks import Task

from flows.artifacts import Progress
from flows.steps import Step

T = TypeVar("T")

#: Seconds before the first, second and third retry, each lengthened at random by up to a half.
RETRY_DELAYS_S = [2.0, 5.0, 15.0]


def is_io(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Whether a step failed for a reason that may pass: a file or a network, never a wrong input or a fault of ours."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, OSError)


@task(cache_policy=NO_CACHE, persist_result=False, retry_condition_fn=is_io, retry_jitter_factor=0.5)
def carry_out(step: Step[T]) -> T:
    """Call one step."""
    return step.call()


def tasks(steps: Sequence[Step[T]]) -> list[T]:
    """Carry out the steps of one stage as tasks, one after the other: a `Perform`.

    They run in the flow's own thread: there a time-out interrupts them, which it cannot do in a worker thread, and
    threads would not compute faster.
    """
    if not steps:
        return []
    stage = steps[0].stage
    progress = Progress(stage, f"{stage}: {counted(len(steps))}")
    results: list[T] = []
    for step in steps:
        results.append(step.kept(_task(step)(step)))
        progress.reach(len(results) / len(steps))
    get_run_logger().info("%s: %s done", stage, counted(len(steps)))
    return results


def counted(steps: int) -> str:
    """`1 step`, `12 steps`."""
    return f"{steps} step{'s' * (steps != 1)}"


def _task(step: Step[T]) -> Callable[[Step[T]], T]:
    carried: Any = carry_out.with_options(
        name=step.stage,
        task_run_name=f"{step.stage} {step.label}",
        retries=step.retries,
        retry_delay_seconds=RETRY_DELAYS_S[: step.retries],
        timeout_seconds=step.timeout_s,
    )
    return cast("Callable[[Step[T]], T]", carried)
