"""`Corrections` by the user's own `vllm bench` runs of an engine, and `Production`, by what its services measured.

Each run of the same model, GPU, TP and format is reproduced on the uncorrected predictor. Decode steps are corrected by
its TPOT (a batch's latency where there is none); what its TTFT is off beyond that corrects prefill.
`planner.fit.narrowed` says how far to believe them. On top come the biases that `planner.calibrate` learned from
production, as the newest correction record holds them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from pydantic import ValidationError

from catalog.errors import BadInput, CorruptRecord
from catalog.fitted import Constants
from catalog.gpus import find_gpu
from catalog.models import Model, find_model
from catalog.predictors import Predictor
from catalog.store import RecordName, Store
from catalog.store.records import canonical_json
from flows.bench_results import BenchRun
from flows.imports import bench_runs
from planner.calibrate import Calibration
from planner.calibrate import corrected as by_production
from planner.conditions import Condition, condition_of, reproduce
from planner.fit import bound
from planner.fit.narrowed import NOISE, Correction, corrected, correction, not_below
from planner.memory import DoesNotFit, memory
from planner.plan import Plan
from planner.strategies import Configuration

PredictorOf = Callable[[Condition], Predictor]
Engine = tuple[str, str, int, int, int, int, str, str]
Ratios = tuple[tuple[float, ...], tuple[float, ...]]
NONE: Ratios = ((), ())
#: Kind of the record that holds what production taught.
CORRECTION = "correction"


@dataclass(slots=True, kw_only=True, eq=False)
class Corrections:
    """Measured over predicted, by engine, learned when an engine is first asked for."""

    runs: Sequence[BenchRun]
    predictor_of: PredictorOf
    """The uncorrected predictor of a condition."""
    constants: Constants
    notes: list[str] = field(default_factory=list)
    """Runs that could not be reproduced, with the reason."""
    _conditions: dict[Engine, list[tuple[Condition, BenchRun]]] | None = None
    _ratios: dict[Engine, Ratios] = field(default_factory=dict)

    def __call__(self, predictor: Predictor, model: Model, configuration: Configuration) -> Predictor:
        """The predictor as measured runs of its engine correct it; itself where there are none."""
        engine = _engine(model, configuration)
        if engine not in self._ratios:
            self._ratios[engine] = self._learn(engine)
        decode, prefill = self._ratios[engine]
        found = corrected(
            predictor,
            decode=self._correction(decode, predictor.decode_interval, "decode"),
            prefill=self._correction(prefill, predictor.ttft_ends, "prefill"),
        )
        return found if found is predictor else not_below(found, bound(model, find_gpu(configuration.gpu),
                                                                       configuration))  # fmt: skip

    def records(self, model: Model, configuration: Configuration) -> tuple[str, ...]:
        """Records of the runs that correct an engine."""
        return tuple(run.record for _, run in self._known().get(_engine(model, configuration), ()))

    def _correction(self, ratios: Sequence[float], interval: tuple[float, float], phase: str) -> Correction:
        scatter = max(NOISE[phase], self.constants.number(f"intervals.scatter.{phase}"))
        return correction(ratios, interval=interval, scatter=scatter)

    def _learn(self, engine: Engine) -> Ratios:
        decode: list[float] = []
        prefill: list[float] = []
        for condition, run in self._known().get(engine, ()):
            try:
                found = self._ratio(condition, run.measured)
            except (BadInput, DoesNotFit) as error:
                self.notes.append(f"a measured run of {condition.configuration} is not reproduced: {error}")
                continue
            decode += found[0]
            prefill += found[1]
        return (tuple(decode), tuple(prefill)) if decode or prefill else NONE

    def _ratio(self, condition: Condition, measured: Mapping[str, float]) -> Ratios:
        """(decode,), (prefill,): measured over predicted of one run, where it measured them."""
        predictor = self.predictor_of(condition)
        held = memory(condition.model, condition.gpu, condition.configuration, vllm_version=condition.vllm_version,
                      gpu_memory_utilization=condition.gpu_memory_utilization)  # fmt: skip
        found = reproduce(condition, predictor=predictor, memory=held)
        metric = next((name for name in ("tpot_ms", "itl_ms", "batch_latency_s") if name in measured and
                       name in found), None)  # fmt: skip
        decode = () if metric is None else (measured[metric] / found[metric],)
        if "ttft_ms" not in measured:
            return decode, ()
        paced = predictor.scaled(decode=decode[0], prefill=1.0) if decode else predictor
        found = reproduce(condition, predictor=paced, memory=held)
        return decode, (measured["ttft_ms"] / found["ttft_ms"],)

    def _known(self) -> dict[Engine, list[tuple[Condition, BenchRun]]]:
        if self._conditions is None:
            self._conditions = {}
            for run in self.runs:
                try:
                    model, gpu = find_model(str(run.row["model"])), find_gpu(str(run.row["gpu"]))
                    condition = condition_of(run.row, model=model, gpu=gpu)
                except BadInput as error:
                    self.notes.append(f"a measured run is not read: {error}")
                    continue
                engine = _engine(model, condition.configuration)
                self._conditions.setdefault(engine, []).append((condition, run))
        return self._conditions


def corrections_of(store: Store, predictor_of: PredictorOf, constants: Constants) -> Corrections | None:
    """Corrections by the runs of a store; None where it holds none."""
    runs = bench_runs(store)
    return Corrections(runs=runs, predictor_of=predictor_of, constants=constants) if runs else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Production:
    """What production taught, and the record that says it."""

    calibration: Calibration
    record: str

    @classmethod
    def of(cls, store: Store) -> Self | None:
        """The newest correction of a store that can be read; None where there is none."""
        found = (cls._read(store, name) for name in sorted(store.names(CORRECTION), reverse=True))
        return next((each for each in found if each is not None), None)

    @classmethod
    def damaged(cls, store: Store) -> tuple[str, ...]:
        """Corrections that are newer than the newest that can be read, in words."""
        found = []
        for name in sorted(store.names(CORRECTION), reverse=True):
            if cls._read(store, name) is not None:
                break
            found.append(f"{name} cannot be read: what production taught is taken from before it")
        return tuple(found)

    @classmethod
    def cited(cls, store: Store, plan: Plan) -> Self | None:
        """The correction that a plan was made with; None where it was made with none, or that can no longer be read."""
        found = (cls._read(store, name) for name in store.names(CORRECTION) if str(name) in plan.provenance.corrections)
        return next((each for each in found if each is not None), None)

    @classmethod
    def _read(cls, store: Store, name: RecordName) -> Self | None:
        try:
            note = store.read(name).note
            return cls(calibration=Calibration.model_validate_json(canonical_json(note)), record=str(name))
        except (CorruptRecord, ValidationError):
            return None

    def __call__(
        self, predictor: Predictor, model: Model, configuration: Configuration, *, intent: str | None = None
    ) -> Predictor:
        """The predictor as production corrects it, for one service or for whoever runs the engine."""
        return by_production(predictor, self.calibration, model=model.digest, gpu=configuration.gpu, intent=intent)


def _engine(model: Model, configuration: Configuration) -> Engine:
    c = configuration
    return (model.digest, c.gpu, c.tp, c.pp, c.dp, c.ep, c.quantization, c.kv_dtype)
