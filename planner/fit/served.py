"""What serving costs beside the engine's steps: per step, per running sequence, per request, from a short served run.

A closed loop of c equal requests of n output tokens is answered in lockstep: their prompts in one step, then n - 1
steps of c sequences. Its first token and the whole answer take

    ttft(1) = request_s + prefill_time(1) + extra(1),
    e2e(c) = request_s + prefill_time(c) + (n - 1) · step_time(c) + n · extra(c)

with extra(c) = step_s + c · sequence_s. The differences between the served run and the engine's own steps are the
overheads: an HTTP front end, a hand-over between processes, a detokenizer. Whole answers are compared, since a client
that was held up sees the first token late and the others all at once. Requests of a loop never come in quite at once,
though, and their prompts take more steps than one; so loops that differ in n alone are compared with each other,

    (e2e(c, n') - e2e(c, n)) / (n' - n) = step_time(c) + extra(c),

where whatever happened before the last prompt was in cancels. Loops that were run several times count once, by their
soonest first token and their soonest whole answer: what else a machine does only adds. Two concurrencies are enough;
more are met by least squares, as are several prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

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
    fewest = min(run.concurrency for run in loops)
    alone = [run for run in loops if run.concurrency == fewest]
    first = np.array([run.ttft_s - _prefill(predictor, run) for run in alone])
    extra = np.array([run.tpot_s - _decode(predictor, run) for run in alone])
    request = max(0.0, float(np.median(first - np.maximum(0.0, extra))))
    each: dict[tuple[int, int], list[ServedRun]] = {}
    for run in loops:
        each.setdefault((run.concurrency, run.prompt), []).append(run)
    excess = np.array([_per_step(predictor, runs, request) for runs in each.values()])
    step, sequence = _two(np.array([float(concurrency) for concurrency, _ in each]), excess)
    return {"step": step, "sequence": sequence, "request": request}


def _least_disturbed(runs: Sequence[ServedRun]) -> list[ServedRun]:
    """Each kind of loop once: its soonest first token and its soonest whole answer, of whichever run."""
    kinds: dict[tuple[int, int, int], list[ServedRun]] = {}
    for run in runs:
        kinds.setdefault((run.concurrency, run.prompt, run.output), []).append(run)
    return [_soonest(kinds[kind]) for kind in sorted(kinds)]


def _soonest(runs: Sequence[ServedRun]) -> ServedRun:
    first = min(run.ttft_s for run in runs)
    rest = min(map(_answered, runs)) - first
    return replace(runs[0], ttft_s=first, tpot_s=rest / max(1, runs[0].output - 1))


def _answered(run: ServedRun) -> float:
    return run.ttft_s + run.tpot_s * (run.output - 1)


def _per_step(predictor: Predictor, runs: Sequence[ServedRun], request_s: float) -> float:
    """What every step of a loop took beyond the engine's own time: by two lengths of its answers, or by one."""
    short, long = runs[0], runs[-1]  # by output
    if long.output > short.output:
        between = (_answered(long) - _answered(short)) / (long.output - short.output)
        return between - float(step_time(predictor, decodes=long.concurrency, context=_middle(short, long)))
    steps = _prefill(predictor, long) + (long.output - 1) * _decode(predictor, long)
    return (_answered(long) - request_s - steps) / long.output


def _middle(short: ServedRun, long: ServedRun) -> float:
    """Mean context of the steps that the longer answers have more."""
    return long.prompt + (short.output + long.output) / 2


def _decode(predictor: Predictor, run: ServedRun) -> float:
    return float(step_time(predictor, decodes=run.concurrency, context=run.prompt + run.output / 2))


def _prefill(predictor: Predictor, run: ServedRun) -> float:
    return float(step_time(predictor, chunks=run.concurrency, chunk=run.prompt, prior=0))


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
