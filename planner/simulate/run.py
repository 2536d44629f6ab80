"""Open, closed and static load on replicas of one engine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalog.errors import BadInput
from planner.predict import Steps, tabulate
from planner.queueing.engine import RULES, Engine, EngineRules
from planner.simulate.arrivals import Burst, arrival_times, lengths
from planner.simulate.drive import LEAST_REQUESTS, RANDOM, ROUND_ROBIN, STAMP, run_closed, run_open
from planner.simulate.plain import STAMP as PLAIN_STAMP
from planner.simulate.plain import open_plain, run_plain
from planner.simulate.simulation import Simulation
from planner.simulate.state import (
    BUSY,
    LOWEST,
    PREEMPTIONS,
    STEP,
    Limits,
    open_batches,
    open_ledger,
)  # fmt: skip
from planner.strategies import Router
from planner.workload import Requests, admit

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

ROUTERS: dict[Router, int] = {"round_robin": ROUND_ROBIN, "least_requests": LEAST_REQUESTS, "random": RANDOM}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rig:
    """An engine ready to be simulated many times: its tables tabulated once."""

    engine: Engine
    rules: EngineRules
    steps: Steps
    limits: Limits
    engines: int
    router: Router

    @property
    def blocks(self) -> int:
        """KV blocks of one engine."""
        return self.engine.blocks


def rig(
    engine: Engine,
    *,
    replicas: int = 1,
    router: Router = "least_requests",
    rules: EngineRules = RULES,
    remote: bool = False,
) -> Rig:
    """Tabulate an engine's step times; `remote` engines decode prompts whose KV came over the network."""
    if replicas < 1 or router not in ROUTERS:
        what = f"{replicas!r} replicas behind router {router!r}"
        raise BadInput(what, mend=f"give at least one replica and a router of {', '.join(ROUTERS)}")
    limits = Limits(
        seqs=engine.seqs, budget=engine.max_num_batched_tokens, block=engine.block_size,
        watermark=int(rules.watermark * engine.blocks), reserve=rules.reserve_full_isl, remote=remote,
        ahead=engine.ahead(rules) > 0,
    )  # fmt: skip
    steps = tabulate(
        engine.predictor, max_num_seqs=limits.seqs, max_num_batched_tokens=limits.budget, overlap=rules.overlap
    )
    engines = replicas * engine.predictor.engines
    return Rig(engine=engine, rules=rules, steps=steps, limits=limits, engines=engines, router=router)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Load:
    """Requests as an engine takes them."""

    prompt: Integers
    output: Integers
    cached: Integers
    taken: NDArray[np.bool_]
    """(all requests,) False for those that vLLM refuses."""


def admissible(engine: Engine, prompt: Integers, output: Integers, cached: Integers) -> Load:
    """Apply vLLM's rules on length (`planner.workload.admission`).

    A prefix hit counts whole blocks, and never the last token.
    """
    admission = admit(prompt, output, engine.max_model_len)
    taken = admission.taken
    p, o = prompt[taken].astype(np.int64), admission.output[taken]
    whole = np.minimum(cached[taken], p - 1) // engine.block_size * engine.block_size
    return Load(prompt=p, output=o, cached=whole.astype(np.int64), taken=taken)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """Raw outcome of one pool of engines: times of the requests taken, counters over the engines."""

    sent_s: Floats
    admitted_s: Floats
    first_s: Floats
    finish_s: Floats
    arrival_s: Floats
    engine: Integers
    busy_s: float
    iterations: int
    preemptions: int
    lowest: int
    itl_counts: Floats


