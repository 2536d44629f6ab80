"""The slow chain: how many requests reside.

Let N requests reside, each for E[it] iterations, and let T(n) be the time of an iteration with n of them, prompts
included. Prompts take the share ρ = λE[s] of time, so T(n) = D(n) / (1 - ρ). All residents progress at once (processor
sharing with state-dependent speed), so the stationary law is of product form whatever the law of lengths:

    π(n) ∝ Π_{k<=n} λ E[it] T(k) / k          up to n = S residents, then a geometric queue.

S is max_num_seqs or what the KV space holds of average requests. Renewal arrivals of squared coefficient of variation
c² are Poisson on the scale n/z with peakedness z = (1 + c²)/2 (Hayward).
"""

from __future__ import annotations

import math

from planner.predict import kernel
from planner.queueing.bounds import decode_at_size
from planner.queueing.pace import HELD1, HELD2, ITERATIONS, column_of, load_of, mates_of, read
from planner.queueing.prompts import wait_alone, wait_of_prompts
from planner.queueing.side import (
    AT,
    CAPACITY,
    FLOOR_S,
    FULL_S,
    KV_SLOTS,
    LEFT_S,
    N1,
    N2,
    NEARLY,
    RATE,
    RHO,
    SLOPE,
    SLOT,
    SLOT_S,
    SLOTS,
    STIRRED,
    TPOT1,
    TURN_S,
    WORK1,
    WORK2,
    Side,
)  # fmt: skip


@kernel
def settle(side: Side, rate: float) -> bool:
    """Solve the slow chain and the fast prompts at `rate`; False where it is not stable."""
    if rate >= side.bound[CAPACITY]:
        return False
    side.mean[RATE] = rate
    if side.summary.d1 <= 0:
        return alone(side, rate)
    seqs, means = len(side.pace.decode) - 1.0, side.pace.workload
    by_kv = side.bound[KV_SLOTS] < seqs
    held_cv2 = means[HELD2] / (means[HELD1] * means[HELD1]) - 1.0
    length_cv2 = held_cv2 if by_kv else side.summary.d2 / (side.summary.d1 * side.summary.d1) - 1.0
    z = 0.5 * (1.0 + side.ca2)
    if by_kv:  # requests of unequal size fill the space unevenly
        z *= 1.0 + 0.5 * held_cv2 / (1.0 + held_cv2)
    if not law_of_residents(side, rate, z, length_cv2):
        return False
    base = decode_at_size(side.pace, side.mean[N1])
    row, column = load_of(side.mean[N1], seqs), column_of(mates_of(rate * base))
    rho = rate * read(side.pace.moment1, row, column)
    if rho >= 1.0:
        return False
    side.mean[RHO], side.mean[WORK1], side.mean[WORK2] = rho, rho / rate, read(side.pace.moment2, row, column)
    stirred(side, rate, rho)
    left = 0.0
    for j in range(len(side.states)):
        left += wait_of_prompts(side, rate, j)
    side.mean[LEFT_S] = left / len(side.states)
    apart = max(math.sqrt(side.mean[N2]), 1.0)
    high, low = (
        decode_at_size(side.pace, side.mean[N1] + apart),
        decode_at_size(side.pace, max(side.mean[N1] - apart, 0.0)),
    )
    side.mean[SLOPE] = max((high - low) / (2.0 * apart), 0.0)
    side.mean[FLOOR_S] = side.pace.decode[1]
    # an iteration that the prompts fill up to the budget
    side.mean[FULL_S] = max(side.pace.full[0], base)
    side.mean[TURN_S] = side.mean[TPOT1] * 0.5 * side.summary.d2 / side.summary.d1 * base / side.pace.decode[1]
    return True


