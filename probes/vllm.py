"""`VllmRunner`: time the steps of a real vLLM engine with dummy weights, on stand-ins that differ in depth.

A step of a model with n_k blocks of kind k takes  t(x, y) = base(x, y) + Σ_k n_k · block_k(x, y). One stand-in with a
block of each kind, and one more per kind with `extra` blocks of it, give as many equations as unknowns at every size
(iServe, arXiv 2501.13111, and SCIENCE.md 2: layers {1, 2, 4}); least squares where there are more. The engine lives in
an environment of its own, reached by a subprocess with a deadline; nothing is downloaded and no code of a checkpoint is
run.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from catalog.errors import BadInput
from catalog.fingerprints import Fingerprint, FingerprintKey, Op
from probes import grid, process, standin
from probes.runners import Timing, points, refused

_DRIVER = Path(__file__).with_name("vllm_driver.py")
Row = dict[str, Any]

#: What vLLM must not do inside a probe: ask a hub, send usage, spread over processes that the deadline cannot see.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}

#: Mean over least of one size's rounds beyond which it was an accident.
_MOST = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmRunner:
    """Measures `block_*` points of one model in the vLLM environment whose interpreter is `python`.

    Every size is timed in several rounds over all stand-ins, and each round's median counts. Of the shallow stand-in
    the least disturbed round stands, of deeper ones their median ratio to it within a round: a block is a difference
    of stand-ins, which must have run at one speed. Each point's `spread` is by how much a typical round exceeds the
    least; `typical` raises a fingerprint to it.
    """

    python: str
    config: standin.Config
    """The model's parsed config.json."""
    sizes: grid.Grid = grid.SMALL
    engine: Mapping[str, object]
    """Further `EngineArgs`: max_model_len, max_num_seqs, max_num_batched_tokens, dtype, enforce_eager, quantization."""
    environment: Mapping[str, str]
    """Further variables, such as VLLM_CPU_KVCACHE_SPACE and OMP_NUM_THREADS on a CPU."""
    extra: int = 2
    """Blocks by which the deeper stand-ins exceed the shallow one."""
    rounds: int = 3
    steps: int = 8
    """Timed decode steps of one size in one round; prefills are 3."""
    budget_s: float = 15.0
    """After the first round of every size, no further piece of work begins later than this."""
    together: bool = False
    """Keep all stand-ins up at once and alternate; on an accelerator their memory would have to be divided."""
    clock: Literal["wall", "cpu"] = "wall"
    """`cpu` where one thread of this machine computes everything: it leaves out what other programs held the core."""
    deadline_s: float = 180.0
    """For all work of one start of the environment; what began and did not end is a failure, the rest starts again."""
    restarts: int = 3

    def run(
        self,
        key: FingerprintKey,
        *,
        known: Sequence[Row] = (),
        on_row: Callable[[Row], None] | None = None,
        wait: Callable[[], object] | None = None,
    ) -> Fingerprint:
        """Measure every size on every stand-in that `known` rows do not hold.

        Args:
            key: of the fingerprint.
            known: rows that an earlier run handed to `on_row`; they are not measured again.
            on_row: sees every piece of work as soon as it is measured, or has failed.
            wait: called when the environment has been started, before anything is measured.

        Raises:
            BadInput: the config cannot be cut.
        """
        counts = standin.kinds(self.config)
        designs = _designs(counts, self.extra)
        rows, failures = self._measure(designs, known=known, on_row=on_row, wait=wait)
        rows, doubtful = sound(rows)
        version = next((str(row["vllm"]) for row in rows if "vllm" in row), key.engine_version)
        text = f"{len(designs)} stand-ins of dummy weights, least of {self.rounds} medians of {self.steps} steps"
        return Fingerprint(
            key=key,
            points=points(
                _solve(counts, designs, [_best(rows, index) for index in range(len(designs))], _excess(rows))
            ),
            failures=failures | _failures(rows) | doubtful,
            provenance=f"vLLM {version}: {text}",
        )

    def work(self, designs: int) -> list[Row]:
        """All pieces of work, in the order in which they are done."""
        sizes = [
            (kind, x, y)
            for kind, chosen in (("block_decode", self.sizes.decode), ("block_prefill", self.sizes.prefill))
            for x, y in chosen
        ]
        pieces = [
            {"engine": index, "kind": kind, "x": x, "y": y, "round": number}
            for number in range(self.rounds)
            for kind, x, y in sizes
            for index in range(designs)
        ]
        return pieces if self.together else sorted(pieces, key=lambda piece: piece["engine"])

    def _measure(
        self,
        designs: Sequence[Mapping[standin.Kind, int]],
        *,
        known: Sequence[Row],
        on_row: Callable[[Row], None] | None,
        wait: Callable[[], object] | None,
    ) -> tuple[list[Row], dict[str, str]]:
        """Start the environment until all is measured; a start that dies costs the piece that it had begun."""
        rows, failures = list(known), {}
        with tempfile.TemporaryDirectory(prefix="fleetplan-") as folder:
            for index, design in enumerate(designs):
                standin.write(standin.cut(self.config, design).config, Path(folder) / str(index))
            for _ in range(self.restarts):
                done = {_piece(row) for row in rows if "kind" in row}
                left = [piece for piece in self.work(len(designs)) if _piece(piece) not in done]
                if not left:
                    break
                outcome = self._start(Path(folder), left, designs=len(designs), on_row=on_row, wait=wait)
                found = [row for row in outcome.records() if "begun" not in row]
                rows += found
                if outcome.ending == "finished":
                    break
                lost = _lost(outcome)
                why = f"{outcome.ending} (exit {outcome.returncode}): {outcome.errors[-500:].strip()}"
                if lost is None:  # it died before it measured anything: starting again would end the same way
                    failures["engine"] = why
                    break
                rows.append(lost | {"failure": why})
                if on_row is not None:
                    on_row(rows[-1])
        return rows, failures

    def _start(
        self,
        folder: Path,
        work: Sequence[Row],
        *,
        designs: int,
        on_row: Callable[[Row], None] | None,
        wait: Callable[[], object] | None,
    ) -> process.Outcome:
        request = {
            "engines": [
                {
                    "load_format": "dummy",
                    "skip_tokenizer_init": True,
                    "enable_prefix_caching": False,
                    "trust_remote_code": False,
                    **self.engine,
                    "model": str(folder / str(index)),
                }
                for index in range(designs)
            ],
            "work": list(work),
            "together": self.together,
            "clock": self.clock,
            "budget_s": self.budget_s,
            "steps": self.steps,
            "prefills": 3,
            "seed": 0,
        }

        def text() -> str:
            if wait is not None:
                wait()
            return json.dumps(request)

        def heard(line: str) -> None:
            row = process.record(line)
            if on_row is not None and row is not None and "kind" in row:
                on_row(row)

        return process.run(
            [self.python, "-I", str(_DRIVER)],
            deadline_s=self.deadline_s,
            stdin=text,
            env=ENVIRONMENT | dict(self.environment),
            on_line=heard,
        )


