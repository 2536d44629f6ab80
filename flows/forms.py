"""Forms: what a person may fill in for a run by hand, typed so that Prefect's UI shows fields and refuses wrong values.

A form states changes to a fleet file, never a fleet of its own: what is left empty stays as the file says. The fields
are flat and their defaults literal, since that is what renders well; each pattern is in the JSON Schema, so a wrong
unit is refused in the browser, by the server before it makes a run, and by pydantic before a run begins.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from catalog.gpus import load_gpus
from catalog.units import GPU_PRICE, MONEY_RATE, RATE, TIME

_NUMBER = r"[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?"
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
MODEL = r"^$|^[A-Za-z0-9][A-Za-z0-9_.-]{0,95}(/[A-Za-z0-9][A-Za-z0-9_.-]{0,95})?$"
#: A path, or a URL without user, password, query or fragment: a credential never becomes a parameter.
WHERE = r"^[^@?#\r\n]{1,500}$|^[^:?#\r\n]{1,500}$"
GPUS = sorted(load_gpus())

Where = Annotated[str, StringConstraints(pattern=WHERE)]


def quantity(units: Mapping[str, float]) -> str:
    """Pattern of a number with one of these units, or nothing."""
    return rf"^$|^ *{_NUMBER} *({'|'.join(re.escape(unit) for unit in units)}) *$"


class Form(BaseModel):
    """Root of what is filled in: an unknown key is an error, and nothing is guessed from another type."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, str_max_length=500)


class Limits(Form):
    """Latency limits of an intent; a limit that is left empty stays as the fleet file says."""

    ttft: str = Field(
        default="", pattern=quantity(TIME), title="Time to first token", description="Such as 500 ms or 1.5 s."
    )
    tpot: str = Field(
        default="", pattern=quantity(TIME), title="Time per output token", description="After the first, such as 40 ms."
    )
    e2e: str = Field(default="", pattern=quantity(TIME), title="Whole request", description="Such as 20 s.")
    attainment: float = Field(
        default=0.0, ge=0.0, le=0.999, title="Attainment",
        description="Share of the requests that must keep each limit, 0.5 to 0.999. 0: as in the fleet file, or 0.9.",
    )  # fmt: skip


class IntentForm(Form):
    """One service: an intent of the fleet file with changes, or a new one."""

    name: str = Field(
        pattern=NAME, title="Name", description="An intent of the fleet file is changed, another name adds an intent."
    )
    model: str = Field(
        default="", pattern=MODEL, title="Model",
        description="As on Hugging Face, such as Qwen/Qwen3-32B. A new intent needs one.",
    )  # fmt: skip
    rate: str = Field(
        default="", pattern=quantity(RATE), title="Request rate",
        description="With its unit: 12 /s, 300 /min. A new intent needs one.",
    )  # fmt: skip
    prompt_tokens: int = Field(
        default=0, ge=0, le=10_000_000, title="Prompt tokens",
        description="Mean per request. 0: as in the fleet file; a new intent needs a number.",
    )  # fmt: skip
    output_tokens: int = Field(
        default=0, ge=0, le=10_000_000, title="Output tokens",
        description="Mean per request. 0: as in the fleet file; a new intent needs a number.",
    )  # fmt: skip
    slo: Limits = Field(default=Limits(), title="SLO", description="Limits that are always constraints.")
    goal: Literal["as in the file", "min_cost", "min_latency", "latency_target", "cost_target"] = Field(
        default="as in the file", title="Goal",
        description="min_cost: cheapest that keeps the SLO. min_latency: fastest within the budget. "
        "latency_target: min_cost with a required SLO. cost_target: min_latency with a required budget.",
    )  # fmt: skip
    budget: str = Field(
        default="", pattern=quantity(MONEY_RATE), title="Budget", description="Most that it may cost, such as 20 USD/h."
    )
    quality: float = Field(
        default=0.0, ge=0.0, le=1.0, title="Quality floor",
        description="Share of the unquantized model's score, such as 0.985. 0: as in the fleet file.",
    )  # fmt: skip
    gpus: list[Annotated[str, Field(json_schema_extra={"enum": GPUS}, title="GPU type")]] = Field(
        default=[], max_length=50, title="GPU types", description="GPU types it may use. Empty: as in the fleet file."
    )
    pools: list[Annotated[str, StringConstraints(pattern=NAME), Field(title="Node pool")]] = Field(
        default=[], max_length=500, title="Node pools",
        description="Node pools it may use, by name. Empty: as in the fleet file.",
    )  # fmt: skip


