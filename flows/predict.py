"""Predict a file of benchmark conditions: names read leniently, each row reproduced, or refused with its reason.

`predict_file` is what `fleetplan predict --inputs conditions.parquet --out predictions.parquet` calls, and how anyone
backtests the planner on their own measurements. A row that cannot be predicted keeps its id, nulls and a `reason`;
no row stops the others.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from catalog.errors import BadInput
from catalog.fingerprints import Fingerprint
from catalog.fitted import Constants, load_constants
from catalog.gpus import find_gpu, load_gpus
from catalog.models import Model, find_model
from catalog.power import PowerConstants, load_power
from catalog.predictors import Predictor
from catalog.store import Store
from flows.corrections import Corrections, corrections_of
from flows.imports import Own
from flows.probe import measure, pair_of, reference_runner, shape_of
from planner.conditions import METRICS, Condition, condition_of, reproduce
from planner.fit import EngineClass, engine_class, fit
from planner.memory import DoesNotFit, Memory, memory
from planner.strategies import Configuration
from probes.imported import completed
from probes.runners import Runner

NEEDED = ("id", "model", "gpu", "osl", "load_kind")
TABLES_VERSION = "0.24.0"  # of the kernel tables that the reference runner reads
TIGHT = (0.95, 0.98)  # utilizations that people set when the default is too little
Progress = Callable[[int, int], None]
Row = Mapping[str, object]


@dataclass(slots=True)
class Predicted:
    """Predictors by what they depend on, each fitted once, from measured kernels or from `own` fingerprints."""

    runner: Runner = field(default_factory=lambda: reference_runner(load_gpus()))
    constants: Constants = field(default_factory=load_constants)
    own: Own = field(default_factory=Own)
    corrections: Corrections | None = None
    _fitted: dict[tuple[str, EngineClass, str | None, bool, Configuration], Predictor] = field(default_factory=dict)
    _measured: dict[tuple[str, Configuration], Fingerprint] = field(default_factory=dict)

    def __call__(self, condition: Condition) -> Predictor:
        """The predictor of a condition's engine, as measured runs of it correct it."""
        found = self.uncorrected(condition)
        return found if self.corrections is None else self.corrections(found, condition.model, condition.configuration)

    def uncorrected(self, condition: Condition) -> Predictor:
        """The predictor from kernels and constants alone."""
        shape, engine = shape_of(condition.configuration), engine_class(condition.vllm_version)
        own = self._own(condition, shape)
        version = condition.vllm_version if own is not None else None  # which alone asks it
        key = (condition.model.digest, engine, version, condition.filtered_sampling, shape)
        if key not in self._fitted:
            tables = self._tables(condition, shape)
            self._fitted[key] = fit(
                condition.model, condition.gpu, shape,
                fingerprint=tables if own is None else completed(own, tables),
                gpus=load_gpus(), constants=self.constants, engine=engine,
                filtered_sampling=condition.filtered_sampling,
            )  # fmt: skip
        return self._fitted[key]

    def _own(self, condition: Condition, shape: Configuration) -> Fingerprint | None:
        version = condition.vllm_version or ""
        return self.own(pair_of(condition.model, condition.gpu, shape, runner="own", version=version))

    def _tables(self, condition: Condition, shape: Configuration) -> Fingerprint:
        key = (condition.model.digest, shape)
        if key not in self._measured:
            pair = pair_of(condition.model, condition.gpu, shape, runner="reference", version=TABLES_VERSION)
            self._measured[key] = measure(pair, self.runner)
        return self._measured[key]


def predicted_with(store: Store | None) -> Predicted:
    """Predictors that use what a user brought: fingerprints instead of the tables, `vllm bench` runs on top."""
    if store is None:
        return Predicted()
    made = Predicted(own=Own(store))
    made.corrections = corrections_of(store, made.uncorrected, made.constants)
    return made


