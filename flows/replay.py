"""Replay a request log on the engine that served it, or on one that might: TTFT, TPOT, end to end and queue of each.

Arrivals and lengths are the log's, step times the predictor's: from a fingerprint of that model and GPU that a user
brought, else from the reference tables, else carried over from a like GPU. Nothing is fitted on the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from catalog.errors import BadInput
from catalog.fingerprints import Fingerprint, Source
from catalog.fitted import Constants, load_constants
from catalog.gpus import load_gpus
from catalog.store import Store
from flows.engines import ServedEngine, read_engine
from flows.imports import brought, nearest
from flows.predict import TABLES_VERSION
from flows.probe import measure, pair_of, reference_runner, shape_of
from flows.traces import read_trace
from planner.fit import fit
from planner.queueing.engine import Engine
from planner.simulate import Simulation, simulate
from planner.workload import Admission, Requests, Trace, admit
from probes.imported import completed, read_fingerprints

SCHEMA = pl.Schema({"id": pl.String, "ttft_ms": pl.Float64, "tpot_ms": pl.Float64, "e2e_ms": pl.Float64,
                    "queue_ms": pl.Float64, "reason": pl.String})  # fmt: skip
MEASURES = tuple(name for name in SCHEMA.names() if name.endswith("_ms"))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Replayed:
    """What became of a log."""

    frame: pl.DataFrame
    """One row per request by `SCHEMA`: numbers, or the `reason` why vLLM refuses it; no TPOT for one token."""
    makespan_s: float
    """From the first arrival to the last answer."""
    preemptions: int
    reasons: Mapping[str, int]
    """Why vLLM answers requests with an error (`planner.workload.admission`), with how many of them."""
    cut: int
    """Answers that end at max_model_len."""
    source: Source
    notes: tuple[str, ...]
    """What the step times rest on, and what was assumed."""

    @property
    def refused(self) -> int:
        """Requests that vLLM answers with an error."""
        return sum(self.reasons.values())

    def summary(self) -> dict[str, object]:
        """Means over requests in ms, and the counters: what `--json` prints."""
        means = {f"mean_{name}": self.frame[name].mean() for name in MEASURES}
        rest = {name: getattr(self, name) for name in self.__slots__ if name != "frame"}
        return {"requests": self.frame.height, **means, "refused": self.refused, **rest}


def replay_file(
    engine: Path, requests: Path, out: Path, *, store: Store | None = None, fingerprints: Path | None = None
) -> Replayed:
    """Replay a file of requests (arrival_s, input_toks, output_toks; any format of `read_trace`) and write the answer.

    Raises:
        BadInput: what the engine or a request says is missing or impossible (requests by line); nothing is written.
    """
    served, trace, ids = read_engine(engine), read_trace(requests), read_ids(requests)
    if len(ids) != len(trace):
        ids = [str(number) for number in range(1, len(trace) + 1)]
    found = replay(served, trace, ids=ids, fingerprint=own_fingerprint(served, store=store, folder=fingerprints))
    out.parent.mkdir(parents=True, exist_ok=True)
    found.frame.write_parquet(out)
    return found


def replay(
    served: ServedEngine, trace: Trace, *, ids: list[str], fingerprint: Fingerprint | None = None,
    constants: Constants | None = None,
) -> Replayed:  # fmt: skip
    """Simulate a log on an engine; without a fingerprint of its own the step times come from published kernels."""
    shape = shape_of(served.configuration)
    reference = _reference(served)
    rests_on = reference if fingerprint is None else completed(fingerprint, reference)
    predictor = fit(
        served.model, served.gpu, shape, fingerprint=rests_on, gpus=load_gpus(),
        constants=constants or load_constants(), engine=served.engine_class,
    )  # fmt: skip
    configuration = served.configuration
    engine = Engine(
        predictor=predictor,
        kv_tokens=served.kv_tokens,
        block_size=served.block_size,
        max_num_seqs=configuration.max_num_seqs,
        max_num_batched_tokens=configuration.max_num_batched_tokens,
        max_model_len=configuration.max_model_len,
    )
    admission = admit(trace.prompt, trace.output, engine.max_model_len)
    result = simulate(engine, _requests(served, trace), rules=served.rules)
    return Replayed(
        frame=_table(ids, result, admission),
        makespan_s=result.makespan_s,
        preemptions=result.preemptions,
        reasons=admission.reasons,
        cut=admission.cut,
        source=predictor.source,
        notes=(*predictor.notes, *(f"assumed: {what}" for what in served.assumed)),
    )


def own_fingerprint(served: ServedEngine, *, store: Store | None, folder: Path | None) -> Fingerprint | None:
    """The fingerprint that a user brought of this engine: of the folder if one is named, else of the store."""
    pair = pair_of(served.model, served.gpu, served.configuration, runner="imported", version=served.vllm_version)
    if folder is not None:
        return nearest({each.key: each for each in read_fingerprints(folder)}, pair.key)
    return None if store is None else nearest(brought(store), pair.key)


def read_ids(path: Path) -> list[str]:
    """The column `id` of a table, the row numbers where there is none. Raises BadInput for an id that occurs twice."""
    suffix = path.suffix.lower()
    frame = pl.read_parquet(path) if suffix == ".parquet" else pl.DataFrame()
    if suffix == ".csv":
        frame = pl.read_csv(path, infer_schema=False)
    if "id" not in frame.columns:
        return []
    ids = ["" if value is None else str(value) for value in frame["id"].to_list()]
    first: dict[str, int] = {}
    for index, name in enumerate(ids):
        if not name or name in first:
            what = "the id is missing" if not name else f"the id {name[:60]!r} stands in row {first[name] + 1} too"
            line = f"{path.name}:{index + 2}" if suffix == ".csv" else f"{path.name}, row {index + 1}"
            raise BadInput(what, place=line, mend="give each request an id of its own")
        first[name] = index
    return ids


def _reference(served: ServedEngine) -> Fingerprint:
    shape = shape_of(served.configuration)
    pair = pair_of(served.model, served.gpu, shape, runner="reference", version=TABLES_VERSION)
    return measure(pair, reference_runner(load_gpus()))


def _requests(served: ServedEngine, trace: Trace) -> Requests:
    """The log at its own pace; prefix hits count where the log states them and the engine keeps a prefix cache."""
    arrival = trace.arrival_s - trace.arrival_s[0]
    known = trace.cached is not None and served.configuration.enable_prefix_caching
    return Requests(
        rate=(len(trace) - 1) / float(arrival[-1]) if arrival[-1] > 0 else 1.0,
        prompt=trace.prompt,
        output=trace.output,
        cached=trace.cached if known and trace.cached is not None else np.zeros(len(trace), dtype=np.int64),
        arrival_cv=1.0,
        arrival_s=arrival,
    )


def _table(ids: list[str], result: Simulation, admission: Admission) -> pl.DataFrame:
    columns = {"ttft_ms": result.ttft_s, "tpot_ms": result.tpot_s, "e2e_ms": result.e2e_s, "queue_ms": result.queue_s}
    said = [admission.reason(index) for index in range(len(ids))]
    numbers = {name: 1e3 * seconds for name, seconds in columns.items()}
    frame = pl.DataFrame({"id": ids, **numbers, "reason": said}, schema=SCHEMA)
    return frame.with_columns(pl.col(pl.Float64).fill_nan(None))
