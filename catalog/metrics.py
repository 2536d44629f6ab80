"""`Metric`: what vLLM's Prometheus metrics are called, by vLLM version (rows in metrics.yaml)."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from importlib import resources
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from catalog.documents import parse_yaml
from catalog.errors import BadInput

Kind = Literal["counter", "gauge", "histogram"]
#: As Prometheus accepts it; a name is written into queries as it stands.
MetricName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z_:][a-zA-Z0-9_:]*$")]


class Spelling(BaseModel):
    """The name of a metric from one vLLM version on."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    since: Annotated[str, StringConstraints(pattern=r"^\d+\.\d+$")]
    name: MetricName


class Metric(BaseModel):
    """One metric by what it measures."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Kind
    names: tuple[Spelling, ...] = Field(min_length=1)


@functools.cache
def load_metrics() -> Mapping[str, Metric]:
    """Read the packaged table: `{what it measures: Metric}`."""
    text = resources.files("catalog").joinpath("metrics.yaml").read_text(encoding="utf-8")
    rows = parse_yaml(text, name="catalog/metrics.yaml").value["metrics"]
    return {name: Metric.model_validate_json(json.dumps(row)) for name, row in rows.items()}


@functools.cache
def metric_names(version: str) -> Mapping[str, str]:
    """Names on the wire of one vLLM version such as `0.32.0`; what it does not measure is left out.

    Raises:
        BadInput: the text is no version.
    """
    wanted = _release(version)
    found = {}
    for what, metric in load_metrics().items():
        known = [spelling.name for spelling in metric.names if _release(spelling.since) <= wanted]
        if known:
            found[what] = known[-1]
    return found


def _release(version: str) -> tuple[int, int]:
    parts = version.split(".")
    if len(parts) < 2 or not all(part.isascii() and part.isdigit() for part in parts[:2]):
        raise BadInput(f"{version!r} is no vLLM version", place="vllm_version", mend="write it as '0.32.0'")
    return int(parts[0]), int(parts[1])
