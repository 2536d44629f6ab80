"""What still serves after a loss: met exactly where some choice of replicas survives, said where none does."""

from __future__ import annotations

import dataclasses
import math

from hypothesis import HealthCheck, given, settings
from small_fleets import SEEDS, candidate, dice, fleet, intent, pool

from planner.intents import Availability
from planner.placement import Rules, place, validate

EXACT = Rules(gap=0.0)
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@QUICK
@given(SEEDS)
def test_a_nodes_loss_is_survived_exactly_where_it_can_be(seed):
    """One service on one pool: met where some replica count, spread evenly, serves its share without a node."""
    random = dice(seed)
    nodes, gpus, needed = random.randint(1, 4), random.choice((1, 2, 4)), random.randint(1, 6)
    share = random.choice((0.25, 0.5, 0.8, 1.0))
    rule = Availability(survive="node", share=share)
    wishes = fleet([pool(nodes=nodes, gpus_per_node=gpus)], [intent(availability=rule)])
    counts = range(1, random.randint(1, 12) + 1)
    offers = {"chat": [counted("a", "h100", n, needed) for n in counts]}

    def survives(n):
        return needed <= n <= nodes * gpus and n - math.ceil(n / nodes) >= share * needed - 1e-9

    placed = place(wishes, offers)
    assert validate(placed, wishes, candidates=offers) == []
    assert (placed["chat"].status == "met") == any(survives(n) for n in counts)
    served = [n for n in counts if survives(n)]
    if served:
        assert placed.cost_per_hour == 2.0 * min(served)
    elif any(needed <= n <= nodes * gpus for n in counts):
        assert "availability: neither one nor two together serve" in placed["chat"].reason or placed["chat"].share > 0


@QUICK
@given(SEEDS)
def test_a_domains_loss_is_survived_exactly_where_it_can_be(seed):
    """Two pools in two domains: met where two counts serve all together, and its share each alone."""
    random = dice(seed)
    needed, share = random.randint(1, 6), random.choice((0.25, 0.5, 0.8, 1.0))
    pools = [
        pool("a", "h100", nodes=random.randint(1, 2), gpus_per_node=random.choice((2, 4)), failure_domain="east"),
        pool("b", "l40s", nodes=1, gpus_per_node=random.choice((2, 4)), failure_domain=random.choice(("east", "west"))),
    ]
    wishes = fleet(pools, [intent(availability=Availability(survive="failure_domain", share=share))])
    counts = [range(1, random.randint(1, 8) + 1) for _ in pools]
    offers = {
        "chat": [counted(one.name, one.gpu, n, needed) for one, mine in zip(pools, counts, strict=True) for n in mine]
    }
    placed = place(wishes, offers, rules=EXACT)
    fits = [[n for n in mine if n <= one.gpus] for one, mine in zip(pools, counts, strict=True)]
    ways = [
        a + b
        for a in fits[0]
        for b in fits[1]
        if a + b >= needed and min(a, b) >= share * needed - 1e-9 and pools[1].failure_domain == "west"
    ]
    assert validate(placed, wishes, candidates=offers) == []
    assert (placed["chat"].status == "met") == bool(ways)
    if ways:
        assert placed.cost_per_hour == 2.0 * min(ways)


def counted(where, gpu, replicas, needed):
    """One GPU a replica, `needed` of which serve everything; what is beyond is headroom."""
    whole = min(1.0, replicas / needed)
    return dataclasses.replace(
        candidate(where, gpu=gpu, replicas=replicas, share=whole), headroom=max(1.0, replicas / needed)
    )


def test_two_pools_of_one_node_each_survive_a_node_together():
    """Neither pool alone survives its only node; one replica on each does, each able to serve all."""
    pools = [pool("a", "h100", nodes=1), pool("b", "l40s", nodes=1)]
    wishes = fleet(pools, [intent(availability=Availability(survive="node", share=1.0))])
    offers = {"chat": [counted("a", "h100", 1, 1), counted("b", "l40s", 1, 1)]}
    placed = place(wishes, offers)
    assert placed["chat"].status == "met"
    assert len(placed["chat"].candidates) == 2
    assert validate(placed, wishes, candidates=offers) == []
    short = place(wishes, {"chat": offers["chat"][:1]})
    assert short["chat"].status == "unmet"
    assert (
        "availability: neither one nor two together serve 100% of it after the loss of a node" in short["chat"].reason
    )
