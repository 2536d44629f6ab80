"""`Option`: a configuration with its engine, ready to be judged; `options` makes them of every shape."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from catalog.cluster import NodePool
from catalog.power import PowerConstants
from catalog.predictors import Predictor
from planner.candidates.judge import Judge
from planner.candidates.space import GRID, MAX_NUM_BATCHED_TOKENS, MAX_NUM_SEQS, Place, Wish, hosts, shapes
from planner.candidates.tally import Tally
from planner.memory import Memory
from planner.queueing import Engine
from planner.strategies import Configuration, Rejection
from planner.workload import Requests

#: Share of the sequences that KV space holds at which max_num_seqs is capped: above, preemption costs more than the
#: larger batch brings (long outputs: capacity +20 % with the cap, in simulation) ...
KV_CAP = 0.9
#: ... below this many sequences the cap costs more than it brings, and whole-prompt admission protects already.
KV_CAP_FROM = 15.0
#: max_num_seqs with which KV space is measured before the cap is known.
REFERENCE_SEQS = 256


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Option:
    """One configuration, its engine at the middle and at the slow end, and where it can stand."""

    configuration: Configuration
    place: Place
    engine: Engine
    slow: Engine
    quality: float
    most: int
    """Most replicas that one pool can hold and the intent allows."""


@dataclass(slots=True, kw_only=True)
class Facts:
    """What the catalog says of configurations, each asked once: predictors by shape, memory by batch limits."""

    predictor_of: Callable[[Configuration], Predictor | Rejection]
    memory_of: Callable[[Configuration], Memory | Rejection]
    predictors: dict[Configuration, Predictor | Rejection] = field(default_factory=dict)
    slow: dict[Configuration, Predictor] = field(default_factory=dict)
    memories: dict[Configuration, Memory | Rejection] = field(default_factory=dict)

    def predictor(self, shape: Configuration) -> Predictor | Rejection:
        """The predictor of a shape, whose batch limits it does not depend on."""
        if shape not in self.predictors:
            found = self.predictors[shape] = self.predictor_of(shape)
            if isinstance(found, Predictor):
                self.slow[shape] = found.pessimistic
        return self.predictors[shape]

    def memory(self, configuration: Configuration) -> Memory | Rejection:
        """The memory of a configuration."""
        if configuration not in self.memories:
            self.memories[configuration] = self.memory_of(configuration)
        return self.memories[configuration]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Question:
    """One intent's question to the space: what it wishes, under which load, judged by whom, counted where."""

    wish: Wish
    places: tuple[Place, ...]
    requests: Requests
    """The load as a law, at the rate that the plan is sized for."""
    replay: Requests | None
    """The load with its measured arrivals, where there is a trace."""
    typical: int
    """Tokens that a running request holds on average."""
    prices: Mapping[str, float]
    """Node pool -> dollars per GPU and hour, or per part of a GPU where engines share it."""
    power: float
    """Dollars per kWh at the socket, facility included; 0 = not charged."""
    watts: PowerConstants | None
    """What turns utilisation into watts; None: they are not estimated."""
    facts: Facts
    judge: Judge
    tally: Tally


def typical_tokens(requests: Requests) -> int:
    """Tokens that a running request holds on average: its prompt and half its output, weighted by its stay."""
    stay = requests.output.astype(np.float64)
    return int(np.average(requests.prompt + stay / 2, weights=stay))


def options(question: Question) -> Iterator[Option]:
    """Yield every configuration that would start; the rest are counted by reason."""
    facts, tally = question.facts, question.tally

    def fits(shape: Configuration) -> bool:
        held = facts.memory(replace(shape, max_num_seqs=GRID[0][0], max_num_batched_tokens=GRID[0][1]))
        if isinstance(held, Rejection):
            tally.reject(str(shape), held.reason, held.detail, count=len(GRID), nearest=held.nearest)
        return not isinstance(held, Rejection)

    for place, shape in shapes(question.wish, question.places, fits, tally):
        predictor = facts.predictor(shape)
        if isinstance(predictor, Rejection):
            said = predictor.detail
            tally.reject(str(shape), predictor.reason, said, count=len(GRID), nearest=predictor.nearest)
            continue
        for tokens in MAX_NUM_BATCHED_TOKENS:
            yield from _batched(question, place, shape, tokens)