def predict_file(
    inputs: Path, out: Path, *, models: Iterable[Model] = (), predictors: Predicted | None = None,
    progress: Progress | None = None,
) -> pl.DataFrame:  # fmt: skip
    """Predict every row of a Parquet (or CSV) file, write and return the predictions.

    Raises:
        BadInput: the file is absent, no table, or lacks a column that every row needs.
    """
    rows = read_conditions(inputs)
    found = predict(
        rows.iter_rows(named=True), models=models, predictors=predictors, count=rows.height, progress=progress
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    found.write_parquet(out)
    return found


def read_conditions(inputs: Path) -> pl.DataFrame:
    """Read a file of conditions."""
    if not inputs.is_file():
        raise BadInput("no such file", place=str(inputs), mend="give a Parquet file of conditions")
    try:
        rows = pl.read_csv(inputs) if inputs.suffix == ".csv" else pl.read_parquet(inputs)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise BadInput(f"cannot be read: {str(error)[:120]}", place=str(inputs), mend="write it with polars") from None
    missing = [name for name in NEEDED if name not in rows.columns]
    if missing:
        raise BadInput(f"lacks the columns {', '.join(missing)}", place=str(inputs), mend=f"give {', '.join(NEEDED)}")
    return rows


def predict(
    rows: Iterable[Row], *, models: Iterable[Model] = (), predictors: Predicted | None = None, count: int = 0,
    progress: Progress | None = None,
) -> pl.DataFrame:  # fmt: skip
    """Predict rows in their order: id, metrics with bounds, `source`, `assumed`, `reason`."""
    known, power = tuple(models), load_power()
    made = Predicted() if predictors is None else predictors
    found = []
    for index, row in enumerate(rows):
        found.append(predict_row(row, models=known, predictors=made, power=power))
        if progress is not None:
            progress(index + 1, count)
    return pl.DataFrame(found, schema=_schema(), orient="row")


def predict_row(row: Row, *, models: Iterable[Model], predictors: Predicted, power: PowerConstants) -> Row:
    """Predict one row; what prevents it stands in `reason`."""
    answer: dict[str, object] = {"id": None if row.get("id") is None else str(row["id"])}
    try:
        condition = _condition(row, models)
        predictor = predictors(condition)
        held, assumed = _memory(condition)
        numbers = reproduce(condition, predictor=predictor, memory=held, constants=power)
    except BadInput as error:
        return answer | {"reason": str(error)}
    except DoesNotFit as error:
        return answer | {"reason": f"does not fit the GPU's memory: {error.detail}"}
    return answer | numbers | {"source": predictor.source, "assumed": "; ".join((*condition.assumed, *assumed)) or None}


def _memory(condition: Condition) -> tuple[Memory, tuple[str, ...]]:
    """KV space at vLLM's default utilization, else, since the run took place, at the least that it needs."""
    run, version = (condition.model, condition.gpu, condition.configuration), condition.vllm_version
    try:
        return memory(*run, vllm_version=version, gpu_memory_utilization=condition.gpu_memory_utilization), ()
    except DoesNotFit:
        for utilization in TIGHT:
            with contextlib.suppress(DoesNotFit):
                found = memory(*run, vllm_version=version, gpu_memory_utilization=utilization)
                return found, (f"gpu_memory_utilization {utilization}",)
        raise


def _condition(row: Row, models: Iterable[Model]) -> Condition:
    """Find the model and the GPU by whatever they are called, then read the rest of the row."""
    engine = row.get("engine")
    if engine is not None and str(engine).casefold() != "vllm":
        raise BadInput(f"{str(engine)[:40]!r} is not modelled: the planner knows vLLM", place="engine")
    for name in ("model", "gpu"):
        if not isinstance(row.get(name), str):
            raise BadInput("is missing", place=name)
    return condition_of(row, model=find_model(str(row["model"]), extra=models), gpu=find_gpu(str(row["gpu"])))


def _schema() -> pl.Schema:
    """One row of predictions."""
    numbers = dict.fromkeys(_columns(), pl.Float64())
    return pl.Schema({"id": pl.String(), **numbers, **dict.fromkeys(("source", "assumed", "reason"), pl.String())})


def _columns() -> Iterator[str]:
    for metric in METRICS:
        yield from (metric, f"{metric}_lo", f"{metric}_hi")
