"""The fast part: how long a prompt waits for its iteration, given how many requests decode.

Given n decodes, iterations are gated vacations: X' = D(n) + Σ s over the Poisson(λX) arrivals of the last one. With
ρ = λE[s]:  E[X] = D/(1-ρ),  Var X = λE[s²]E[X]/(1-ρ²),  and E[X³] likewise. An arrival falls into an iteration of
length-biased law X̃ (E[X̃] = E[X²]/E[X], E[X̃²] = E[X³]/E[X]), waits for its rest U·X̃, then for D(n), its own s, and the s
of those that arrived in X̃. Clumped arrivals add the mates of `planner.queueing.clumps`. Where the token budget
binds, the prompts instead form a single-server queue of services s + D·p/(B - n): Pollaczek and Khinchine's wait plus
half an iteration; the larger of the two is taken.
"""

from __future__ import annotations

from planner.predict import kernel
from planner.queueing.bounds import decode_at_size
from planner.queueing.clumps import around
from planner.queueing.pace import ALONE, PROMPT1, PROMPT2, column_of, load_of, mates_of, read
from planner.queueing.side import (
    AT,
    BASE,
    CALM_S,
    CALM_VAR,
    COLUMN,
    NEARLY,
    PRESENT,
    ROW,
    WAIT_S,
    WAIT_VAR,
    Side,
)  # fmt: skip

#: Share of its work by which an earlier prompt of the same clump delays one: half for the one being computed, all for
#: one still waiting. Calibrated on the simulator of `planner.simulate`.
AHEAD = 1.0


@kernel
def wait_of_prompts(side: Side, rate: float, j: int) -> float:
    """Wait of a prompt given the state's n, without its own iteration; returns the prompt work left behind it."""
    n = side.states[j, AT]
    if n < 0.5:
        wait_alone(side, rate, j)
        return 0.0
    seqs, base = len(side.pace.decode) - 1.0, decode_at_size(side.pace, n)
    row = load_of(n, seqs)
    column = column_of(mates_of(rate * base))
    s1 = read(side.pace.moment1, row, column)
    column = column_of(mates_of(rate * base / max(1.0 - rate * s1, 0.05)))
    s1, s2, s3 = (
        read(side.pace.moment1, row, column),
        read(side.pace.moment2, row, column),
        read(side.pace.moment3, row, column),
    )
    rho = min(rate * s1, NEARLY)
    x1 = base / (1.0 - rho)
    # arrivals in a window x have variance x + 2x·mean_extra(x)
    s2_seen = s2 + s1 * s1 * max(2.0 * around(side.near.mean_extra, rate * x1), -0.9)
    x2 = rate * s2_seen * x1 / (1.0 - rho * rho) + x1 * x1
    # E[X³](1 - ρ³) from X' = D + Y, Y compound Poisson over X
    x3 = (rate * s3 * x1 + 3 * rate * s2_seen * rho * x2 + 3 * base * x2 - 3 * base * base * x1 + base**3) / (
        1.0 - rho**3
    )
    e1, e2 = x2 / x1, x3 / x1
    # beyond what comes anyway: mates of the clump, those before while their prompt is computed, those after in the rest
    before, later = base * (1.0 + side.ahead) + s1, e1
    crowd = around(side.near.extra, rate * before)
    if crowd < 0:  # spread arrivals find fewer iterations that are long by another's prompt
        met = max(1.0 + crowd / (rate * before), 0.0)
        e1, e2 = base + (e1 - base) * met, base * base + (e2 - base * base) * met
    extra = AHEAD * crowd + around(side.near.mean_extra, rate * later)
    extra = max(extra, -rate * e1)
    wait = 0.5 * e1 + rho * e1 + extra * s1
    second = e2 / 3 + rho * e2 + rate * s2 * e1 + rho * rho * e2
    second += extra * s2 + 2 * extra * extra * s1 * s1 + 2 * extra * s1 * (0.5 * e1 + rho * e1)
    ahead = base + s1 + rho * e1
    # the token budget as a single server
    room = max(side.budget - n, 1.0)
    means = side.pace.workload
    g1 = s1 + base * means[PROMPT1] / room
    per_token = s1 / max(means[PROMPT1], 1.0)
    g2 = s2 + 2 * base * per_token * means[PROMPT2] / room + base * base * means[PROMPT2] / (room * room)
    idle = max(1.0 - rate * g1, 1.0 - NEARLY)
    queue = max(0.5 * rate * g2 + g1 * around(side.near.extra, rate * g1 / idle), 0.0) / idle
    if 0.5 * base + queue > wait:
        wait = 0.5 * base + queue
        mates = g1 * max(around(side.near.extra, rate * g1 / idle), 0.0) / idle
        second = wait * wait + base * base / 12 + queue * queue + mates * mates + rate * g2 * g1 * 0.5 / idle
        ahead = wait + base + s1
    # the step that was scheduled before the prompt came, as long as any
    second += side.ahead * (2.0 * wait * x1 + x2)
    wait += side.ahead * x1
    calm = (0.5 + side.ahead) * base
    alone = (1.0 - around(side.near.soon, rate * before)) * (1.0 - around(side.near.soon, 0.5 * rate * later))
    _mix(side, j, 1.0 - alone, wait, second, calm, base * base / 12)
    side.states[j, BASE], side.states[j, ROW], side.states[j, COLUMN] = base, row, column
    return max(0.0, rho * (ahead - x1) / (1.0 - rho))


