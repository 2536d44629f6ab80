"""The stage search: what the catalog says of an intent's strategies, handed to the search; and the pairs it needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from catalog.cluster import Cluster, NodePool
from catalog.fitted import Constants
from catalog.gpus import GPU
from catalog.models import Model
from catalog.power import load_power
from catalog.prices import price
from catalog.quality import quality
from flows.fit import Predictors
from flows.fleet import LoadedFleet
from flows.probe import Fingerprints, Pair, pair_of
from flows.steps import TELL
from planner.candidates import search as search_strategies
from planner.candidates.asking import needed_length
from planner.candidates.judge import Queueing
from planner.candidates.space import GRID, Place, Wish, shapes
from planner.candidates.tally import Tally
from planner.candidates.unmet import nearest_relaxations
from planner.intents import Intent
from planner.memory import DoesNotFit, Memory, memory
from planner.naive import naive_cost_of
from planner.plan import Relaxation, Search
from planner.queueing import rules_for
from planner.strategies import Configuration, Rejection
from planner.workload import Requests, admit, demand

#: Strategies of an intent that are simulated after the closed form has ranked all: half of what loses nothing at all
#: against simulating every one (<= 0.2 % regret at 10 finalists, none at 20), which halves the time of a night.
FINALISTS = 12
#: A share this close to one is the whole rate.
WHOLE = 1.0 - 1e-9


@dataclass(slots=True, kw_only=True, eq=False)
class Facts:
    """Everything that a search and an assembly ask of the catalog, for the intents of one fleet."""

    loaded: LoadedFleet
    gpus: Mapping[str, GPU]
    requests: Mapping[str, Requests]
    constants: Constants
    fingerprints: Fingerprints
    measured_by: str
    """Name of the runner whose fingerprints are used."""
    predictors: Predictors | None = None
    """Set once the fingerprints are there."""
    memories: dict[Configuration, Memory | Rejection] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """What was said of the loads."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Intents whose load nobody knows, with the reason."""

    @property
    def models(self) -> dict[str, Model]:
        """Models by the name that configurations carry."""
        return {model.name: model for model in self.loaded.models.values()}

    @property
    def prices(self) -> dict[str, float]:
        """Node pool -> dollars per GPU and hour: the pool's own, else the catalog's."""
        pools = self.loaded.fleet.cluster.pools
        return {
            pool.name: price(pool.gpu, pool.tier).value if pool.own_price is None else pool.own_price for pool in pools
        }

    @property
    def judge(self) -> Queueing:
        """What judges strategies: queueing by the rules of the vLLM version that the manifests will name."""
        return Queueing(rules=rules_for(self.loaded.fleet.vllm_version))

    def pair_of(self, configuration: Configuration) -> Pair:
        """The pair whose fingerprint a configuration needs."""
        version = self.loaded.fleet.vllm_version
        model, gpu = self.models[configuration.model], self.gpus[configuration.gpu]
        return pair_of(model, gpu, configuration, runner=self.measured_by, version=version)

    def memory_of(self, configuration: Configuration) -> Memory | Rejection:
        """Memory of a configuration, asked once; what does not fit is a rejection."""
        if configuration not in self.memories:
            self.memories[configuration] = self._memory(configuration)
        return self.memories[configuration]

    def _memory(self, configuration: Configuration) -> Memory | Rejection:
        model, gpu = self.models[configuration.model], self.gpus[configuration.gpu]
        try:
            return memory(model, gpu, configuration, vllm_version=self.loaded.fleet.vllm_version)
        except DoesNotFit as refusal:
            short = {"missing_bytes": refusal.shortfall}
            what = str(configuration)
            return Rejection(
                intent="", strategy=what, reason="does_not_fit_memory", detail=refusal.detail, nearest=short
            )


