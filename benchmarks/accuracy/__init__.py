"""`python -m benchmarks accuracy [--json] [--write]`: our predictions and the peer's on the same public runs.

The 843 runs of ../shared/data/public/inferencex_vllm are scored and never fitted. Ours decide by the pessimistic end of
their intervals, the peer by its point predictions (it gives no interval). The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import polars as pl

from benchmarks.accuracy import peer, report, scores
from flows.predict import predict

ROOT = Path(__file__).parents[2]
DATA = ROOT / "../shared/data/public/inferencex_vllm"
WORK = ROOT / "var" / "peer"


def main(as_json: bool, arguments: list[str]) -> int:  # noqa: FBT001 - what `python -m benchmarks` hands over
    """Predict, ask the peer, score, print, and with --write renew accuracy.md and its plots."""
    options = _options(arguments)
    if not (options.data / "inputs.parquet").exists():
        print(f"no measured runs at {options.data}: give --data", file=sys.stderr)
        return 2
    inputs, truth = (pl.read_parquet(options.data / f"{name}.parquet") for name in ("inputs", "truth"))
    start = time.perf_counter()
    ours = predict(inputs.iter_rows(named=True))
    print(f"{inputs.height} runs predicted in {time.perf_counter() - start:.0f} s", file=sys.stderr)
    theirs = None if options.no_peer else _peer(inputs, options)
    mine = scores.joined(inputs, truth, ours)
    figures = scores.summary(mine, pessimistic=True)
    other = None if theirs is None else scores.joined(inputs, truth, theirs)
    figures |= {f"peer_{key}": value for key, value in _peer_figures(other).items()}
    if not as_json:
        print(report.table(figures))
    if options.write:
        report.write(Path(__file__).parents[1], mine, other, figures)
    print(json.dumps({key: _rounded(value) for key, value in figures.items()}))
    return 0


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks accuracy", description=__doc__)
    parser.add_argument("--write", action="store_true", help="renew benchmarks/accuracy.md and its plots")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with inputs.parquet and truth.parquet")
    parser.add_argument(
        "--peer-python", type=Path, help=f"Python with {peer.REQUIREMENT}; by default one is made in var/"
    )
    parser.add_argument("--no-peer", action="store_true", help="leave the peer out: its figures are null")
    return parser.parse_args(arguments)


def _peer(inputs: pl.DataFrame, options: argparse.Namespace) -> pl.DataFrame | None:
    """The peer's answers; None, said aloud, where it cannot be run."""
    try:
        python = options.peer_python or peer.environment(WORK)
        return peer.answers(inputs, python=python, folder=WORK)
    except peer.PeerMissing as missing:
        print(f"peer left out: {missing}", file=sys.stderr)
        return None


def _peer_figures(rows: pl.DataFrame | None) -> dict[str, float | int | None]:
    return dict.fromkeys(scores.KEYS) if rows is None else scores.summary(rows, pessimistic=False)


def _rounded(value: float | None) -> float | int | None:
    return round(value, 4) if isinstance(value, float) else value