@kernel
def _mix(side: Side, j: int, present: float, first: float, second: float, calm: float, calm_var: float) -> None:  # noqa: PLR0913, PLR0917 - a kernel
    """Split a wait of moments `first` and `second` into that of those who meet nobody and that of the others.

    Where so few meet somebody that they would have to wait longer than the second moment allows, it stays whole.
    """
    wait, square = first, second
    if 0.0 < present < 0.99:
        wait = (first - (1.0 - present) * calm) / present
        square = (second - (1.0 - present) * (calm_var + calm * calm)) / present
    if present <= 0.0 or wait <= calm or square < wait * wait:
        wait, square, present = first, second, 1.0
    side.states[j, PRESENT], side.states[j, WAIT_S] = present, wait
    side.states[j, WAIT_VAR] = max(square - wait * wait, 1e-2 * wait * wait)
    side.states[j, CALM_S], side.states[j, CALM_VAR] = calm, calm_var


@kernel
def wait_alone(side: Side, rate: float, j: int) -> None:
    """Wait of a prompt at an engine that decodes nothing: iterations of prompts alone, between idle times.

    An iteration of k prompts lasts X = k·s(k); the next one holds the M(λX) prompts that came meanwhile, or, after an
    idle time, one: k = M(λX) + P(none). Of the k/P(none) prompts of a busy period one finds the engine idle.
    """
    row, column, x, k, none = float(ALONE), 0.0, 0.0, 1.0, 1.0
    for _ in range(8):
        column = column_of(k)
        x = k * read(side.pace.moment1, row, column)
        arrivals = min(rate * x, 1e3)
        none = 1.0 - around(side.near.soon, arrivals)
        k = 0.5 * (k + max(arrivals + around(side.near.extra, arrivals), 0.0) + none)
    k = max(k, 1.0)
    s1, s2 = read(side.pace.moment1, row, column), read(side.pace.moment2, row, column)
    present = min(max(1.0 - none / k, 0.0), 1.0)
    x2 = x * x + max(k * (s2 - s1 * s1), 0.0) + s1 * s1 * (k - 1.0)
    e1 = x2 / x
    extra = max(around(side.near.extra, rate * e1), -rate * e1)
    others = rate * e1 + extra
    wait = 0.5 * e1 + others * s1
    spread = e1 * e1 / 12 + others * s2 + max(extra, 0.0) ** 2 * s1 * s1
    # a queue of single prompts, as those who wait see it
    idle = max(1.0 - rate * s1, 1.0 - NEARLY)
    queue = max(0.5 * s2 / s1 + around(side.near.extra, 0.5 * rate * s1 / idle) * s1, 0.0) / idle
    if queue > wait:
        wait, spread = queue, queue * queue
    side.states[j, BASE], side.states[j, PRESENT], side.states[j, WAIT_S], side.states[j, WAIT_VAR] = (
        0.0,
        present,
        wait,
        spread,
    )
    side.states[j, CALM_S], side.states[j, CALM_VAR], side.states[j, ROW], side.states[j, COLUMN] = (
        0.0,
        0.0,
        row,
        column,
    )
