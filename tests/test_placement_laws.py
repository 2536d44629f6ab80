"""Placement on rich fleets: every kind of intent, pool and limit at once, two nights in a row."""

from __future__ import annotations

import math

from hypothesis import HealthCheck, given, settings
from small_fleets import SEEDS, candidate, dice, fleet, gpus_by_node, intent, pair, pool

from planner.intents import Availability, Team
from planner.placement import Rules, place, validate
from planner.placement.solve import Answer

QUICK = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def silent(question):
    """No point within the time limit."""
    return Answer(outcome="nothing", seconds=question.time_limit_s)


def crashing(question):
    """A solver that dies."""
    del question
    return Answer(outcome="crashed", note="shot")


GOALS = ("min_cost", "min_cost", "min_latency", "cost_target")


def rich_pools(random):
    """Three pools: whole nodes, split link domains, nodes lost, GPUs held by others, GPUs that engines share."""
    found = []
    for name, gpu, domain in (("a", "h100", "east"), ("b", "h100", "west"), ("c", "l40s", "east")):
        nodes = random.randint(1, 4)
        found.append(
            pool(
                name,
                gpu,
                nodes=nodes,
                gpus_per_node=random.choice((4, 8)),
                failure_domain=domain,
                link_domain=random.choice((None, None, 2, 4)),
                lost=random.choice((0, 0, 1)),
                reserved_gpus=random.choice((0, 0, 3)) if nodes > 2 else 0,
                engines_per_gpu=random.choice((1, 1, 2, 4)) if name == "c" else 1,
                network={"fabric": random.choice(("f", "g"))},
            )
        )
    return found


def rich_intent(name, random):
    """Any goal, team, priority, survival rule and limit."""
    goal = random.choice(GOALS)
    survive = random.choice(("none", "none", "node", "failure_domain"))
    budget = f"{random.uniform(10, 60):.1f} USD/h" if goal == "cost_target" or random.random() < 0.2 else None
    return intent(
        name,
        goal=goal,
        budget=budget,
        priority=random.randint(0, 2),
        team=random.choice((None, "t", "u")),
        availability=Availability(spares=random.choice((0, 0, 1)), survive=survive, share=0.5),
        min_replicas=random.choice((1, 1, 2)),
        max_replicas=random.choice((None, None, 6)),
        forbidden_pools=random.choice(((), ("a",))),
        disaggregated=random.choice(("allowed", "allowed", "forbidden")),
    )


def rich_offer(name, pools, random):
    """Up to five configurations at five shares, odd sizes and pipelines among them, and sometimes a pair."""
    demand = random.uniform(0.5, 10.0)
    found = []
    for _ in range(random.randint(1, 5)):
        where = random.choice(pools)
        tp, pp = random.choice((1, 2, 3, 4, 8)), random.choice((1, 1, 1, 2))
        engines = where.engines_per_gpu if random.random() < 0.9 else 1
        tp, pp = (1, 1) if engines > 1 else (tp, pp)
        goodput = (tp * pp) ** 0.9 * random.uniform(0.5, 1.5)
        found += [
            candidate(
                where.name,
                of=name,
                gpu=where.gpu,
                tp=tp,
                pp=pp,
                engines_per_gpu=engines,
                replicas=n,
                share=min(1.0, n * goodput / demand),
                cost=random.uniform(1, 3) * tp * pp * n / engines,
                latency=random.uniform(1, 3),
            )
            for n in sorted({math.ceil(share * demand / goodput) for share in (1.0, 0.9, 0.75, 0.5, 0.25)})
        ]
    if random.random() < 0.4:
        two = [random.choice(pools), random.choice(pools)]
        found.append(pair(two[0].name, two[1].name, of=name, gpus=(two[0].gpu, two[1].gpu), replicas=(1, 2), tp=(2, 1)))
    return found


def rich(seed):
    """A fleet and two nights of candidates."""
    random = dice(seed)
    pools = rich_pools(random)
    names = [f"i{n}" for n in range(random.randint(1, 6))]
    teams = (
        Team(name="t", quota={"h100": random.randint(4, 20)}),
        Team(name="u", budget=f"{random.uniform(20, 90):.1f} USD/h"),
    )
    wishes = fleet(pools, [rich_intent(name, random) for name in names], teams=teams, movement=random.uniform(0.1, 1.0))
    return wishes, [{name: rich_offer(name, pools, random) for name in names} for _ in range(2)]