def run(rig: Rig, load: Load, arrival: Floats, *, concurrency: int = 0, seed: int = 0, plain: bool = False) -> Run:  # noqa: PLR0913 - keywords
    """Serve a load; with `concurrency`, `arrival` is filled by the clients' turns."""
    n, predictor, router = len(load.prompt), rig.engine.predictor, ROUTERS[rig.router]
    draws = np.random.default_rng([seed, 4]).integers(0, rig.engines, n if rig.router == "random" else 0)
    sent, answer = np.full(n, np.nan), (predictor.request_s, predictor.output_token_s)
    if plain:
        s = open_plain(arrival, load.prompt, load.output, load.cached, rig.engines, rig.blocks, rig.limits.seqs)
        run_plain(PLAIN_STAMP, s, rig.steps, rig.limits, router, draws, concurrency, *answer, sent)
        return Run(
            sent_s=sent if concurrency else arrival, admitted_s=s.admitted_s, first_s=s.first_s, finish_s=s.finish_s,
            arrival_s=s.arrival, engine=s.engine, busy_s=float(s.busy.sum()), iterations=int(s.iterations.sum()),
            preemptions=int(s.preemptions.sum()), lowest=int(s.lowest.min()), itl_counts=s.histogram,
        )  # fmt: skip
    ledger = open_ledger(arrival, load.prompt, load.output, load.cached)
    batch = open_batches(rig.engines, rig.blocks, rig.limits)
    if concurrency:
        free = np.zeros(concurrency + 1)
        run_closed(STAMP, rig.steps, rig.limits, ledger, batch, router, draws, concurrency, *answer, sent, free)
    else:
        run_open(STAMP, rig.steps, rig.limits, ledger, batch, router, draws)
    return Run(
        sent_s=sent if concurrency else arrival, admitted_s=ledger.admitted_s, first_s=ledger.first_s,
        finish_s=ledger.finish_s, arrival_s=ledger.arrival, engine=ledger.engine, busy_s=float(batch.real[:,
        BUSY].sum()), iterations=int(batch.whole[:, STEP].sum()), preemptions=int(batch.whole[:, PREEMPTIONS].sum()),
        lowest=int(batch.whole[:, LOWEST].min()), itl_counts=batch.histogram,
    )  # fmt: skip


def report(rig: Rig, load: Load, outcome: Run, *, sent_all: Floats, door_s: float, warmup: int) -> Simulation:  # noqa: PLR0913 - keywords
    """Turn engine times into what clients see.

    TTFT adds `request_s` before the engine's door; each further token adds `output_token_s`.
    """
    n, token_s = len(load.taken), rig.engine.predictor.output_token_s
    further = load.output - 1

    def spread(values: Floats) -> Floats:
        full = np.full(n, np.nan)
        full[load.taken] = values
        return full

    ttft = outcome.first_s - outcome.arrival_s + door_s
    decode = outcome.finish_s - outcome.first_s + token_s * further
    tpot = np.where(further > 0, decode / np.maximum(further, 1), np.nan)
    answered = outcome.sent_s + ttft + decode
    output, engine = np.zeros(n, np.int64), np.full(n, -1, np.int64)
    prompt = np.zeros(n, np.int64)
    prompt[load.taken], output[load.taken], engine[load.taken] = load.prompt, load.output, outcome.engine
    return Simulation(
        sent_s=sent_all, ttft_s=spread(ttft), tpot_s=spread(tpot), e2e_s=spread(ttft + decode),
        queue_s=spread(outcome.admitted_s - outcome.arrival_s), prompt=prompt, output=output, engine=engine,
        refused=int(np.count_nonzero(~load.taken)),
        makespan_s=float(answered.max() - sent_all.min()) if len(answered) else 0.0,
        busy_s=outcome.busy_s, engines=rig.engines, iterations=outcome.iterations, preemptions=outcome.preemptions,
        kv_peak=1.0 - outcome.lowest / rig.blocks, itl_counts=outcome.itl_counts, warmup=warmup,
    )  # fmt: skip


