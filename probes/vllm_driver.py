"""Runs inside a vLLM environment: time engine steps of dummy-weight models, one JSON line per point.

This file imports nothing of ours: it is handed by path to the interpreter of an environment that holds vLLM alone. It
imports vLLM, then reads one JSON object from standard input,

    {"engines": [{EngineArgs...}, ...], "together": true, "clock": "wall", "steps": 6, "prefills": 3, "seed": 0,
     "budget_s": 20,
     "work": [{"engine": 0, "kind": "block_decode", "x": 8, "y": 256, "round": 0}, ...]}

and prints for each piece of work a line when it begins and a line when it is measured, so that one that hangs or runs
out of memory costs itself alone. Engines run in this process (VLLM_ENABLE_V1_MULTIPROCESSING=0), so a call of
`LLMEngine.step` is one scheduler step: schedule, forward, sample, update. With `together` all engines stay up and the
work may alternate between them, so that what disturbs the machine disturbs all of them. The `cpu` clock counts what
this process computed and leaves out the time in which other programs held its core: right where one thread does all.
"""

from __future__ import annotations

import gc
import json
import random
import statistics
import sys
import time

WARM_STEPS = 2
FIRST_TOKEN_ID = 3  # ids below are special in the tokenizers that probes make


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def main() -> None:
    """Read the request, start the engines, measure piece by piece."""
    import vllm  # noqa: PLC0415 - takes seconds, while the planner prepares

    request = json.load(sys.stdin)
    begun, running = time.perf_counter(), {}
    dice = random.Random(request["seed"])  # noqa: S311 - token ids, no secret
    _say({"vllm": vllm.__version__})
    for work in request["work"]:
        if work["round"] > 0 and time.perf_counter() - begun > request["budget_s"]:
            continue
        if work["engine"] not in running:
            if not request["together"]:
                _stop_all(running)
            running[work["engine"]] = _started(request["engines"][work["engine"]], work["engine"], dice)
        _say({"begun": work})
        _say(work | _measured(running[work["engine"]], work, request, dice))


def _started(arguments: dict, index: int, dice: random.Random):  # noqa: ANN202 - vLLM's types are not importable here
    from vllm import LLM  # noqa: PLC0415 - as above

    begun = time.perf_counter()
    engine = LLM(**arguments).llm_engine
    _decode_times(engine, batch=2, context=16, steps=4, dice=dice)
    cache = engine.vllm_config.cache_config
    _say({"ready": index, "ready_s": time.perf_counter() - begun, "num_gpu_blocks": cache.num_gpu_blocks,
          "block_size": cache.block_size})  # fmt: skip
    return engine


def _stop_all(running: dict) -> None:
    """Stop engines and give their memory back, so that the next one finds the device empty."""
    from vllm.distributed import cleanup_dist_env_and_memory  # noqa: PLC0415 - as above

    if not running:
        return
    for engine in running.values():
        engine.engine_core.shutdown()
    running.clear()
    gc.collect()
    cleanup_dist_env_and_memory()


def _measured(engine, work: dict, request: dict, dice: random.Random) -> dict:  # noqa: ANN001
    clock = CLOCKS[request["clock"]]
    try:
        if work["kind"] == "block_decode":
            shape = {"batch": work["x"], "context": work["y"], "steps": request["steps"]}
            times = _decode_times(engine, **shape, dice=dice, clock=clock)
        else:
            times = [_prefill_time(engine, work["x"], dice=dice, clock=clock) for _ in range(request["prefills"])]
    except (RuntimeError, ValueError, MemoryError) as error:
        return {"failure": f"{type(error).__name__}: {error}"[:500]}
    return {"time_s": statistics.median(times), "least_s": min(times), "n": len(times)}


def _decode_times(  # noqa: PLR0913 - keywords
    engine,  # noqa: ANN001
    *,
    batch: int,
    context: int,
    steps: int,
    dice: random.Random,
    clock=time.perf_counter,  # noqa: ANN001
) -> list[float]:
    """Seconds of steps in which `batch` sequences of about `context` tokens decode one token each."""
    last = max(1, context - (WARM_STEPS + steps) // 2)
    for _ in range(batch):
        _add(engine, _prompt(engine, dice, last), WARM_STEPS + steps + 2)
    while _unprefilled(engine):
        engine.step()
    times = []
    for step in range(WARM_STEPS + steps):
        begun = clock()
        engine.step()
        if step >= WARM_STEPS:
            times.append(clock() - begun)
    _drain(engine)
    return times


def _prefill_time(engine, tokens: int, *, dice: random.Random, clock) -> float:  # noqa: ANN001
    """Seconds of the one step that prefills a prompt of `tokens` and samples its first token."""
    _add(engine, _prompt(engine, dice, tokens), 1)
    begun = clock()
    engine.step()
    elapsed = clock() - begun
    _drain(engine)
    return elapsed


def _unprefilled(engine) -> bool:  # noqa: ANN001
    scheduler = engine.engine_core.engine_core.scheduler
    return bool(scheduler.waiting) or any(
        request.num_computed_tokens < request.num_prompt_tokens for request in scheduler.running
    )


def _drain(engine) -> None:  # noqa: ANN001
    while engine.has_unfinished_requests():
        engine.step()


_count = iter(range(10**9))


def _add(engine, token_ids: list[int], output: int) -> None:  # noqa: ANN001
    from vllm import SamplingParams  # noqa: PLC0415
    from vllm.inputs import TokensPrompt  # noqa: PLC0415

    parameters = SamplingParams(max_tokens=output, ignore_eos=True, temperature=0.0, detokenize=False)
    engine.add_request(f"probe-{next(_count)}", TokensPrompt(prompt_token_ids=token_ids), parameters)


def _prompt(engine, dice: random.Random, tokens: int) -> list[int]:  # noqa: ANN001
    vocabulary = engine.model_config.get_vocab_size()
    return [dice.randrange(FIRST_TOKEN_ID, vocabulary) for _ in range(tokens)]


def _say(record: dict) -> None:
    print(json.dumps(record), flush=True)  # noqa: T201 - standard output is the interface


if __name__ == "__main__":
    main()