def _batched(question: Question, place: Place, shape: Configuration, tokens: int) -> Iterator[Option]:
    """The options of one shape and token budget: max_num_seqs on the grid up to what KV space can feed."""
    predictor = question.facts.predictor(shape)
    assert isinstance(predictor, Predictor)  # noqa: S101 - options() asked before
    grid = [seqs for seqs in MAX_NUM_SEQS if seqs <= tokens]
    held = question.facts.memory(_limited(shape, min(REFERENCE_SEQS, tokens), tokens))
    cap = grid[-1]
    if not isinstance(held, Rejection):
        reference = _limited(shape, min(REFERENCE_SEQS, tokens), tokens)
        engine = engine_for(reference, predictor, held, question.typical)
        cap = seqs_cap(question.judge.seqs(engine, question.requests), grid[-1])
    said = f"KV space feeds {cap} sequences: of more, some would be preempted"
    question.tally.reject(f"{shape} max_num_seqs", "dominated", said, count=len([seqs for seqs in grid if seqs > cap]))
    quality = question.wish.quality_of(shape.quantization, shape.kv_dtype)
    most = most_replicas(question.wish, place, shape)
    for seqs in sorted({*(seqs for seqs in grid if seqs < cap), cap}):
        configuration = _limited(shape, seqs, tokens)
        held = question.facts.memory(configuration)
        if isinstance(held, Rejection):
            question.tally.reject(str(shape), held.reason, held.detail, nearest=held.nearest)
            continue
        engine = engine_for(configuration, predictor, held, question.typical)
        yield Option(
            configuration=configuration,
            place=place,
            engine=engine,
            slow=engine.slowest(question.facts.slow[shape]),
            quality=quality,
            most=most,
        )


def _limited(shape: Configuration, seqs: int, tokens: int) -> Configuration:
    return replace(shape, max_num_seqs=seqs, max_num_batched_tokens=tokens)


def engine_for(configuration: Configuration, predictor: Predictor, held: Memory, typical: int) -> Engine:
    """The engine of a configuration at the middle of its predictor, for requests of `typical` tokens."""
    return Engine(
        predictor=predictor,
        kv_tokens=held_tokens(held, typical, configuration.max_model_len),
        block_size=held.block_size,
        max_num_seqs=configuration.max_num_seqs,
        max_num_batched_tokens=configuration.max_num_batched_tokens,
        max_model_len=configuration.max_model_len,
        schedules_ahead=configuration.schedules_ahead,
        kv_bytes_per_token=held.kv_bytes_per_token * configuration.tp * configuration.pp,
    )


def seqs_cap(held: float, largest: int) -> int:
    """Largest max_num_seqs worth trying, given the sequences that KV space holds on average."""
    if not math.isfinite(held):
        return largest
    if held >= KV_CAP_FROM:
        return max(1, min(largest, int(KV_CAP * held)))
    never_reached = math.ceil(math.log2(max(2.0, 2 * held)))
    return min(largest, 1 << never_reached)


def most_replicas(wish: Wish, place: Place, configuration: Configuration) -> int:
    """Most replicas that one pool of the place can hold and the intent allows."""
    return max((replicas_in(wish, pool, place, configuration) for pool in place.pools), default=0)


def replicas_in(wish: Wish, pool: NodePool, place: Place, configuration: Configuration) -> int:
    """Most replicas of a configuration that one pool can hold and the intent allows."""
    if not hosts(pool, place.gpu, configuration):
        return 0
    need, node = configuration.gpus, pool.gpus_per_node
    room = pool.gpus // node * (node // need) + pool.gpus % node // need if need <= node else pool.gpus // need
    room *= pool.engines_per_gpu
    return min(room, wish.intent.max_replicas or room)


def held_tokens(held: Memory, typical: int, max_model_len: int) -> int:
    """Tokens that the KV space holds when requests are `typical` tokens long.

    Sliding-window layers keep short requests whole, so a model that has them holds fewer short ones than its count at
    max_model_len says.
    """
    if not any(window for window, _ in held.groups.windows):
        return held.kv_tokens
    return max(max_model_len, min(held.kv_tokens, held.tokens_at(max(1, typical))))
