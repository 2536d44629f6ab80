"""Prefill and decode on separate engines, joined by KV transfer.

As with vLLM's connectors behind a router: the prefill engine computes the prompt and one token, which is dropped; its
replica's link moves the prompt's KV, one prompt after another; the decode engine needs blocks for the whole prompt
before it admits the request, computes the last prompt token again and emits the first token of the answer. TTFT is
the client's: prefill, link and decode side together. A request preempted on the decode side is recomputed there. The
blocks that a prompt holds on the prefill side until it is moved are not counted against later prompts.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from catalog.errors import BadInput
from planner.queueing.engine import RULES, Engine, EngineRules
from planner.queueing.queue import Transfer
from planner.simulate.arrivals import Burst, arrival_times, lengths
from planner.simulate.run import Load, Rig, Run, admissible, rig, run
from planner.simulate.simulation import Simulation
from planner.strategies import Router
from planner.workload import Requests, admit

Floats = NDArray[np.float64]

PASSES = 40
"""Passes over a closed loop beyond one per turn of its clients."""
SETTLED_S = 1e-9


def simulate_disaggregated(  # noqa: PLR0913 - keywords
    prefill: Engine,
    decode: Engine,
    requests: Requests,
    *,
    transfer: Transfer,
    rate: float | None = None,
    replicas: tuple[int, int] = (1, 1),
    router: Router = "least_requests",
    n: int | None = None,
    seed: int = 0,
    rules: EngineRules = RULES,
    burst: Burst | None = None,
    plain: bool = False,
) -> Simulation:
    """Serve an open stream on `replicas` = (x, y) of xPyD; arguments otherwise as `simulate`'s."""
    sides = rigs(prefill, decode, replicas=replicas, router=router, rules=rules)
    return simulate_pair(*sides, requests, transfer=transfer, rate=rate, n=n, seed=seed, burst=burst, plain=plain)


