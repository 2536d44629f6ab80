"""The event-jumping scheduler: one engine of vLLM V1 (FCFS), advanced from event to event.

An iteration with an event (admission, prompt chunk, preemption) is carried out. A stretch of iterations of the same n
decoding requests is summed in closed form: each adds one token to each request, so the mean context grows by exactly 1
per iteration, and since `decode_s` is linear in it between grid points,

    time of J iterations = J·T0 + g·J(J-1)/2,   g = slope of decode_s in the mean context,

up to the next finish, arrival that could be admitted, grid point, or shortage of KV blocks. Blocks are counted
exactly: a request takes a new one when the tokens it holds are a multiple of the block size, and `residue` counts
requests by that phase. `planner.simulate.plain` does the same one iteration at a time and agrees event for event.
"""

from __future__ import annotations

import math

from planner.predict import Steps, across, kernel
from planner.simulate.state import (
    BUSY,
    CLOCK,
    COMPUTED,
    CONTEXT,
    DECODES,
    FREE,
    HEAD,
    HEAP,
    JUST,
    LAST,
    LOWEST,
    OUTSTANDING,
    PART,
    PREEMPTIONS,
    SEEN,
    STEP,
    TAIL,
    Batch,
    Ledger,
    Limits,
    count_gap,
    dequeue,
    next_finish,
    pop_finish,
    push_finish,
    unlink,
)  # fmt: skip


@kernel
def blocks_of(tokens: int, block: int) -> int:
    """KV blocks that hold `tokens` tokens."""
    return (tokens + block - 1) // block


@kernel
def decode_at(steps: Steps, n: int, context: float) -> float:
    """Attention of `n` rows of one token at a mean context, seconds."""
    j, grid = 0, steps.context
    high = len(grid) - 1
    while high - j > 1:
        middle = (j + high) >> 1
        if grid[middle] <= context:
            j = middle
        else:
            high = middle
    i, u = steps.cell[n], steps.weight[n]
    left = steps.decode_s[i, j] + (steps.decode_s[i + 1, j] - steps.decode_s[i, j]) * u
    right = steps.decode_s[i, j + 1] + (steps.decode_s[i + 1, j + 1] - steps.decode_s[i, j + 1]) * u
    return float(max(0.0, left + (right - left) * (context - grid[j]) / (grid[j + 1] - grid[j])))


@kernel
def start_of(r: int, ledger: Ledger, limits: Limits) -> int:
    """Tokens of a waiting request that need no computing."""
    return 0 if limits.remote and ledger.generated[r] > 0 else ledger.cached[r]


@kernel
def fits(r: int, free: int, budget: int, running: int, ledger: Ledger, limits: Limits) -> bool:  # noqa: PLR0913, PLR0917 - a kernel
    """Whether vLLM admits waiting request `r` with `free` blocks and `budget` tokens left in the step."""
    start, total = start_of(r, ledger, limits), ledger.prompt[r] + ledger.generated[r]
    tokens = total if limits.reserve else start + min(total - start, budget)
    reserve = limits.watermark if running > 0 else 0
    return blocks_of(tokens, limits.block) + reserve <= free


@kernel
def finish(e: int, r: int, ledger: Ledger, batch: Batch) -> None:
    """Close a request at the engine's clock; its blocks are freed by the caller."""
    whole = batch.whole[e]
    ledger.finish_s[r] = batch.real[e, CLOCK]
    ledger.finish_step[r] = -1
    unlink(e, r, ledger, batch)
    whole[OUTSTANDING] -= 1
    batch.done[whole[JUST]] = r
    whole[JUST] += 1


@kernel
def retire(e: int, ledger: Ledger, limits: Limits, batch: Batch) -> None:
    """Finish the decoding requests whose last iteration this was."""
    whole, block = batch.whole[e], limits.block
    while whole[HEAP] > 0 and batch.heap_key[e, 0] <= whole[STEP]:
        key, r = batch.heap_key[e, 0], batch.heap_request[e, 0]
        pop_finish(e, batch)
        if ledger.finish_step[r] == key:
            tokens = ledger.joined_tokens[r] + key - ledger.joined_step[r]
            whole[DECODES] -= 1
            whole[CONTEXT] -= tokens
            whole[FREE] += blocks_of(tokens, block)
            batch.residue[e, (ledger.joined_tokens[r] - ledger.joined_step[r]) % block] -= 1
            finish(e, r, ledger, batch)