def refusals(facts: Facts) -> tuple[str, ...]:
    """What of each intent's requests vLLM would answer with an error, or cut: one line per reason, with its count."""
    said = []
    for intent in facts.loaded.fleet.intents:
        requests = facts.requests.get(intent.name)
        if requests is None:
            continue
        if requests.silent:
            left = "without an output token (the client left, or an error came) are left out"
            said.append(f"{intent.name}: {requests.silent:,} requests of its trace {left}")
        longest = needed_length(intent, facts.loaded.models[intent.model], requests)
        found, size = admit(requests.prompt, requests.output, longest), len(requests.prompt)
        missed = "vLLM refuses them, which misses the SLO"
        said += [f"{intent.name}: {n:,} of {size:,} requests: {why}: {missed}" for why, n in found.reasons.items()]
        if found.cut:
            said.append(f"{intent.name}: {found.cut:,} of {size:,} answers end at max_model_len {longest:,}")
    return tuple(said)


def pairs(intent: Intent, facts: Facts) -> Iterator[Pair]:
    """Pairs that the intent's strategies need on the fleet's GPU types: every shape that vLLM would start there."""
    if intent.name in facts.missing:
        return
    model = facts.loaded.models[intent.model]
    wish = Wish(
        intent=intent,
        model=model,
        max_model_len=needed_length(intent, model, facts.requests[intent.name]),
        quality_of=lambda quantization, kv_dtype: quality(model, quantization, kv_dtype).value,
    )

    def fits(shape: Configuration) -> bool:
        return isinstance(
            facts.memory_of(replace(shape, max_num_seqs=GRID[0][0], max_num_batched_tokens=GRID[0][1])), Memory
        )

    for _, shape in shapes(wish, _places(facts), fits, Tally(intent=intent.name)):
        yield facts.pair_of(shape)


def _places(facts: Facts) -> list[Place]:
    by_gpu: dict[str, list[NodePool]] = {}
    for pool in facts.loaded.fleet.cluster.pools:
        if pool.gpus:
            by_gpu.setdefault(pool.gpu, []).append(pool)
    return [Place(gpu=facts.gpus[name], pools=tuple(by_gpu[name])) for name in sorted(by_gpu)]


def search(intent: Intent, facts: Facts, predictors: Predictors) -> Search:
    """Search every strategy of one intent; where none serves it whole, look for the nearest change that would.

    The naive baseline is sized by the same estimates, so that what the plan saves is no matter of the estimate.
    """
    if intent.name in facts.missing:
        unknown = Rejection(intent=intent.name, strategy="any", reason="no_data", detail=facts.missing[intent.name])
        return Search(rejections=(unknown,))
    asked = _asked(intent, facts, predictors, facts.loaded.fleet.cluster)
    candidates, rejections = search_strategies(
        intent, **asked, simulated=FINALISTS, watts=load_power(), progress=TELL.get()
    )
    whole = any(candidate.share >= WHOLE for candidate in candidates)
    relaxations = () if whole else nearest_relaxations(intent, **asked, progress=TELL.get())
    return Search(
        candidates=candidates,
        rejections=rejections,
        relaxations=relaxations,
        rate=demand(facts.requests[intent.name]),
        naive_cost=naive_cost_of(intent, **asked),
    )


def nearest_changes(
    intent: Intent, facts: Facts, predictors: Predictors, *, cluster: Cluster
) -> tuple[Relaxation, ...]:
    """How far each wish of an intent is from feasible on another cluster, such as what the other intents leave."""
    return nearest_relaxations(intent, **_asked(intent, facts, predictors, cluster))


def _asked(intent: Intent, facts: Facts, predictors: Predictors, cluster: Cluster) -> dict[str, Any]:
    """What every question about an intent's strategies takes."""
    return {
        "cluster": cluster,
        "gpus": facts.gpus,
        "model": facts.loaded.models[intent.model],
        "requests": facts.requests[intent.name],
        "predictor_of": predictors.of(intent.name),
        "memory_of": facts.memory_of,
        "prices": facts.prices,
        "quality_of": quality,
        "judge": facts.judge,
    }