class PoolForm(Form):
    """One pool of equal nodes: a pool of the fleet file with changes, or a new one."""

    name: str = Field(
        pattern=NAME, title="Name", description="A pool of the fleet file is changed, another name adds a pool."
    )
    gpu: str = Field(
        default="", title="GPU type", description="A new pool needs one.", json_schema_extra={"enum": ["", *GPUS]}
    )
    gpus_per_node: int = Field(
        default=0, ge=0, le=72, title="GPUs per node", description="0: as in the fleet file; a new pool needs a number."
    )
    nodes: int = Field(
        default=0, ge=0, le=100_000, title="Nodes",
        description="0: as in the fleet file; a new pool needs a number. No pool is without nodes.",
    )  # fmt: skip
    price: str = Field(
        default="", pattern=quantity(GPU_PRICE), title="Price",
        description="Per GPU, such as 2.29 USD/GPU/h. Empty: the fleet file's, else the catalog's.",
    )  # fmt: skip


IntentName = Annotated[str, StringConstraints(pattern=NAME)]
Sweep = Literal["rate", "price", "ttft", "tpot", "e2e", "prompt", "output", "network"]
#: What is varied, as factors of what the fleet file (or the form) says today.
Factors = Annotated[list[Annotated[float, Field(gt=0.0, le=1000.0)]], Field(min_length=1, max_length=50)]
Intents = Annotated[list[IntentForm], Field(max_length=200)]
Pools = Annotated[list[PoolForm], Field(max_length=200)]


#: What is known of the load of an intent's row beside what the row declares, as keys of its workload.
Last = Callable[[Mapping[str, Any]], dict[str, Any]]


def amended(
    value: Mapping[str, Any], intents: Sequence[IntentForm], pools: Sequence[PoolForm], *, last: Last = lambda _: {}
) -> dict[str, Any]:
    """The content of a fleet file with what a form states; rows keep their places, new ones come last.

    A service whose load is stated is not watched: else what Prometheus says would replace it. What of its load is not
    stated is as it was `last` observed, or declared.
    """
    changed = dict(value)
    if pools:
        cluster = dict(changed.get("cluster") or {})
        cluster["pools"] = _merged(cluster.get("pools"), {pool.name: _filled(pool.model_dump()) for pool in pools})
        changed["cluster"] = cluster
    if intents:
        loaded = {each.name for each in intents if each.rate or each.prompt_tokens or each.output_tokens}
        rows = changed.get("intents")
        rows = [_unwatched(row, loaded, last) for row in rows] if isinstance(rows, list) else rows
        changed["intents"] = _merged(rows, {intent.name: _intent(intent) for intent in intents})
    return changed


def _unwatched(row: Any, loaded: set[str], last: Last) -> Any:  # noqa: ANN401 - unchecked YAML
    """A row without its telemetry, if it is one of those whose load is stated."""
    workload = row.get("workload") if isinstance(row, dict) and row.get("name") in loaded else None
    if not isinstance(workload, dict) or "prometheus" not in workload:
        return row
    declared = {key: item for key, item in workload.items() if key != "prometheus"}
    return {**row, "workload": {**declared, **last(row)}}


def _merged(rows: object, changes: Mapping[str, dict[str, Any]]) -> list[Any]:
    """Rows with the changes of their name laid over them, deep; changes of no row are new rows."""
    left = dict(changes)
    found = []
    for row in rows if isinstance(rows, list) else ():
        known = isinstance(row, dict) and isinstance(row.get("name"), str) and row["name"] in changes
        found.append(_over(row, left.pop(row["name"], changes[row["name"]])) if known else row)
    return [*found, *left.values()]


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        inner = merged.get(key)
        merged[key] = value
        if isinstance(inner, dict) and isinstance(value, dict) and "quantiles" not in inner:  # a mean replaces those
            merged[key] = _over(inner, value)
    return merged


def _intent(form: IntentForm) -> dict[str, Any]:
    lengths = {"prompt": form.prompt_tokens, "output": form.output_tokens}
    workload = {"rate": form.rate, **{side: {"mean": mean} for side, mean in lengths.items() if mean}}
    stated = {
        "name": form.name,
        "model": form.model,
        "workload": _filled(workload),
        "slo": _filled(form.slo.model_dump()),
        "goal": "" if form.goal == "as in the file" else form.goal,
        "budget": form.budget,
        "quality": form.quality,
        "gpus": form.gpus,
        "pools": form.pools,
    }
    return _filled(stated)


def _filled(values: Mapping[str, Any]) -> dict[str, Any]:
    """What was filled in: neither empty nor zero."""
    return {key: value for key, value in values.items() if value}