def sound(rows: Sequence[Row]) -> tuple[list[Row], dict[str, str]]:
    """Refuse rows whose time no measurement can give (`probes.runners.refused`); say which, and why."""
    timed = [row for row in rows if "time_s" in row]
    table = pl.DataFrame(
        {name: [_number(row[name]) for row in timed] for name in ("x", "y", "time_s")},
        schema={"x": pl.Float64, "y": pl.Float64, "time_s": pl.Float64},
    ).with_row_index("index")
    good, reasons = refused(table)
    kept = {_piece(timed[index]) for index in good["index"].to_list()}
    failures = {f"{count} rows": reason for reason, count in reasons.items()}
    return [row for row in rows if "time_s" not in row or _piece(row) in kept], failures


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _piece(row: Row) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in ("engine", "kind", "x", "y", "round"))


def _lost(outcome: process.Outcome) -> Row | None:
    """The piece of work that had begun and not ended when the process did."""
    last = [row for row in outcome.records() if "begun" in row or "kind" in row][-1:]
    return dict(last[0]["begun"]) if last and "begun" in last[0] else None


def typical(fingerprint: Fingerprint) -> Fingerprint:
    """The times of a typical round: what disturbs a machine while it is probed disturbs what it serves as well."""
    return replace(fingerprint, points=fingerprint.points.with_columns(pl.col("time_s") * (1.0 + pl.col("spread"))))


def _excess(rows: Sequence[Row]) -> float:
    """By how much the mean of a size's rounds exceeds their least, in the mean over sizes and stand-ins."""
    several = [list(times.values()) for times in _rounds(rows).values() if len(times) > 1]
    ratios = [min(float(np.mean(times)) / min(times), _MOST) for times in several]
    return float(np.mean(ratios)) - 1.0 if ratios else 0.0


