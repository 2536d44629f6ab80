"""`TorchRunner`: time operators with torch's real kernels on the device at hand, CPU or CUDA.

The driver runs in a process group of its own (`probes.process`), started from an interpreter that has torch: this one
with the `probe` extra, or another that the user names. What the driver printed before a crash or a deadline counts;
everything else becomes a failure with its reason. An operator that needs several ranks is timed by that many
processes, joined through a file (gloo on CPU, NCCL on CUDA).
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from catalog.fingerprints import Fingerprint, FingerprintKey, Op
from catalog.gpus import GPU
from probes import grid, process
from probes.runners import Bound, Timing, points, refused

_DRIVER = Path(__file__).with_name("torch_driver.py")
Row = dict[str, Any]
_COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "p2p")


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchRunner:
    """Times every operator of a rank on one device; TP ranks share the machine."""

    device: Literal["cpu", "cuda"]
    python: str = sys.executable
    """Interpreter that has torch."""
    repeats: int = 10
    deadline_s: float = 60.0
    """For all operators of one key together."""
    sizes: grid.Grid = grid.COARSE
    cuda_graph: bool = True

    bound: Bound | None = None
    """Least seconds of an operator, where the device's data can be trusted: what claims to be faster is refused."""
    restarts: int = 3

    def run(
        self,
        key: FingerprintKey,
        ops: Sequence[Op],
        *,
        gpu: GPU,
        known: Sequence[Row] = (),
        on_row: Callable[[Row], None] | None = None,
    ) -> Fingerprint:
        """Measure `ops` at every size that `known` rows do not hold; `on_row` sees each as soon as it is measured.

        Raises:
            FileNotFoundError: `python` does not exist.
        """
        alone = [op for op in ops if op.kind not in _COLLECTIVES]
        joint = [op for op in ops if op.kind in _COLLECTIVES]
        rows = list(known)
        failures: dict[str, str] = {}
        for chosen, ranks in ((alone, 1), (joint, key.tp)):
            if ranks == 1 and chosen is joint:
                failures |= dict.fromkeys((op.name for op in joint), "needs more than one rank")
            else:
                failures |= self._measure(chosen, rows, ranks=ranks, on_row=on_row)
        timings, wrong = _read(ops, rows, gpu, self.bound)
        text = f"torch on {gpu.name}: {self.repeats} repeats after warm-up, median"
        return Fingerprint(key=key, points=points(timings), failures=wrong | failures, provenance=text)

    def _measure(
        self, ops: Sequence[Op], rows: list[Row], *, ranks: int, on_row: Callable[[Row], None] | None
    ) -> dict[str, str]:
        """Start the driver until all is measured; a start that dies costs the point that it had begun."""
        for _ in range(self.restarts):
            done = {(row["op"], row["x"], row["y"]) for row in rows}
            left = [(op, [size for size in self.sizes.points(op.kind) if (op.name, *size) not in done]) for op in ops]
            left = [(op, sizes) for op, sizes in left if sizes]
            if not left:
                return {}
            outcome = self._run(left, ranks=ranks, on_row=on_row)
            rows += [row for row in outcome.records() if {"op", "x", "y"} <= row.keys()]
            if outcome.ending == "finished":
                return {}
            why = f"the probe {outcome.ending} (exit {outcome.returncode}): {outcome.errors[-300:].strip()}"
            last = outcome.records()[-1:]
            if not last or "begun" not in last[0]:
                return dict.fromkeys((op.name for op, _ in left), why)
            lost = dict(last[0]["begun"]) | {"failure": why}
            rows.append(lost)
            if on_row is not None:
                on_row(lost)
        done = {(row["op"], row["x"], row["y"]) for row in rows}
        missing = {op.name for op in ops for size in self.sizes.points(op.kind) if (op.name, *size) not in done}
        return dict.fromkeys(sorted(missing), f"sizes left out after {self.restarts} starts that died")

    def _run(
        self, work: Sequence[tuple[Op, Sequence[grid.Size]]], *, ranks: int, on_row: Callable[[Row], None] | None
    ) -> process.Outcome:
        def heard(line: str) -> None:
            row = process.record(line)
            if on_row is not None and row is not None and "op" in row:
                on_row(row)

        def start(request: dict[str, Any]) -> process.Outcome:
            argv = [self.python, "-I", str(_DRIVER)]
            listen = heard if request["rank"] == 0 else None
            return process.run(argv, deadline_s=self.deadline_s, stdin=json.dumps(request), on_line=listen)

        with tempfile.TemporaryDirectory(prefix="fleetplan-") as folder:
            requests = [self._request(work, rank=rank, ranks=ranks, store=f"{folder}/store") for rank in range(ranks)]
            with ThreadPoolExecutor(ranks) as pool:
                return next(iter(list(pool.map(start, requests))))

    def _request(
        self, work: Sequence[tuple[Op, Sequence[grid.Size]]], *, rank: int, ranks: int, store: str
    ) -> dict[str, Any]:
        return {
            "device": self.device,
            "graph": self.cuda_graph,
            "repeats": self.repeats,
            "seed": 0,
            "rank": rank,
            "ranks": ranks,
            "store": store,
            "ops": [
                {"name": op.name, "kind": op.kind, "dtype": op.dtype, "shape": dict(op.shape), "points": list(sizes)}
                for op, sizes in work
            ],
        }


def _read(
    ops: Sequence[Op], rows: Sequence[Row], gpu: GPU, bound: Bound | None
) -> tuple[list[tuple[Op, Timing]], dict[str, str]]:
    """Split rows into timings that may be true and failures with their reasons."""
    timings: list[tuple[Op, Timing]] = []
    failures: dict[str, str] = {}
    for op in ops:
        mine = [row for row in rows if row["op"] == op.name]
        failures |= {f"{op.name}({row['x']}, {row['y']})": str(row["failure"]) for row in mine if "failure" in row}
        measured = [row for row in mine if "time_s" in row]
        kept, wrong = sound(op, measured, gpu=gpu, bound=bound)
        failures |= {f"{op.name}({row['x']}, {row['y']})": why for row, why in wrong}
        if kept:
            timings.append((op, _timing(kept)))
    return timings, failures


def sound(op: Op, rows: Sequence[Row], *, gpu: GPU, bound: Bound | None) -> tuple[list[Row], list[tuple[Row, str]]]:
    """Split off rows that no measurement can give: NaN, zero, negative, absurd, or faster than the hardware can be."""
    kept: list[Row] = []
    wrong: list[tuple[Row, str]] = []
    for row in rows:
        table = pl.DataFrame(
            {name: [row[name]] for name in ("x", "y", "time_s")}, schema=dict.fromkeys(("x", "y", "time_s"), pl.Float64)
        )
        _, reasons = refused(table)
        least = 0.0
        if bound is not None and not reasons:
            least = float(bound(op, gpu, np.array(float(row["x"])), np.array(float(row["y"]))))
        if reasons:
            wrong.append((row, "refused: " + ", ".join(reasons)))
        elif row["time_s"] < least:
            wrong.append((row, f"refused: {row['time_s']:.3g} s is faster than its roofline's {least:.3g} s"))
        else:
            kept.append(row)
    return kept, wrong


def _timing(rows: Sequence[dict[str, Any]]) -> Timing:
    return Timing(
        x=np.array([float(row["x"]) for row in rows]),
        y=np.array([float(row["y"]) for row in rows]),
        time_s=np.array([float(row["time_s"]) for row in rows]),
        source="measured",
        spread=float(np.median([float(row["spread"]) for row in rows])),
    )