@kernel
def join(e: int, r: int, ledger: Ledger, limits: Limits, batch: Batch) -> None:
    """Emit the token that ends `r`'s prompt (or its recomputation); then it decodes, or is finished."""
    whole, clock = batch.whole[e], batch.real[e, CLOCK]
    tokens = ledger.prompt[r] + ledger.generated[r]
    if ledger.generated[r] == 0:
        ledger.first_s[r] = clock
    elif not math.isnan(ledger.paused_s[r]):
        count_gap(batch.histogram, clock - ledger.paused_s[r], 1.0)
        ledger.paused_s[r] = math.nan
    ledger.generated[r] += 1
    if ledger.generated[r] >= ledger.output[r]:
        whole[FREE] += ledger.held[r]
        ledger.held[r] = 0
        finish(e, r, ledger, batch)
        return
    whole[DECODES] += 1
    whole[CONTEXT] += tokens
    ledger.joined_step[r], ledger.joined_tokens[r] = whole[STEP], tokens
    ledger.finish_step[r] = whole[STEP] + ledger.output[r] - ledger.generated[r]
    batch.residue[e, (tokens - whole[STEP]) % limits.block] += 1
    push_finish(e, r, ledger, batch)


@kernel
def preempt(e: int, ledger: Ledger, limits: Limits, batch: Batch) -> int:
    """Return the request admitted last to the head of the queue; 1 if it would have taken a block in this step."""
    whole, block = batch.whole[e], limits.block
    r = whole[LAST]
    needed = 0
    if r == whole[PART]:
        whole[FREE] += ledger.held[r]
        whole[PART] = -1
    else:
        age = whole[STEP] - ledger.joined_step[r]
        tokens = ledger.joined_tokens[r] + age
        ledger.generated[r] += age
        ledger.finish_step[r] = -1
        ledger.paused_s[r] = batch.real[e, CLOCK]
        whole[DECODES] -= 1
        whole[CONTEXT] -= tokens
        whole[FREE] += blocks_of(tokens, block)
        batch.residue[e, (tokens - whole[STEP]) % block] -= 1
        needed = 1 if tokens % block == 0 else 0
    ledger.held[r] = 0
    unlink(e, r, ledger, batch)
    ledger.following[r] = whole[HEAD]
    whole[HEAD] = r
    if whole[TAIL] < 0:
        whole[TAIL] = r
    whole[PREEMPTIONS] += 1
    return needed


@kernel
def blocks_for(e: int, iterations: int, batch: Batch, limits: Limits) -> int:
    """KV blocks that the decodes take in the next `iterations` iterations."""
    cycles, rest = divmod(iterations, limits.block)
    step, need = batch.whole[e, STEP], cycles * batch.whole[e, DECODES]
    for i in range(rest):
        need += batch.residue[e, -(step + i) % limits.block]
    return int(need)


@kernel
def iterations_within(e: int, free: int, batch: Batch, limits: Limits) -> int:
    """Most iterations whose blocks are at most `free`."""
    cycles, left = divmod(free, batch.whole[e, DECODES])
    step, rest = batch.whole[e, STEP], 0
    while rest < limits.block and batch.residue[e, -(step + rest) % limits.block] <= left:
        left -= batch.residue[e, -(step + rest) % limits.block]
        rest += 1
    return int(cycles * limits.block + rest)


@kernel
def iterations_until(wait: float, first: float, slope: float, most: int) -> int:
    """Smallest j <= most with j·first + slope·j(j-1)/2 >= wait, given that `most` reaches it."""
    # slope/2·j² + (first - slope/2)·j - wait = 0
    linear = first - 0.5 * slope
    under = linear * linear + 2.0 * slope * wait
    # the stable form of the root holds for slopes of either sign, and for none
    j = math.ceil(2.0 * wait / (linear + math.sqrt(max(under, 0.0))))
    j = min(max(j, 1), most)
    while j > 1 and (j - 1) * first + 0.5 * slope * (j - 1) * (j - 2) >= wait:
        j -= 1
    while j < most and j * first + 0.5 * slope * j * (j - 1) < wait:
        j += 1
    return j


