"""The flow `probe`: measure a model on the device of the worker that runs it, on a GPU node."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.settings import get_current_settings
from pydantic import Field, StringConstraints

from flows import events
from flows.artifacts import Progress, shown
from flows.forms import NAME, Where
from flows.measuring import Answer, Asked, asked_of, measure_missing
from flows.security import check_server
from flows.site import store_at

PROBE_S = 4 * 3600
#: Pieces of a usual probe.
TYPICAL = 100
Word = Annotated[str, StringConstraints(pattern=NAME)]
ModelOrPath = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9./_][A-Za-z0-9./ _-]{0,300}$")]


@flow(
    name="probe",
    flow_run_name="probe-{model}",
    timeout_seconds=PROBE_S,
    persist_result=False,
    result_serializer="json",
)
def probe(  # noqa: PLR0913 - a form
    model: ModelOrPath,
    gpu: Word = "cpu",
    runner: Literal["torch", "vllm"] = "torch",
    tp: Annotated[int, Field(ge=1, le=64)] = 1,
    quantization: Word = "bf16",
    *,
    root: Where = "var",
) -> int:
    """Measure one model on this node's device, what is missing alone, and keep it in the catalog.

    Args:
        model: Name of a known model such as Qwen/Qwen3-8B, or the path of a config.json on the node.
        gpu: GPU type of the node, as in the fleet file; cpu where it has none.
        runner: torch times the real kernels one by one; vllm times steps of a real engine, in vLLM's environment.
        tp: Tensor-parallel degree.
        quantization: Weight format, such as bf16 or fp8.
        root: Run data, a folder or a URL that the nights read too.
    """
    check_server(get_current_settings().api.url)
    with events.refusals_told():
        asked = asked_of(model, gpu, runner, tp=tp, quantization=quantization)
        answer = measured(asked, root)
    with shown():
        create_markdown_artifact(summary(asked, answer), key="probe", description=f"Probe of {asked.model.name}")
    return answer.measured


def measured(asked: Asked, root: str) -> Answer:
    """Measure, with progress shown."""
    about = f"{asked.model.name} on {asked.gpu.name}"
    progress = Progress("measured", about)
    seen = 0

    def count(_row: dict[str, Any]) -> None:
        nonlocal seen
        seen += 1
        progress.reach(seen / (seen + TYPICAL))  # how many there will be is not known beforehand

    answer = measure_missing(asked, store_at(root), on_row=count)
    progress.reach(1.0)
    return answer


def summary(asked: Asked, answer: Answer) -> str:
    """A page on what was measured, and what could not be."""
    lines = [
        f"# {asked.model.name} on {asked.gpu.name}",
        "",
        f"{answer.measured} pieces measured now, {answer.found} were there; {answer.fingerprint.points.height} points.",
        f"Record: `{answer.record}`" if answer.record else "Nothing could be measured: the next probe tries again.",
    ]
    lines += [f"- not measured: {what}: {why}" for what, why in sorted(answer.fingerprint.failures.items())]
    return "\n".join(lines) + "\n"