@kernel
def stirred(side: Side, rate: float, rho: float) -> None:
    """Widen the law of N by the prompts' own noise.

    While prompts are computed nobody finishes. In the linear noise of dN = dA - μ(N)(dt - dW), each arrival adds 1 + μs
    instead of 1, with μ = λ/(1-ρ): Var N grows by the factor below over that of the quasi-static chain.
    """
    mu = rate / (1.0 - rho)
    s1, s2 = side.mean[WORK1], side.mean[WORK2]
    noise = 1.0 + side.ca2 * (1.0 + mu * s1) ** 2 + mu * mu * max(s2 - s1 * s1, 0.0)
    factor = noise / (1.0 + side.ca2)
    added = side.mean[N2] * (factor - 1.0)
    side.mean[N2] += added
    side.mean[STIRRED] = 1.0 - 1.0 / factor
    # service is concave in n, so a wider law needs a higher mean: -μ''/(2μ')·added, for a straight D(n)
    before, n = side.mean[N1], max(side.mean[N1], 1.0)
    bend = (decode_at_size(side.pace, 2.0 * n) / decode_at_size(side.pace, n) - 1.0) / n
    side.mean[N1] = min(before + max(bend, 0.0) * added, max(side.bound[SLOTS], before))
    side.mean[TPOT1] *= side.mean[N1] / max(before, 1e-12)
    wider = math.sqrt(factor)
    for j in range(len(side.states)):
        n = side.mean[N1] + (side.states[j, AT] - before) * wider
        side.states[j, AT] = min(max(n, 0.0), side.bound[SLOTS])


@kernel
def law_of_residents(side: Side, rate: float, z: float, length_cv2: float) -> bool:  # noqa: C901, PLR0915 - a kernel
    """Law of N: moments, quantiles, and the wait for a slot."""
    seqs, slots, load = len(side.pace.decode) - 1.0, side.bound[SLOTS], rate * side.pace.workload[ITERATIONS]
    most = max(int(slots / z), 1)
    stride, total, top = max(1, most // 48), 1.0, 1.0
    side.chain[0] = 1.0
    known, t_known, t_next, k_next = 0, 0.0, 0.0, 0
    last = most
    for k in range(1, most + 1):
        if k > k_next:
            known, t_known = k_next, t_next
            k_next = min(most, k_next + stride) if k > 1 else 1
            n = k_next * z
            base = decode_at_size(side.pace, n)
            rho = rate * read(side.pace.moment1, load_of(n, seqs), column_of(mates_of(rate * base)))
            if rho >= 1.0:
                return False
            t_next = base / (1.0 - rho)
        t = t_next if k == k_next else t_known + (t_next - t_known) * (k - known) / (k_next - known)
        ratio = load * t / (k * z)
        top *= ratio
        side.chain[k] = top
        total += top
        if top > 1e200:
            for i in range(k + 1):
                side.chain[i] *= 1e-200
            top *= 1e-200
            total *= 1e-200
        elif ratio < 0.9 and top < 1e-10 * total:
            last = k
            break
    base = decode_at_size(side.pace, slots)
    rho = rate * read(side.pace.moment1, load_of(slots, seqs), column_of(mates_of(rate * base)))
    if rho >= 1.0:
        return False
    turn = base / (1.0 - rho)
    r = min(load * turn / slots, NEARLY)
    tail = side.chain[last] * r / (1.0 - r) if last == most else 0.0
    total += tail
    n1, n2 = 0.0, 0.0
    for k in range(last + 1):
        side.chain[k] /= total
        n1 += side.chain[k] * k * z
        n2 += side.chain[k] * (k * z) ** 2
    tail /= total
    n1 += tail * slots
    n2 += tail * slots * slots
    side.mean[N1], side.mean[N2] = n1, max(n2 - n1 * n1, 0.0)
    side.mean[SLOT] = tail + side.chain[last] if last == most else 0.0
    # beyond the limit: departures at the rate slots/(E[it]·T), two-moment correction of the exponential wait
    side.mean[SLOT_S] = (
        max(0.5 * (side.ca2 + length_cv2), 0.05) * side.pace.workload[ITERATIONS] * turn / slots / (1.0 - r)
    )
    side.mean[TPOT1] = n1 / load
    passed, j, rows = 0.0, 0, len(side.states)
    for k in range(last + 1):
        passed += side.chain[k]
        while j < rows and passed >= (j + 0.5) / rows:
            side.states[j, AT] = k * z
            j += 1
    while j < rows:
        side.states[j, AT] = slots
        j += 1
    return True


@kernel
def alone(side: Side, rate: float) -> bool:
    """An engine that computes prompts and decodes nothing."""
    side.mean[:] = 0.0
    side.mean[RATE] = rate
    for j in range(len(side.states)):
        side.states[j, AT] = 0.0
        wait_alone(side, rate, j)
    return True