def simulate_closed_disaggregated(  # noqa: PLR0913 - keywords
    prefill: Engine,
    decode: Engine,
    requests: Requests,
    *,
    transfer: Transfer,
    concurrency: int,
    num_prompts: int,
    replicas: tuple[int, int] = (1, 1),
    router: Router = "least_requests",
    seed: int = 0,
    rules: EngineRules = RULES,
) -> Simulation:
    """Serve `concurrency` clients on xPyD, each sending its next request when the last one is answered.

    A client sends at the end of an earlier answer, so the open stream of the right sending times is the closed loop.
    They are found by waveform relaxation: what is sent depends on earlier answers alone, so every pass settles at
    least the next turn of the clients, and the last pass changes nothing.

    Raises:
        BadInput: fewer than one client or prompt.
    """
    if concurrency < 1 or num_prompts < 1:
        what = f"concurrency {concurrency!r} with {num_prompts!r} prompts"
        raise BadInput(what, mend="give at least 1 of each")
    sides = rigs(prefill, decode, replicas=replicas, router=router, rules=rules)
    prompt, output, cached = lengths(requests, num_prompts, seed=seed)
    sent = np.zeros(num_prompts)
    for _ in range(num_prompts // concurrency + PASSES):
        stream = replace(requests, prompt=prompt, output=output, cached=cached, arrival_s=sent)
        found = simulate_pair(*sides, stream, transfer=transfer, seed=seed)
        following = _turns(found, concurrency)
        if np.allclose(following, sent, rtol=0.0, atol=SETTLED_S):
            break
        sent = following
    return found


def _turns(found: Simulation, concurrency: int) -> Floats:
    """When each request of a closed loop is sent: the first ones at once, each further one at the next answer."""
    answered = np.sort(found.sent_s + np.nan_to_num(found.e2e_s))  # a refused request is answered at once
    return np.concatenate([np.zeros(concurrency), answered])[: len(answered)]


def rigs(
    prefill: Engine, decode: Engine, *, replicas: tuple[int, int], router: Router, rules: EngineRules
) -> tuple[Rig, Rig]:
    """Both sides, ready to be simulated many times."""
    return (
        rig(prefill, replicas=replicas[0], router=router, rules=rules),
        rig(decode, replicas=replicas[1], router=router, rules=rules, remote=True),
    )


def simulate_pair(  # noqa: PLR0913 - keywords
    prefill: Rig, decode: Rig, requests: Requests, *, transfer: Transfer, rate: float | None = None, n: int | None =
    None, seed: int = 0, burst: Burst | None = None, plain: bool = False,
) -> Simulation:  # fmt: skip
    """`simulate_disaggregated` with sides that were made ready once."""
    count = len(requests.prompt) if n is None else n
    sent = arrival_times(requests, count, rate=rate, seed=seed, burst=burst)
    prompt, output, cached = lengths(requests, len(sent), seed=seed)
    first_engine, second_engine = prefill.engine, decode.engine
    admission = admit(prompt, output, second_engine.max_model_len)
    taken = admission.taken & (prompt < first_engine.max_model_len)
    at_prefill = admissible(first_engine, prompt[taken], np.ones(int(taken.sum()), np.int64), cached[taken])
    first = run(prefill, at_prefill, sent[taken], seed=seed, plain=plain)
    per_replica = first_engine.predictor.engines
    moved = transfer_times(first.finish_s, first.engine // per_replica, at_prefill.prompt, transfer)
    order = np.argsort(moved, kind="stable")
    asked = admission.output[taken]
    at_decode = Load(
        prompt=at_prefill.prompt[order], output=asked[order], cached=at_prefill.prompt[order] - 1, taken=taken
    )
    second = run(decode, at_decode, moved[order], seed=seed + 1, plain=plain)
    return _report(
        prefill, decode, first, second, order, sent, taken, asked, 0 if requests.arrival_s is not None else count // 10
    )


def transfer_times(
    ready_s: Floats, replica: NDArray[np.int64], prompt: NDArray[np.int64], transfer: Transfer
) -> Floats:
    """When each prompt's KV has arrived: a prefill replica's link moves one prompt at a time, in order of readiness."""
    seconds = transfer.latency_s + prompt * (transfer.kv_bytes_per_token / transfer.bandwidth)
    arrived = np.empty(len(ready_s))
    for each in np.unique(replica):
        rows = np.flatnonzero(replica == each)
        rows = rows[np.argsort(ready_s[rows], kind="stable")]
        # end_k = max(ready_k, end_{k-1}) + s_k  =>  end_k = S_k + max_{i<=k} (ready_i - S_{i-1}),  S = cumulative s
        done = np.cumsum(seconds[rows])
        arrived[rows] = done + np.maximum.accumulate(ready_s[rows] - (done - seconds[rows]))
    return arrived


def _report(  # noqa: PLR0913, PLR0917 - one call site gathers them
    prefill: Rig, decode: Rig, first: Run, second: Run, order: NDArray[np.int64], sent: Floats, taken:
    NDArray[np.bool_], output: NDArray[np.int64], warmup: int,
) -> Simulation:  # fmt: skip
    """Join both sides, by request."""
    n, rows = len(sent), np.flatnonzero(taken)
    token_s, door_s = decode.engine.predictor.output_token_s, prefill.engine.predictor.request_s
    begun, ended, served = np.empty(len(rows)), np.empty(len(rows)), np.empty(len(rows), np.int64)
    begun[order], ended[order], served[order] = second.first_s, second.finish_s, second.engine
    arrived, entered = np.empty(len(rows)), np.empty(len(rows))
    arrived[order], entered[order] = second.arrival_s, second.admitted_s
    further = output - 1
    ttft = begun - sent[taken] + door_s
    after = ended - begun + token_s * further
    tpot = np.where(further > 0, after / np.maximum(further, 1), np.nan)

    def spread(values: Floats) -> Floats:
        full = np.full(n, np.nan)
        full[rows] = values
        return full

    outputs, engine, prompts = np.zeros(n, np.int64), np.full(n, -1, np.int64), np.zeros(n, np.int64)
    outputs[rows], engine[rows] = output, served
    queued = first.admitted_s - first.arrival_s + entered - arrived
    return Simulation(
        sent_s=sent, ttft_s=spread(ttft), tpot_s=spread(tpot), e2e_s=spread(ttft + after), queue_s=spread(queued),
        prompt=prompts, output=outputs, engine=engine, refused=n - len(rows),
        makespan_s=float((sent[taken] + ttft + after).max() - sent.min()) if len(rows) else 0.0,
        busy_s=first.busy_s + second.busy_s, engines=prefill.engines + decode.engines,
        iterations=first.iterations + second.iterations, preemptions=first.preemptions + second.preemptions,
        kv_peak=max(1.0 - first.lowest / prefill.blocks, 1.0 - second.lowest / decode.blocks),
        itl_counts=second.itl_counts, warmup=warmup,
    )  # fmt: skip