def _best(rows: Sequence[Row], engine: int) -> list[Row]:
    """For each size the least median over the rounds; of deeper stand-ins the shallow one's times their usual ratio.

    Stand-ins are timed right after one another, so that what disturbs a moment disturbs all of them alike.
    """
    rounds = _rounds(rows)
    found = []
    for (index, *size), times in rounds.items():
        if index != engine:
            continue
        shallow = rounds.get((0, *size), {})
        together = [seconds / shallow[number] for number, seconds in times.items() if number in shallow]
        least = min(shallow.values()) * float(np.median(together)) if together else min(times.values())
        kind, x, y = size
        found.append({"kind": kind, "x": x, "y": y, "time_s": least})
    return found


def _rounds(rows: Sequence[Row]) -> dict[tuple[Any, ...], dict[int, float]]:
    """Medians by round of each stand-in and size."""
    seen: dict[tuple[Any, ...], dict[int, float]] = {}
    for row in rows:
        if "time_s" in row:
            seen.setdefault((row["engine"], row["kind"], row["x"], row["y"]), {})[row["round"]] = float(row["time_s"])
    return seen


def _failures(rows: Sequence[Row]) -> dict[str, str]:
    return {
        f"stand-in {row['engine']}: {row['kind']}({row['x']}, {row['y']})": str(row["failure"])
        for row in rows
        if "failure" in row
    }


def _designs(counts: Mapping[standin.Kind, int], extra: int) -> list[dict[standin.Kind, int]]:
    """Blocks per kind of each stand-in: one of all, then `extra` more of each kind in turn (as far as there are)."""
    if not counts:
        raise BadInput("the config has no blocks", place="config.json")
    shallow = dict.fromkeys(counts, 1)
    deeper = [shallow | {kind: min(1 + extra, count)} for kind, count in counts.items() if count > 1]
    return [shallow, *deeper]


def _solve(
    counts: Mapping[standin.Kind, int],
    designs: Sequence[Mapping[standin.Kind, int]],
    rows: Sequence[Sequence[Row]],
    spread: float,
) -> list[tuple[Op, Timing]]:
    """Least squares at each size that every stand-in measured; a block never takes less than nothing."""
    times = [{(row["kind"], row["x"], row["y"]): row for row in found if "time_s" in row} for found in rows]
    sizes = sorted(set.intersection(*(set(found) for found in times)))
    # A kind with a single block in the model is part of the base: it repeats nowhere.
    kinds = [kind for kind, count in counts.items() if count > 1]
    design = np.array([[1.0, *(float(d[kind]) for kind in kinds)] for d in designs])
    solved = {}
    for size in sizes:
        measured = np.array([found[size]["time_s"] for found in times])
        solved[size] = _nonnegative(design, measured)
    names = ["base", *("block_" + "_".join(kind) for kind in kinds)]
    numbers = [1, *(counts[kind] for kind in kinds)]
    found_ops: list[tuple[Op, Timing]] = []
    for kind in ("block_decode", "block_prefill"):
        chosen = [size for size in sizes if size[0] == kind]
        for column, (name, number) in enumerate(zip(names, numbers, strict=True)):
            if chosen:
                op = Op(name=name, kind=kind, count=number, dtype="", shape=())
                found_ops.append((op, _timing(chosen, [solved[size][column] for size in chosen], spread)))
    return found_ops


def _nonnegative(design: NDArray[np.float64], measured: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least squares with columns that come out negative (noise above the block's own time) set to zero, worst first."""
    active = list(range(design.shape[1]))
    while True:
        solution = np.zeros(design.shape[1])
        solution[active] = np.linalg.lstsq(design[:, active], measured, rcond=None)[0]
        if solution.min() >= 0 or len(active) == 1:
            return np.maximum(solution, 1e-9)
        active.remove(int(np.argmin(solution)))


def _timing(sizes: Sequence[tuple[str, int, int]], times: Sequence[float], spread: float) -> Timing:
    return Timing(
        x=np.array([float(x) for _, x, _ in sizes]),
        y=np.array([float(y) for _, _, y in sizes]),
        time_s=np.array(times),
        source="measured",
        spread=spread,
    )