def simulate(  # noqa: PLR0913 - keywords
    engine: Engine,
    requests: Requests,
    *,
    rate: float | None = None,
    replicas: int = 1,
    router: Router = "least_requests",
    n: int | None = None,
    seed: int = 0,
    rules: EngineRules = RULES,
    burst: Burst | None = None,
    plain: bool = False,
) -> Simulation:
    """Serve an open stream of requests.

    Args:
        engine: one engine; each replica runs `predictor.engines` of them, each a server behind the router.
        requests: lengths, and measured arrivals (replayed, in order) or their law.
        rate: requests per second to all replicas; by default the workload's own.
        replicas: of the configuration.
        router: `round_robin`, `least_requests` (ties go round) or `random` (seeded).
        n: requests to serve; by default the trace's, else as many as the sample has.
        seed: of gaps, lengths and the random router; equal seeds see equal traffic at every rate.
        rules: of the vLLM version.
        burst: arrivals by a two-state MMPP instead of `requests.arrival_cv`.
        plain: carry out every iteration (slow, the same answer).

    Raises:
        BadInput: arrivals or lengths that are empty, unsorted, negative or no numbers, by row.
    """
    prepared = rig(engine, replicas=replicas, router=router, rules=rules)
    return simulate_rig(prepared, requests, rate=rate, n=n, seed=seed, burst=burst, plain=plain)


def simulate_rig(  # noqa: PLR0913 - keywords
    rig: Rig, requests: Requests, *, rate: float | None = None, n: int | None = None, seed: int = 0, burst: Burst |
    None = None, plain: bool = False,
) -> Simulation:  # fmt: skip
    """`simulate` with an engine that was made ready once, for many rates."""
    count = len(requests.prompt) if n is None else n
    sent = arrival_times(requests, count, rate=rate, seed=seed, burst=burst)
    load = admissible(rig.engine, *lengths(requests, len(sent), seed=seed))
    outcome = run(rig, load, sent[load.taken], seed=seed, plain=plain)
    # a replay has no warm-up: its quiet start is as measured
    warmup = 0 if requests.arrival_s is not None else len(sent) // 10
    return report(rig, load, outcome, sent_all=sent, door_s=rig.engine.predictor.request_s, warmup=warmup)


def simulate_closed(  # noqa: PLR0913 - keywords
    engine: Engine,
    requests: Requests,
    *,
    concurrency: int,
    num_prompts: int | None = None,
    replicas: int = 1,
    router: Router = "least_requests",
    seed: int = 0,
    rules: EngineRules = RULES,
    plain: bool = False,
) -> Simulation:
    """Serve `concurrency` clients, each sending its next request when the last one is answered.

    As `vllm bench serve --max-concurrency C --request-rate inf` does: a burst of C at the start, 10·C prompts by
    default, latencies from the moment of sending, and figures over all requests, filling and draining included.
    """
    if concurrency < 1 or (num_prompts is not None and num_prompts < 1):
        what = f"concurrency {concurrency!r} with {num_prompts!r} prompts"
        raise BadInput(what, mend="give at least 1 of each")
    prepared = rig(engine, replicas=replicas, router=router, rules=rules)
    load = admissible(engine, *lengths(requests, num_prompts or 10 * concurrency, seed=seed))
    outcome = run(prepared, load, np.full(len(load.prompt), np.nan), concurrency=concurrency, seed=seed, plain=plain)
    sent = np.full(len(load.taken), np.nan)
    sent[load.taken] = outcome.sent_s
    sent[~load.taken] = 0.0
    return report(prepared, load, outcome, sent_all=sent, door_s=engine.predictor.request_s, warmup=0)


def simulate_static(  # noqa: PLR0913 - keywords
    engine: Engine,
    *,
    batch: int,
    prompt: int,
    output: int,
    rules: EngineRules = RULES,
    plain: bool = False,
    cached: int = 0,
) -> Simulation:
    """Serve one batch of equal requests that are there at the start, timed as a whole."""
    ones = np.ones(batch, np.int64)
    requests = Requests(
        rate=1.0,
        prompt=prompt * ones,
        output=output * ones,
        cached=cached * ones,
        arrival_cv=0.0,
        arrival_s=np.zeros(batch),
    )
    return simulate(engine, requests, rate=1.0, rules=rules, plain=plain, router="round_robin")


__all__ = [
    "simulate",
    "simulate_closed",
    "simulate_static",
]