@QUICK
@given(SEEDS)
def test_every_plan_is_valid_and_no_repair_was_needed_twice(seed):
    """Whatever the wishes, both nights keep every promise, and the first answer that packs passes the validator."""
    wishes, nights = rich(seed)
    first = place(wishes, nights[0])
    second = place(wishes, nights[1], incumbent=first)
    for placed, offers, before in ((first, nights[0], None), (second, nights[1], first)):
        assert validate(placed, wishes, candidates=offers, incumbent=before) == []
        assert placed.solved.status in {"proven", "within_gap"}
        assert not any("no solution passed" in note for note in placed.solved.notes)
        for name, gpus in gpus_by_node(placed).items():
            where, index = name.rsplit("-", 1)
            pool_ = wishes.cluster.pool(where)
            assert gpus <= pool_.gpus_per_node * pool_.engines_per_gpu
            assert int(index) < wishes.cluster.pool(where).nodes - wishes.cluster.pool(where).lost


@QUICK
@given(SEEDS)
def test_without_teams_limits_the_first_class_falls_short_no_more(seed):
    """Quotas and budgets lifted, the first priority class is served at least as well.

    Intents that must survive a node's loss are left out: whether they can is found on the seats, after the program.
    """
    wishes, (offers, _) = rich(seed)
    calm = [one.model_copy(update={"availability": Availability()}) for one in wishes.intents]
    base = wishes.model_copy(update={"intents": tuple(calm)})
    free = base.model_copy(update={"teams": tuple(Team(name=team.name) for team in wishes.teams)})
    top = min(one.priority for one in wishes.intents)
    before, after = (place(each, offers, rules=Rules(gap=0.0)) for each in (base, free))
    assert _first_shortfall(after, top) <= _first_shortfall(before, top) + 1e-6


def harsher(wishes, random):
    """The second night's fleet: nodes lost or back, GPUs taken by others, an intent gone, another new, other wishes."""
    pools = tuple(
        one.model_copy(
            update={
                "lost": random.randint(0, one.nodes),
                "reserved_gpus": random.choice((0, 0, random.randint(0, one.nodes * one.gpus_per_node))),
            }
        )
        for one in wishes.cluster.pools
    )
    names = [one.name for one in wishes.intents]
    kept = random.sample(names, random.randint(1, len(names)))
    if "new" not in names and random.random() < 0.5:
        kept.append("new")
    intents = tuple(pinned(rich_intent(name, random), random) for name in kept)
    cluster = wishes.cluster.model_copy(update={"pools": pools})
    return wishes.model_copy(update={"cluster": cluster, "intents": intents, "movement": random.uniform(0.05, 1.0)})


def pinned(wish, random):
    """The wish with pools, GPU types, formats or a floor pinned, or spares for a loss that it must survive in full."""
    survive = random.choice(("none", "node", "failure_domain"))
    return wish.model_copy(
        update={
            "pools": random.choice((None, None, ("a", "b"), ("c",))),
            "gpus": random.choice((None, None, ("h100",), ("l40s",))),
            "forbidden_gpus": random.choice(((), (), ("l40s",))),
            "quantizations": random.choice((None, None, None, ("bf16",), ("fp8",))),
            "quality": random.choice((0.0, 0.0, 1.0)),
            "availability": Availability(
                spares=random.choice((0, 1, 2)), survive=survive, share=random.choice((0.3, 0.8, 1.0))
            ),
        }
    )


SOLVERS = ("highs", "highs", "highs", "cbc", crashing, silent)


@QUICK
@given(SEEDS)
def test_whatever_happened_in_between_the_next_plan_is_valid(seed):
    """Nodes lost or back, GPUs taken, intents come, go and pinned, and a solver that works or not: every plan keeps."""
    random = dice(seed)
    wishes, nights = rich(seed)
    before = place(wishes, nights[0])
    for _ in range(2):
        wishes = harsher(wishes, random)
        pools = list(wishes.cluster.pools)
        offers = {one.name: rich_offer(one.name, pools, random) for one in wishes.intents}
        placed = place(wishes, offers, incumbent=before, solver=random.choice(SOLVERS))
        assert validate(placed, wishes, candidates=offers, incumbent=before) == []
        for name, gpus in gpus_by_node(placed).items():
            where, index = name.rsplit("-", 1)
            pool_ = wishes.cluster.pool(where)
            assert gpus <= pool_.gpus_per_node * pool_.engines_per_gpu
            assert int(index) < wishes.cluster.pool(where).nodes - wishes.cluster.pool(where).lost
        assert sum(gpus_by_node(placed).values()) <= sum(one.engine_slots for one in pools)
        before = placed


def _first_shortfall(placed, priority):
    return sum(stage.value for stage in placed.stages if stage.name == f"shortfall of priority {priority}")
