"""`Spread`: a `Perform` that searches on a Dask cluster, and leaves every other stage to the `Perform` below it.

Searches are independent and pure, so that where they run cannot change the plan. They go out in batches, a few per
worker: a task of Prefect on Dask costs up to 2 s, a search some seconds. Nothing here reads a pickle from a disk or a
network: what Dask's own protocol does between its processes is Dask's, which is why its scheduler must not be
reachable from outside (use its TLS otherwise).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeVar, cast
from uuid import uuid4

from distributed import Client
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.settings import get_current_settings
from prefect_dask.task_runners import DaskTaskRunner

from catalog.errors import BadInput
from flows.artifacts import Progress
from flows.steps import Perform, Stage, Step

T = TypeVar("T")

SPREAD: frozenset[Stage] = frozenset({"search"})
#: Batches per worker thread: enough to even out long searches, few enough for the cost of a task to vanish.
PER_THREAD = 2
CONNECT_S = 30


class Spread:
    """Searches on the cluster at an address."""

    def __init__(self, address: str, perform: Perform) -> None:
        """Connect once to learn how large the cluster is; OSError where it is not there.

        Raises BadInput without a server: each worker would start one of its own to report its tasks to.
        """
        if not get_current_settings().api.url:
            mend = "export PREFECT_API_URL, a server that the workers reach too"
            raise BadInput("Dask workers have no Prefect server to report to", place="--dask", mend=mend)
        self._address = address
        self._perform = perform
        self._threads = threads(address)

    def __call__(self, steps: Sequence[Step[T]]) -> list[T]:
        """Carry out the steps of one stage, there or here."""
        if len(steps) < 2 or steps[0].stage not in SPREAD:
            return self._perform(steps)
        split = batches(steps, PER_THREAD * self._threads)
        progress = Progress(steps[0].stage, f"{len(steps)} steps in {len(split)} batches on Dask")
        results: list[T] = []
        with DaskTaskRunner(address=self._address) as runner:
            futures = [runner.submit(_named(batch), {"batch": Calls([step.call for step in batch])}) for batch in split]
            for batch, future in zip(split, futures, strict=True):
                found = future.result(timeout=sum(step.timeout_s for step in steps))
                results += [step.kept(result) for step, result in zip(batch, cast("list[T]", found), strict=True)]
                progress.reach(len(results) / len(steps))
        return results


def threads(address: str) -> int:
    """Threads of the cluster's workers."""
    with Client(address, timeout=CONNECT_S, set_as_default=False) as client:  # type: ignore[no-untyped-call]
        found = sum(client.nthreads().values())
    if not found:
        msg = f"the Dask scheduler at {address} has no workers"
        raise OSError(msg)
    return int(found)


def batches(steps: Sequence[Step[T]], count: int) -> list[Sequence[Step[T]]]:
    """At most `count` batches of consecutive steps, their sizes equal or one apart."""
    count = min(count, len(steps))
    edges = [len(steps) * number // count for number in range(count + 1)]
    return [steps[start:stop] for start, stop in pairwise(edges)]


@dataclass(frozen=True, slots=True, eq=False)
class Calls:
    """The calls of a batch, and a name for Dask: it would pickle every call by itself to make a name of its content."""

    calls: Sequence[Callable[[], Any]]
    name: str = field(default_factory=lambda: uuid4().hex)

    def __dask_tokenize__(self) -> str:
        """A name of its own for each batch: none is ever looked up."""
        return self.name


@task(cache_policy=NO_CACHE, persist_result=False, log_prints=False)
def carry_out_batch(batch: Calls) -> list[Any]:
    """Call the steps of a batch one after the other, in one worker."""
    return [call() for call in batch.calls]


def _named(batch: Sequence[Step[Any]]) -> Any:  # noqa: ANN401 - a task with other options
    first, last = batch[0], batch[-1]
    name = f"{first.stage} {first.label}" + (f" to {last.label}" if len(batch) > 1 else "")
    return carry_out_batch.with_options(name=first.stage, task_run_name=name)
