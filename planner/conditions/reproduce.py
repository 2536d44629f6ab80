"""Reproduce a benchmark run: its load on a simulated engine, at the middle and at both ends of the interval.

closed loop    C clients, the first C at once, 10 C prompts; throughput by Little's law, C x E[output] / E[e2e]
static batch   C equal requests at once, timed as a whole
disaggregated  the same clients on prefill and decode replicas apart
saturated      max_num_seqs clients and lengths of a spread, without the filling and the draining
poisson        an open stream; rate_inf: all prompts at once
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from catalog.errors import BadInput
from catalog.power import PowerConstants
from catalog.predictors import Floats, Predictor
from planner.conditions import metrics
from planner.conditions.condition import Condition
from planner.memory import Memory
from planner.power import Load, power, utilisation
from planner.queueing.engine import Engine, rules_for
from planner.queueing.queue import Transfer
from planner.simulate import (
    Simulation,
    simulate,
    simulate_closed,
    simulate_closed_disaggregated,
    simulate_static,
)
from planner.workload import Requests

NOISE = 0.03
"""Least relative half-width of an interval: repeated runs of vLLM differ by 0.4 % (TPOT) and 2.8 % (TTFT), median."""
PROMPTS_PER_CLIENT = 10  # as the published runs send
DEFAULT_PROMPTS = 1000  # vllm bench serve --num-prompts
NEWEST = "999.0"  # a version that has every rule
LONGEST_RUN = 60_000  # requests; beyond it a run is cut, since its figures no longer move


def reproduce(
    condition: Condition,
    *,
    predictor: Predictor,
    memory: Memory,
    constants: PowerConstants | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """Metrics of the run, each with its `_lo` and `_hi` (90 %). Raises BadInput for a load that cannot be simulated."""
    middle = _run(condition, predictor, memory, constants, seed)
    ends = tuple(_run(condition, end, memory, None, seed) for end in (predictor.optimistic, predictor.pessimistic))
    found = metrics.bounded(middle, ends, floor=NOISE, ttft=predictor.ttft_ends)
    if constants is not None and "power_w" in middle:
        found |= _power_bounds(condition, middle, ends, constants)
    return found


def engine_of(condition: Condition, predictor: Predictor, memory: Memory) -> Engine:
    """The engine as the simulator takes it; windows count as they do at the condition's mean length."""
    configuration = condition.configuration
    held = memory.tokens_at(max(1, round(condition.isl + condition.osl / 2)))
    return Engine(
        predictor=predictor,
        kv_tokens=max(held, math.ceil(configuration.max_model_len / memory.block_size) * memory.block_size),
        block_size=memory.block_size,
        max_num_seqs=configuration.max_num_seqs,
        max_num_batched_tokens=configuration.max_num_batched_tokens,
        max_model_len=configuration.max_model_len,
        schedules_ahead=configuration.schedules_ahead,
        kv_bytes_per_token=float(memory.kv_bytes_per_token * configuration.tp * configuration.pp),
    )


def requests_of(condition: Condition, count: int, *, seed: int) -> Requests:
    """Lengths of the run: equal, uniform over the range, or of the task's spread (lognormal, the mean kept)."""
    rng = np.random.default_rng([seed, 7])
    prompt = _lengths(condition.isl, condition.low, condition.prompt_cv, count, rng)
    output = _lengths(condition.osl, condition.low, condition.output_cv, count, rng)
    whole = [np.maximum(1, np.rint(lengths)).astype(np.int64) for lengths in (prompt, output)]
    cached = np.minimum(whole[0] - 1, np.floor(condition.cached * whole[0])).astype(np.int64)
    return Requests(
        rate=condition.rate or 1.0, prompt=whole[0], output=whole[1], cached=cached, arrival_cv=1.0,
        arrival_s=np.zeros(count) if condition.kind == "rate_inf" else None,
    )  # fmt: skip


def _lengths(length: float, low: float, cv: float, count: int, rng: np.random.Generator) -> Floats:
    """`count` lengths: uniform from low x length to length, or lognormal around it, or all equal."""
    if cv > 0:
        sigma = math.sqrt(math.log1p(cv**2))
        return length * np.exp(sigma * rng.standard_normal(count) - sigma**2 / 2)
    return length * (low + (1.0 - low) * rng.random(count)) if low < 1.0 else np.full(count, length)


def _simulated(condition: Condition, engine: Engine, *, seed: int) -> Simulation:
    rules = rules_for(condition.vllm_version or NEWEST)
    clients = condition.clients * (engine.predictor.engines if condition.kind == "saturated" else 1)
    match condition.kind:
        case "closed_loop" | "saturated" | "multiturn":
            prompts = min(PROMPTS_PER_CLIENT * clients, max(LONGEST_RUN, 2 * clients))
            requests = requests_of(condition, prompts, seed=seed)
            return simulate_closed(engine, requests, concurrency=clients, num_prompts=prompts, seed=seed, rules=rules)
        case "static_batch":
            prompt, output = round(condition.isl), round(condition.osl)
            return simulate_static(engine, batch=clients, prompt=prompt, output=output, rules=rules)
        case "poisson":
            # The run must span many services, else its figures are those of an empty engine.
            prompts = min(LONGEST_RUN, max(DEFAULT_PROMPTS, round(condition.rate * 300)))
            requests = requests_of(condition, prompts, seed=seed)
            return simulate(engine, requests, rate=condition.rate, n=prompts, seed=seed, rules=rules)
        case "rate_inf":
            prompts = clients or DEFAULT_PROMPTS
            return simulate(engine, requests_of(condition, prompts, seed=seed), rate=1.0, seed=seed, rules=rules)
        case "disaggregated":
            return _apart(condition, engine, clients, seed=seed)


