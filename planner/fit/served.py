"""What serving costs beside the engine's steps: per step, per running sequence, per request, from a short served run.

A closed loop of `concurrency` equal requests with long outputs decodes `concurrency` sequences in most steps, so

    tpot(c) = step_time(c) + step_s + c · sequence_s,      ttft(1) = prefill_time + step_s + sequence_s + request_s

and the differences between the served run and the engine's own steps are the overheads (an HTTP front end, a hand-over
between processes, a detokenizer). Loops that were run several times count once, by the least disturbed of them: what
else a machine does only adds. Two concurrencies are enough; more are met by least squares, as are several prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from catalog.predictors import Predictor
from planner.predict import step_time


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedRun:
    """A closed loop of equal requests against a real server; medians over requests, seconds."""

    concurrency: int
    prompt: int
    output: int
    ttft_s: float
    tpot_s: float


def overheads(predictor: Predictor, runs: Sequence[ServedRun]) -> dict[str, float]:
    """Seconds per `step`, `sequence` and `request`, none below zero.

    `predictor` is the engine's own, without overheads. The request's share comes from the runs of least concurrency,
    where no request waits for another. Raises ValueError without runs.
    """
    if not runs:
        msg = "no served run to learn overheads from"
        raise ValueError(msg)
    loops = _least_disturbed(runs)
    excess = np.array([run.tpot_s - _decode(predictor, run) for run in loops])
    step, sequence = _two(np.array([float(run.concurrency) for run in loops]), excess)
    fewest = min(run.concurrency for run in loops)
    alone = [run for run in loops if run.concurrency == fewest]
    request = np.median([run.ttft_s - _prefill(predictor, run) for run in alone]) - step - sequence
    return {"step": step, "sequence": sequence, "request": max(0.0, float(request))}


def _least_disturbed(runs: Sequence[ServedRun]) -> list[ServedRun]:
    """Of each kind of loop the run that was answered soonest: its two latencies belong together.

    A client that was held up sees its first token late and the further ones all at once, so neither latency alone
    tells a disturbed run.
    """
    best: dict[tuple[int, int, int], ServedRun] = {}
    for run in runs:
        kind = (run.concurrency, run.prompt, run.output)
        if kind not in best or _answered(run) < _answered(best[kind]):
            best[kind] = run
    return [best[kind] for kind in sorted(best)]


def _answered(run: ServedRun) -> float:
    return run.ttft_s + run.tpot_s * (run.output - 1)


def _decode(predictor: Predictor, run: ServedRun) -> float:
    return float(step_time(predictor, decodes=run.concurrency, context=run.prompt + run.output / 2))


def _prefill(predictor: Predictor, run: ServedRun) -> float:
    return float(step_time(predictor, chunks=1, chunk=run.prompt, prior=0))


def _two(concurrency: np.ndarray, excess: np.ndarray) -> tuple[float, float]:
    """Least squares of excess = step + c · sequence with neither below zero."""
    if concurrency.size == 1 or np.ptp(concurrency) == 0:
        return max(0.0, float(np.median(excess))), 0.0
    sequence, step = np.polyfit(concurrency, excess, 1)
    if sequence < 0:
        return max(0.0, float(np.mean(excess))), 0.0
    if step < 0:
        return 0.0, max(0.0, float(np.sum(excess * concurrency) / np.sum(concurrency**2)))
    return float(step), float(sequence)