@kernel
def jump(e: int, until: float, steps: Steps, limits: Limits, ledger: Ledger, batch: Batch) -> bool:  # noqa: C901, PLR0912, PLR0913, PLR0917 - a kernel
    """Sum a stretch of iterations without an event; False if the next iteration has one."""
    whole, real = batch.whole[e], batch.real[e]
    n, head, clock = whole[DECODES], whole[HEAD], real[CLOCK]
    if n == 0 or whole[PART] >= 0:
        return False
    limit, most = until, next_finish(e, ledger, batch) - whole[STEP]
    if head >= 0:
        if ledger.arrival[head] > clock:
            limit = min(until, ledger.arrival[head])
        elif ledger.arrival[head] > real[SEEN]:
            most = 1  # scheduled before it came
        elif n < limits.seqs:
            free = whole[FREE] - batch.residue[e, -whole[STEP] % limits.block]
            if free < 0 or fits(head, free, limits.budget - n, n, ledger, limits):
                return False
            # else blocked: free blocks only shrink until a finish
    context, grid = whole[CONTEXT] / n + 1.0, steps.context
    j, high = 0, len(grid) - 1
    while high - j > 1:
        middle = (j + high) >> 1
        if grid[middle] <= context:
            j = middle
        else:
            high = middle
    if context < grid[j + 1]:
        most = min(most, int(grid[j + 1] - context) + 1)
    i, u = steps.cell[n], steps.weight[n]
    left = steps.decode_s[i, j] + (steps.decode_s[i + 1, j] - steps.decode_s[i, j]) * u
    right = steps.decode_s[i, j + 1] + (steps.decode_s[i + 1, j + 1] - steps.decode_s[i, j + 1]) * u
    slope = (right - left) / (grid[j + 1] - grid[j])
    first = left + slope * (context - grid[j])
    if first < 0.0 or first + slope * most < 0.0:  # clipped at zero: not linear, one at a time
        most, first = 1, max(first, 0.0)
    first += steps.decode_overhead_s + steps.token_at[n] + steps.sequence_at[n]
    wait = limit - clock
    if most * first + 0.5 * slope * most * (most - 1) >= wait:
        most = iterations_until(wait, first, slope, most)
    need = blocks_for(e, most, batch, limits)
    if need > whole[FREE]:
        most = iterations_within(e, whole[FREE], batch, limits)
        if most == 0:
            return False
        need = blocks_for(e, most, batch, limits)
    stretch(e, most, first, slope, limits, batch)
    whole[FREE] -= need
    whole[LOWEST] = min(whole[LOWEST], whole[FREE])
    retire(e, ledger, limits, batch)
    return True


@kernel
def stretch(e: int, iterations: int, first: float, slope: float, limits: Limits, batch: Batch) -> None:  # noqa: PLR0913, PLR0917 - a kernel
    """Let decode iterations pass, the first of `first` seconds, each `slope` longer than the one before."""
    whole, real = batch.whole[e], batch.real[e]
    spent = iterations * first + 0.5 * slope * iterations * (iterations - 1)
    # times between tokens: one bin holds times within 2 %
    parts = 1 if abs(slope) * iterations < 0.01 * first else min(iterations, 8)
    for part in range(parts):
        low, high = iterations * part // parts, iterations * (part + 1) // parts
        count_gap(batch.histogram, first + slope * 0.5 * (low + high - 1), float((high - low) * whole[DECODES]))
    before = real[CLOCK]
    real[CLOCK] += spent
    real[BUSY] += spent
    real[SEEN] = before if iterations == 1 else real[CLOCK] - (first + slope * (iterations - 1))
    if not limits.ahead:
        real[SEEN] = real[CLOCK]
    whole[STEP] += iterations
    whole[CONTEXT] += iterations * whole[DECODES]
    whole[JUST] = 0


