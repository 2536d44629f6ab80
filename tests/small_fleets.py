"""Small fleets and candidates for the tests of placement."""

from __future__ import annotations

import itertools
import random
from collections import Counter

from hypothesis import strategies as st

from catalog.cluster import Cluster, NodePool
from planner.intents import Fleet, Intent
from planner.strategies import Candidate, Collocated, Configuration, Disaggregated, Estimate, Pool, Quantiles
from planner.workload import Lengths, Workload

#: Whole instances are drawn from one seed: small to print, quick to repeat.
SEEDS = st.integers(0, 10**6)
WORKLOAD = Workload(rate="1 /s", prompt=Lengths(mean=100.0), output=Lengths(mean=100.0))


def dice(seed):
    """A random that only the seed decides."""
    return random.Random(seed)  # noqa: S311 - draws test cases


def pool(name="a", gpu="h100", *, nodes=2, gpus_per_node=8, price="2 USD/GPU/h", **more):
    """Two nodes of eight H100 unless said otherwise."""
    return NodePool(name=name, gpu=gpu, nodes=nodes, gpus_per_node=gpus_per_node, price=price, **more)


def intent(name="chat", **more):
    """A wish of the one model."""
    return Intent(name=name, model="org/m", workload=WORKLOAD, **more)


def fleet(pools, intents, **more):
    """A fleet of these pools and intents."""
    return Fleet(cluster=Cluster(pools=tuple(pools)), intents=tuple(intents), **more)


def estimate(latency=1.0, goodput=1.0):
    """Numbers that placement does not read, but for the latency."""
    quantiles = Quantiles(mean=latency, p50=latency, p90=latency, p99=latency)
    return Estimate(
        ttft=quantiles,
        tpot=quantiles,
        e2e=quantiles,
        ttft_high=latency,
        tpot_high=latency,
        attainment=1.0,
        goodput=goodput,
        goodput_low=goodput,
        slo_probability=1.0,
        utilisation=0.5,
        kv_utilisation=0.5,
        watts_per_gpu=None,
        method="closed_form",
        source="roofline",
    )


def candidate(where="a", *, of="chat", gpu="h100", replicas=1, share=1.0, cost=None, latency=1.0, quality=1.0, **shape):
    """A collocated candidate at 2 USD per GPU and hour unless said otherwise."""
    configuration = Configuration(model="org/m", gpu=gpu, **shape)
    held = Pool(configuration=configuration, replicas=replicas, node_pool=where)
    return Candidate(
        intent=of,
        strategy=Collocated(pool=held),
        estimate=estimate(latency),
        cost_per_hour=2.0 * held.gpus if cost is None else cost,
        quality=quality,
        gpus=((where, held.gpus),),
        share=share,
    )


def pair(prefill_pool, decode_pool, *, of="chat", gpus=("h100", "h100"), replicas=(1, 1), tp=(1, 1), share=1.0):
    """A disaggregated candidate."""
    pools = [
        Pool(configuration=Configuration(model="org/m", gpu=gpu, tp=width), replicas=count, node_pool=where)
        for where, gpu, count, width in zip((prefill_pool, decode_pool), gpus, replicas, tp, strict=True)
    ]
    held = Counter[str]()
    for one in pools:
        held[one.node_pool] += one.gpus
    return Candidate(
        intent=of,
        strategy=Disaggregated(prefill=pools[0], decode=pools[1], transfer_bandwidth=1e10, transfer_latency=1e-5),
        estimate=estimate(),
        cost_per_hour=2.0 * sum(one.gpus for one in pools),
        quality=1.0,
        gpus=tuple(held.items()),
        share=share,
    )


def gpus_by_node(placed):
    """Counted from the seats alone."""
    held = Counter()
    for served in placed.served:
        for seats in served.seats:
            for nodes in seats.nodes:
                for name, gpus in nodes:
                    held[name] += gpus
    return held


def brute_force(pools, candidates):
    """Least cost of serving every intent in full by one candidate or two, GPUs counted per pool; None = impossible.

    Only for slots of 1, 2, 4 and 8 GPUs on whole nodes of 8, where counting is exact.
    """
    room = {one.name: one.nodes * one.gpus_per_node for one in pools}
    ways = []
    for offered in candidates.values():
        singles = [(c,) for c in offered if c.share >= 1 - 1e-9]
        doubles = [
            two
            for two in itertools.combinations(offered, 2)
            if sum(c.share for c in two) >= 1 - 1e-9
            and two[0].strategy.pool.configuration != two[1].strategy.pool.configuration
        ]
        ways.append(singles + doubles)
    best = None
    for chosen in itertools.product(*ways):
        used = Counter()
        for members in chosen:
            for c in members:
                for where, gpus in c.gpus:
                    used[where] += gpus
        if all(used[name] <= room[name] for name in room):
            cost = sum(c.cost_per_hour for members in chosen for c in members)
            best = cost if best is None else min(best, cost)
    return best