def _apart(condition: Condition, engine: Engine, clients: int, *, seed: int) -> Simulation:
    """A closed loop on prefill and decode replicas of one shape, KV over what joins them."""
    prompts = min(PROMPTS_PER_CLIENT * clients, max(LONGEST_RUN, 2 * clients))
    link = Transfer(
        bandwidth=condition.configuration.gpus * condition.link[0], latency_s=condition.link[1],
        kv_bytes_per_token=engine.kv_bytes_per_token or 0.0,
    )  # fmt: skip
    return simulate_closed_disaggregated(
        engine, engine, requests_of(condition, prompts, seed=seed), transfer=link, concurrency=clients,
        num_prompts=prompts, replicas=condition.sides, seed=seed, rules=rules_for(condition.vllm_version or NEWEST),
    )  # fmt: skip


def _run(
    condition: Condition, predictor: Predictor, memory: Memory, constants: PowerConstants | None, seed: int
) -> dict[str, float]:
    engine = engine_of(condition, predictor, memory)
    result = _simulated(condition, engine, seed=seed)
    served = np.isfinite(result.e2e_s)
    if not served.any():
        raise BadInput("every request is refused: prompts do not fit max_model_len", place="isl")
    # A saturated run is measured in its steady part: neither the first nor the last client's worth of requests.
    if condition.kind == "saturated":
        edge = condition.clients * predictor.engines
        served &= (np.arange(served.size) >= edge) & (np.arange(served.size) < served.size - edge)
    found = metrics.spread("ttft_ms", result.ttft_s[served])
    found |= metrics.spread("tpot_ms", result.tpot_s[served & np.isfinite(result.tpot_s)])
    found |= _between_tokens(result, served)
    found |= _throughput(condition, result, served, predictor)
    found["e2e_s"] = float(np.median(result.e2e_s[served]))
    if condition.kind in ("static_batch", "rate_inf"):
        found["batch_latency_s"] = result.makespan_s
    if constants is not None and condition.kind != "disaggregated":  # sides draw unequal power: none is stated
        found |= _power(condition, result, constants, found["out_tps"])
    if condition.statistic == "mean":  # what the source calls its TTFT, TPOT and ITL
        found |= {name.removeprefix("mean_"): found[name] for name in found if name.startswith("mean_")}
    return found


def _between_tokens(result: Simulation, served: NDArray[np.bool_]) -> dict[str, float]:
    p50, p90, p99 = (1e3 * value for value in result.itl(0.5, 0.9, 0.99))
    further = float((result.output[served] - 1).sum())
    if further <= 0 or not math.isfinite(p50):
        return {}
    mean = 1e3 * float((result.e2e_s[served] - result.ttft_s[served]).sum()) / further
    return {"itl_ms": p50, "p90_itl_ms": p90, "p99_itl_ms": p99, "mean_itl_ms": mean}


def _throughput(
    condition: Condition, result: Simulation, served: NDArray[np.bool_], predictor: Predictor
) -> dict[str, float]:
    """Tokens per second: of clients by Little's law (no filling, no draining), else over the whole run."""
    output, prompt = float(result.output[served].mean()), float(result.prompt[served].mean())
    if condition.kind in ("closed_loop", "saturated", "multiturn", "disaggregated"):
        clients = condition.clients * (predictor.engines if condition.kind == "saturated" else 1)
        requests_per_s = clients / float(result.e2e_s[served].mean())
    else:
        requests_per_s = float(served.sum()) / result.makespan_s
    return metrics.throughput(requests_per_s * output, requests_per_s * (output + prompt), condition.counted_gpus)


def _power(condition: Condition, result: Simulation, constants: PowerConstants, output_tps: float) -> dict[str, float]:
    found = power(condition.gpu, utilisation(condition.model, condition.configuration, condition.gpu,
                                             load=_load(result)), constants=constants)  # fmt: skip
    return {"power_w": found.watts, "j_per_tok": found.joules_per_token(condition.configuration.gpus, output_tps)}


def _load(result: Simulation) -> Load:
    """What each engine did, averaged over the run."""
    served = np.isfinite(result.e2e_s)
    output, prompt = result.output[served].astype(float), result.prompt[served].astype(float)
    engine_s = result.engines * result.makespan_s
    return Load(
        steps_per_s=result.iterations / engine_s,
        sequences=float(output.sum()) / max(1, result.iterations),
        context=float((output * (prompt + output / 2)).sum() / output.sum()),
        prompt_tokens_per_s=float(prompt.sum()) / engine_s,
        prompt=float(prompt.mean()),
        duty=result.utilisation,
    )


def _power_bounds(
    condition: Condition, middle: dict[str, float], ends: tuple[dict[str, float], ...], constants: PowerConstants
) -> dict[str, float]:
    """Intervals of watts (the model's own error) and of energy (that, and the throughput's)."""
    error = constants.error if condition.gpu.name == constants.fitted_on else constants.error_elsewhere
    watts, joules = middle["power_w"], middle["j_per_tok"]
    low, high = max(0.0, 1.0 - error), 1.0 + error
    speeds = [end["out_tps"] / middle["out_tps"] for end in ends]
    return {
        "power_w_lo": watts * low, "power_w_hi": min(watts * high, condition.gpu.power),
        "j_per_tok_lo": joules * low / max(speeds), "j_per_tok_hi": joules * high / min(speeds),
    }  # fmt: skip