@kernel
def iterate(e: int, steps: Steps, limits: Limits, ledger: Ledger, batch: Batch) -> None:  # noqa: C901, PLR0912, PLR0915 - a kernel
    """Carry out one iteration as vLLM V1 schedules it: decodes, the partial prompt, then the queue."""
    whole, real, block = batch.whole[e], batch.real[e], limits.block
    clock, preempted = real[CLOCK], False
    # Decodes come first in order of admission; the last admitted give way until the others' blocks suffice.
    need = batch.residue[e, -whole[STEP] % block]
    while need > whole[FREE]:
        need -= preempt(e, ledger, limits, batch)
        preempted = True
    whole[FREE] -= need
    decodes = whole[DECODES]
    budget, tokens, rows, read = limits.budget - decodes, decodes, decodes, float(whole[CONTEXT] + decodes)
    chunks, attention, fresh = 0, 0.0, 0
    # The one partial prompt was admitted last, so it comes after the decodes.
    r = whole[PART]
    if r >= 0 and budget > 0:
        prior, total = whole[COMPUTED], ledger.prompt[r] + ledger.generated[r]
        chunk = min(total - prior, budget)
        need = blocks_of(prior + chunk, block) - ledger.held[r]
        if need > whole[FREE]:
            preempt(e, ledger, limits, batch)
            preempted = True
        else:
            whole[FREE] -= need
            ledger.held[r] += need
            whole[COMPUTED] += chunk
            budget -= chunk
            tokens += chunk
            if chunk == 1:
                rows += 1
                read += prior + 1.0
            else:
                chunks += 1
                attention += max(0.0, across(float(chunk), float(prior), steps.chunk, steps.prior, steps.prefill_s))
            if prior + chunk == total:
                batch.fresh[fresh] = r
                fresh += 1
                whole[PART] = -1
    running = decodes + fresh + (1 if whole[PART] >= 0 else 0)
    while not preempted and budget > 0 and running < limits.seqs and whole[HEAD] >= 0:
        r = whole[HEAD]
        if ledger.arrival[r] > real[SEEN] or not fits(r, whole[FREE], budget, running, ledger, limits):
            break
        dequeue(e, ledger, batch)
        if math.isnan(ledger.admitted_s[r]):
            ledger.admitted_s[r] = clock
        prior, total = start_of(r, ledger, limits), ledger.prompt[r] + ledger.generated[r]
        chunk = min(total - prior, budget)
        ledger.held[r] = blocks_of(prior + chunk, block)
        whole[FREE] -= ledger.held[r]
        running += 1
        budget -= chunk
        tokens += chunk
        if chunk == 1:
            rows += 1
            read += prior + 1.0
        else:
            chunks += 1
            attention += max(0.0, across(float(chunk), float(prior), steps.chunk, steps.prior, steps.prefill_s))
        if prior + chunk == total:
            batch.fresh[fresh] = r
            fresh += 1
        else:
            whole[PART], whole[COMPUTED] = r, prior + chunk
    whole[JUST] = 0
    if tokens == 0:  # everything was preempted: the next iteration admits again
        return
    spent = steps.mixed_overhead_s if chunks > 0 else steps.decode_overhead_s
    spent += steps.token_at[tokens] + steps.sequence_at[decodes + fresh] + attention
    if rows > 0:
        spent += decode_at(steps, rows, read / rows)
    if decodes > 0:
        count_gap(batch.histogram, spent, float(decodes))
    whole[LOWEST] = min(whole[LOWEST], whole[FREE])
    real[CLOCK] += spent
    real[BUSY] += spent
    real[SEEN] = clock if limits.ahead else real[CLOCK]
    whole[STEP] += 1
    whole[CONTEXT] += decodes
    retire(e, ledger, limits, batch)
    for i in range(fresh):
        join(e, batch.fresh[i], ledger, limits, batch)


@kernel
def advance(e: int, until: float, stop: bool, steps: Steps, limits: Limits, ledger: Ledger, batch: Batch) -> None:  # noqa: FBT001, PLR0913, PLR0917 - a kernel
    """Run engine `e` while its clock is before `until` and it has work; with `stop`, to the next finish at most."""
    whole, real = batch.whole[e], batch.real[e]
    while True:
        if whole[LAST] < 0:  # nothing runs
            head = whole[HEAD]
            if head < 0 or max(ledger.arrival[head], real[CLOCK]) >= until:
                return
            real[CLOCK] = max(real[CLOCK], ledger.arrival[head])
            real[SEEN] = real[CLOCK]
        elif real[CLOCK] >= until:
            return
        if not jump(e, until, steps, limits, ledger, batch):
            iterate(e, steps, limits, ledger, batch)
        if stop and whole[JUST] > 0:
            return
