"""Synthetic fleets to time placement on: nodes of 8 GPUs of 5 types, options from a small roofline, a stated load."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from catalog.cluster import Cluster, NodePool
from planner.intents import Availability, Fleet, Intent, Team
from planner.placement.program import Program, Row
from planner.placement.solve import Question, highs
from planner.strategies import Candidate, Collocated, Configuration, Estimate, Pool, Quantiles
from planner.workload import Lengths, Workload

NODE = 8
SHARES = (1.0, 0.9, 0.75, 0.5, 0.25)
TOKENS = 400  # per request, so that goodputs look like requests per second


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A GPU type in round data-sheet numbers: GB, TB/s, dense bf16 TFLOP/s, dollars per hour."""

    name: str
    memory: float
    bandwidth: float
    peak: float
    price: float


KINDS = (
    Kind(name="l40s", memory=48, bandwidth=0.86, peak=181, price=1.05),
    Kind(name="a100", memory=80, bandwidth=2.0, peak=312, price=1.80),
    Kind(name="h100", memory=80, bandwidth=3.35, peak=989, price=2.90),
    Kind(name="h200", memory=141, bandwidth=4.8, peak=989, price=3.60),
    Kind(name="b200", memory=180, bandwidth=8.0, peak=2250, price=5.40),
)
#: Billions of parameters and how common each size is.
SIZES = ((1.5, 8), (3, 12), (8, 25), (14, 14), (32, 14), (70, 15), (120, 5), (235, 4), (405, 3))
WIDTHS = (1, 2, 4, 8)
FORMATS = (("bf16", 2.0, 1.0), ("fp8", 1.0, 0.7), ("int4", 0.5, 0.9))  # name, bytes per weight, time per FLOP


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One configuration of one model and what one replica serves, requests per second."""

    kind: int
    configuration: Configuration
    goodput: float
    cost: float
    tpot: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class World:
    """A fleet without its demand, the options of each model, and the demand that loads the fleet as stated."""

    fleet: Fleet
    options: tuple[tuple[Option, ...], ...]
    demand: NDArray[np.float64]  # requests per second by model


def world(models: int, nodes: int, *, options: int = 20, load: float = 0.85, seed: int = 0, **extra: int) -> World:
    """Draw a fleet whose demand is `load` times the most that its GPUs could serve (a linear program says how much).

    `extra`: `teams` spreads the intents over teams with a quota per GPU type and a budget each; `spares` gives every
    intent spare replicas.
    """
    random = np.random.default_rng(seed)
    shares = random.dirichlet(np.full(len(KINDS), 6.0))
    counts = np.maximum(1, np.floor(shares * nodes).astype(int))
    counts[int(np.argmax(counts))] += nodes - int(counts.sum())
    sizes = random.choice([size for size, _ in SIZES], p=_weights(), size=models)
    chosen = tuple(_options(f"m{m}", float(size), options, random) for m, size in enumerate(sizes))
    middle = np.array([np.median([o.goodput / o.configuration.gpus for o in mine]) for mine in chosen])
    weight = random.lognormal(0.0, 1.3, models)
    wish = weight / weight.sum() * NODE * nodes * middle
    demand = wish * load * _largest_scale(wish, chosen, counts)
    teams = extra.get("teams", 0)
    pools = tuple(
        NodePool(name=k.name, gpu=k.name, gpus_per_node=NODE, nodes=int(n), price=f"{k.price} USD/GPU/h")
        for k, n in zip(KINDS, counts, strict=True)
    )
    intents = tuple(
        Intent(
            name=f"i{m}",
            model=f"m{m}",
            workload=Workload(rate="1 /s", prompt=Lengths(mean=float(TOKENS)), output=Lengths(mean=float(TOKENS))),
            team=f"t{m % teams}" if teams else None,
            availability=Availability(spares=extra.get("spares", 0)),
        )
        for m in range(models)
    )
    fleet = Fleet(cluster=Cluster(pools=pools), intents=intents, teams=_teams(teams, counts), movement=1.0)
    return World(fleet=fleet, options=chosen, demand=demand)


def candidates(of: World, demand: NDArray[np.float64] | None = None, *, spares: int = 0) -> dict[str, list[Candidate]]:
    """Every option at every share of the demand: the fewest replicas that serve it, and the share they really serve."""
    wanted = of.demand if demand is None else demand
    return {
        intent.name: [
            _candidate(intent.name, option, replicas, float(rate), spares)
            for option in options
            for replicas in sorted({math.ceil(share * rate / option.goodput - 1e-9) + spares for share in SHARES})
        ]
        for intent, options, rate in zip(of.fleet.intents, of.options, wanted, strict=True)
    }


def standing(
    of: World, running: Mapping[str, Sequence[Candidate]], demand: NDArray[np.float64], *, spares: int = 0
) -> dict[str, list[Candidate]]:
    """What runs, valued under another demand."""
    found: dict[str, list[Candidate]] = {}
    for intent, options, rate in zip(of.fleet.intents, of.options, demand, strict=True):
        by = {option.configuration: option for option in options}
        found[intent.name] = [
            _candidate(intent.name, by[pool.configuration], pool.replicas, float(rate), spares)
            for candidate in running.get(intent.name, ())
            for pool in candidate.strategy.pools
        ]
    return found


def _candidate(intent: str, option: Option, replicas: int, rate: float, spares: int) -> Candidate:
    pool = Pool(configuration=option.configuration, replicas=replicas, node_pool=KINDS[option.kind].name)
    served = max(1, replicas - spares) * option.goodput
    latency = Quantiles(mean=option.tpot, p50=option.tpot, p90=option.tpot, p99=option.tpot)
    estimate = Estimate(
        ttft=latency,
        tpot=latency,
        e2e=latency,
        ttft_high=option.tpot,
        tpot_high=option.tpot,
        attainment=1.0,
        goodput=served,
        goodput_low=served,
        slo_probability=1.0,
        utilisation=min(1.0, rate / served),
        kv_utilisation=0.5,
        watts_per_gpu=None,
        method="closed_form",
        source="roofline",
    )
    return Candidate(
        intent=intent,
        strategy=Collocated(pool=pool),
        estimate=estimate,
        cost_per_hour=option.cost * replicas,
        quality=1.0,
        gpus=((pool.node_pool, pool.gpus),),
        share=min(1.0, served / rate),
    )


def _weights() -> NDArray[np.float64]:
    common = np.array([often for _, often in SIZES], dtype=float)
    return common / common.sum()


def _options(model: str, billions: float, count: int, random: np.random.Generator) -> tuple[Option, ...]:
    """The best option per GPU type by goodput per dollar, then others at random."""
    every = [
        option
        for kind in range(len(KINDS))
        for tp in WIDTHS
        for form in range(len(FORMATS))
        if (option := _option(model, billions, kind, tp, form, random)) is not None
    ]
    every.sort(key=lambda option: -option.goodput / option.cost)
    best = {option.kind: option for option in reversed(every)}
    first = [option for option in every if best[option.kind] is option]
    others = [option for option in every if best[option.kind] is not option]
    order = random.permutation(len(others))
    return tuple([*first, *(others[i] for i in order)][:count])


def _option(model: str, billions: float, kind: int, tp: int, form: int, random: np.random.Generator) -> Option | None:
    """Decode roofline: weights stream once per step, each request adds its FLOP; the batch is what memory holds."""
    gpu, (name, width, slow) = KINDS[kind], FORMATS[form]
    memory = 0.9 * tp * gpu.memory
    room = memory - 1.05 * billions * width
    if room < 0.15 * memory:
        return None
    parallel = tp ** (1 - 0.12)
    batch = min(256.0, room / (0.08 + 0.004 * billions))
    step = billions * width / (1e3 * parallel * gpu.bandwidth)
    step += 2 * billions * slow * batch / (1e3 * parallel * gpu.peak * 0.5)
    if step > 0.06:
        return None
    goodput = batch / step / TOKENS * random.uniform(0.9, 1.1)
    configuration = Configuration(model=model, gpu=gpu.name, tp=tp, quantization=name)  # type: ignore[arg-type]  # names above
    return Option(
        kind=kind,
        configuration=configuration,
        goodput=round(goodput, 3),
        cost=round(tp * gpu.price * random.uniform(0.98, 1.02), 4),
        tpot=step,
    )


def _largest_scale(wish: NDArray[np.float64], options: Sequence[Sequence[Option]], nodes: NDArray[np.int64]) -> float:
    """Largest uniform multiple of `wish` that fractional replicas on all GPUs could serve."""
    flat = [(m, option) for m, mine in enumerate(options) for option in mine]
    of = np.array([m for m, _ in flat])
    rows = []
    for m in range(len(options)):
        mine = np.flatnonzero(of == m)
        weights = np.append([-flat[i][1].goodput for i in mine], wish[m])
        rows.append(_row(f"serve {m}", 0.0, np.append(mine, len(flat)), weights))
    for kind, count in enumerate(nodes):
        mine = np.flatnonzero([option.kind == kind for _, option in flat])
        gpus = np.array([flat[i][1].configuration.gpus for i in mine], dtype=float)
        rows.append(_row(KINDS[kind].name, float(NODE * count), mine, gpus))
    n = len(flat) + 1
    program = Program(columns=n, upper=np.full(n, np.inf), integer=np.zeros(n, dtype=bool), rows=tuple(rows))
    objective = np.zeros(n)
    objective[-1] = -1.0
    answer = highs(Question(program=program, objective=objective, relax=True))
    return -answer.value


def _row(name: str, high: float, index: NDArray[np.int64], weights: NDArray[np.float64]) -> Row:
    return Row(kind="capacity", name=name, low=-np.inf, high=high, index=index, coefficient=weights)


def _teams(teams: int, nodes: NDArray[np.int64]) -> tuple[Team, ...]:
    """Teams whose quotas and budgets are generous in sum and tight for some."""
    if not teams:
        return ()
    gpus = nodes * NODE
    total = float(sum(kind.price * count for kind, count in zip(KINDS, gpus, strict=True)))
    return tuple(
        Team(
            name=f"t{t}",
            quota={k.name: max(1, int(2.0 * n / teams)) for k, n in zip(KINDS, gpus, strict=True)},
            budget=f"{1.2 * total / teams:.2f} USD/h",
        )
        for t in range(teams)
    )


def with_availability(fleet: Fleet, availability: Availability) -> Fleet:
    """The same fleet with one availability rule for every intent."""
    intents = tuple(intent.model_copy(update={"availability": availability}) for intent in fleet.intents)
    return fleet.model_copy(update={"intents": intents})


def scaled(options: Sequence[Option], factor: Sequence[float]) -> tuple[Option, ...]:
    """The same options with other goodputs."""
    return tuple(replace(o, goodput=o.goodput * f) for o, f in zip(options, factor, strict=True))
