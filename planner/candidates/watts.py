"""Watts of a candidate: what its engines do per second, by Little's law, put to the roofs of their GPUs.

An engine that λ requests/s visit for a time o·TPOT each holds n = λ·o·TPOT of them; it runs a step unless nobody is
there, with probability 1 - exp(-n) for a Poisson number, and a step lasts a TPOT.
"""

from __future__ import annotations

import math

from planner.candidates.options import Option, Question
from planner.candidates.pairs import Pair
from planner.power import Load, power, utilisation
from planner.strategies import Estimate
from planner.workload import Requests


def of_replicas(question: Question, option: Option, estimate: Estimate, *, rate: float, replicas: int) -> float | None:
    """Watts per GPU of collocated replicas that share a rate; None without constants or where it is not stable."""
    each = rate / (replicas * option.configuration.engines)
    return _watts(question, option, _serving(question.requests, each, estimate.tpot.mean))


def of_pair(
    question: Question, pair: Pair, estimate: Estimate, *, rate: float, counts: tuple[int, ...]
) -> float | None:
    """Watts per GPU of both sides together, by their GPUs."""
    requests = question.requests
    per_engine = [
        rate / (n * side.configuration.engines) for n, side in zip(counts, (pair.prefill, pair.decode), strict=True)
    ]
    capacity = question.judge.sides((pair.prefill.engine, pair.decode.engine), requests, pair.transfer)[0]
    prompts = _prompts(requests, per_engine[0], duty=min(1.0, rate / (counts[0] * max(capacity, 1e-9))))
    tokens = _serving(requests, per_engine[1], estimate.tpot.mean, computes_prompts=False)
    watts = [_watts(question, pair.prefill, prompts), _watts(question, pair.decode, tokens)]
    if watts[0] is None or watts[1] is None:
        return None
    gpus = [n * side.configuration.gpus for n, side in zip(counts, (pair.prefill, pair.decode), strict=True)]
    return (watts[0] * gpus[0] + watts[1] * gpus[1]) / sum(gpus)


def _serving(requests: Requests, rate: float, tpot_s: float, *, computes_prompts: bool = True) -> Load | None:
    if not (math.isfinite(tpot_s) and tpot_s > 0):
        return None
    output = float(requests.output.mean())
    present = rate * max(output - 1, 0.0) * tpot_s
    duty = 1.0 - math.exp(-present)
    prompt = _new_tokens(requests) if computes_prompts else 1.0
    return Load(
        steps_per_s=duty / tpot_s,
        sequences=present / max(duty, 1e-9),
        context=float((requests.prompt * requests.output).mean()) / output + output / 2,
        prompt_tokens_per_s=rate * prompt,
        prompt=prompt,
        duty=duty,
    )


def _prompts(requests: Requests, rate: float, *, duty: float) -> Load:
    prompt = _new_tokens(requests)
    return Load(
        steps_per_s=rate, sequences=0.0, context=0.0, prompt_tokens_per_s=rate * prompt, prompt=prompt, duty=duty
    )


def _new_tokens(requests: Requests) -> float:
    return float((requests.prompt - requests.cached).mean())


def _watts(question: Question, option: Option, load: Load | None) -> float | None:
    constants, gpu = question.watts, option.place.gpu
    if constants is None or load is None:
        return None
    used = utilisation(question.wish.model, option.configuration, gpu, load=load)
    return power(gpu, used, constants=constants).watts
