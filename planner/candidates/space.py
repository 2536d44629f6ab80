"""The space of one intent: every configuration that vLLM would accept, and why it would refuse the others.

A *shape* is a configuration without its batch limits: GPU type, parallelism, weight and KV format. The rules are
vLLM's own (config/model.py, config/parallel.py and the quantization layers, 0.32):

    attention    heads % tp == 0; kv heads % tp == 0, or replicated: tp % kv heads == 0
    feed-forward intermediate % tp == 0; routed experts likewise unless they are spread whole (expert parallel)
    blocks       fp8_block and int4 keep one scale per 128 rows: every split width is a multiple of 128
    pipeline     pp <= layers; used where one node or one card is too small, not for its own sake
    experts      ep = tp x dp <= experts; data-parallel attention only with expert parallel
    context      max_model_len <= max_position_embeddings; max_num_batched_tokens >= max_num_seqs
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from catalog.cluster import NodePool
from catalog.gpus import GPU
from catalog.models import Layer, Model
from catalog.quantizations import QUANTIZATION_NAMES, QUANTIZATIONS, KVDtype, QuantizationName
from planner.candidates.tally import Tally
from planner.intents import Intent
from planner.strategies import Configuration, Reason

MAX_NUM_SEQS = (8, 16, 32, 64, 128, 256, 512, 1024)
MAX_NUM_BATCHED_TOKENS = (2048, 4096, 8192, 16384)
#: (max_num_seqs, max_num_batched_tokens) that every shape is tried with.
GRID = tuple((seqs, tokens) for tokens in MAX_NUM_BATCHED_TOKENS for seqs in MAX_NUM_SEQS if seqs <= tokens)
KV_DTYPES: tuple[KVDtype, ...] = ("bf16", "fp8")
MAX_PP = 16
#: Expert parallelism beyond this many GPUs is not proposed: no table measures its all-to-all.
MAX_EP = 32
#: Rows that share one scale, where a split must not cut through them (mxfp4 and nvfp4 are padded by vLLM).
SCALE_BLOCK: dict[QuantizationName, int] = {"fp8_block": 128, "int4": 128}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One GPU type of the cluster: its data sheet and the node pools that hold it and that the intent may use."""

    gpu: GPU
    pools: tuple[NodePool, ...]

    @property
    def domain(self) -> int:
        """Most GPUs of one node that tensor parallelism may span, over the pools."""
        return max(link_domain(pool, self.gpu) for pool in self.pools)

    @property
    def node(self) -> int:
        """Most GPUs of one node."""
        return max(pool.gpus_per_node for pool in self.pools)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a shape cannot be: the family it is counted in, the reason and the words."""

    family: str
    reason: Reason
    detail: str
    nearest: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the rules need to know of the intent."""

    intent: Intent
    model: Model
    max_model_len: int
    quality_of: Callable[[QuantizationName, KVDtype], float]


def link_domain(pool: NodePool, gpu: GPU) -> int:
    """GPUs of a node that tensor parallelism may span: the pool's domain, else the GPU's.

    Cards without a fast link are joined by PCIe inside their node; `link_domain: 1` on the pool forbids to use it.
    """
    linked = pool.link_domain or (gpu.link_domain if gpu.link_domain > 1 else pool.gpus_per_node)
    return min(linked, pool.gpus_per_node)


def hosts(pool: NodePool, gpu: GPU, configuration: Configuration) -> bool:
    """Whether one replica can stand on nodes of this pool: within a domain, a node, or whole nodes of it."""
    need = configuration.gpus
    if pool.engines_per_gpu != configuration.engines_per_gpu:
        return False
    if need > pool.gpus or configuration.tp > link_domain(pool, gpu):
        return False
    if need <= pool.gpus_per_node:
        return True
    whole = need % pool.gpus_per_node == 0 and pool.gpus_per_node % configuration.tp == 0
    return whole and (pool.network.kind != "ethernet" or not configuration.expert_parallel)


def offered(model: Model) -> tuple[QuantizationName, ...]:
    """Weight formats that can be served: the checkpoint's own, published ones, and online fp8 from bf16."""
    names = {model.native, *(name for name, _ in model.checkpoints)}
    if model.native == "bf16":
        names.add("fp8")
    return tuple(name for name in QUANTIZATION_NAMES if name in names)


def shapes(
    wish: Wish, places: Sequence[Place], fits: Callable[[Configuration], bool], tally: Tally
) -> Iterator[tuple[Place, Configuration]]:
    """Yield every shape that vLLM would start; the others are counted, each as `len(GRID)` strategies.

    `fits(configuration)` tells whether weights and activations leave KV space; what does not is counted here by the
    caller's words. Pipeline stages are added while it does not, or where no fast link joins the cards.
    """
    for place, quantization, kv_dtype in product(places, offered(wish.model), KV_DTYPES):
        refused = format_refusal(wish, place.gpu, quantization, kv_dtype)
        for tp, dp, expert_parallel in splits(place, wish.model):
            for pp in stages(place, wish.model, tp=tp, dp=dp):
                configuration = Configuration(
                    model=wish.model.name,
                    gpu=place.gpu.name,
                    tp=tp,
                    pp=pp,
                    dp=dp,
                    expert_parallel=expert_parallel,
                    quantization=quantization,
                    kv_dtype=kv_dtype,
                    max_model_len=wish.max_model_len,
                )
                refusal = refused or split_refusal(wish.model, configuration) or _placeless(place, configuration)
                if refusal is not None:
                    tally.reject(
                        refusal.family, refusal.reason, refusal.detail, count=len(GRID), nearest=refusal.nearest
                    )
                    break
                if fits(configuration):
                    yield place, configuration
                    if place.gpu.link_domain > 1:
                        break  # more stages would only add bubbles
        yield from _parts(wish, place, quantization, kv_dtype, (refused, fits, tally))


def _parts(
    wish: Wish,
    place: Place,
    quantization: QuantizationName,
    kv_dtype: KVDtype,
    rules: tuple[Refusal | None, Callable[[Configuration], bool], Tally],
) -> Iterator[tuple[Place, Configuration]]:
    """The shapes that hold a part of a GPU, one for each number of engines by which the place's pools share theirs."""
    refused, fits, tally = rules
    for engines in sorted({pool.engines_per_gpu for pool in place.pools} - {1}):
        configuration = Configuration(
            model=wish.model.name,
            gpu=place.gpu.name,
            quantization=quantization,
            kv_dtype=kv_dtype,
            max_model_len=wish.max_model_len,
            engines_per_gpu=engines,
        )
        if refused is not None:
            tally.reject(refused.family, refused.reason, refused.detail, count=len(GRID), nearest=refused.nearest)
        elif fits(configuration):
            yield place, configuration


def splits(place: Place, model: Model) -> Iterator[tuple[int, int, bool]]:
    """(tp, dp, expert parallel) of one node or, for many experts, of several: powers of two."""
    for tp in _powers(place.domain):
        yield tp, 1, False
    if model.moe is None:
        return
    most = MAX_EP if model.moe.num_experts >= 4 * MAX_EP else place.domain
    for tp in _powers(place.domain):
        for dp in _powers(max(1, most // tp)):
            if tp * dp > 1:
                yield tp, dp, True


def stages(place: Place, model: Model, *, tp: int, dp: int) -> Iterator[int]:
    """Pipeline depths to try: 1, and more only where tensor parallelism is at its widest or the link is slow."""
    yield 1
    widest = tp == max(_powers(place.domain))
    if dp == 1 and (widest or place.gpu.link_domain == 1):
        yield from (pp for pp in _powers(min(MAX_PP, model.num_layers)) if pp > 1)


def format_refusal(wish: Wish, gpu: GPU, quantization: QuantizationName, kv_dtype: KVDtype) -> Refusal | None:
    """Why the intent or the GPU refuses a weight or KV format; None where both take it."""
    intent, name = wish.intent, f"{gpu.name}-{quantization}" + "-kv8" * (kv_dtype == "fp8")
    if wish.max_model_len > wish.model.max_position_embeddings:
        most = wish.model.max_position_embeddings
        detail = f"requests of {wish.max_model_len} tokens are longer than the model's {most}"
        numbers = {"tokens": float(wish.max_model_len), "tokens_limit": float(most)}
        return Refusal(family=wish.model.name, reason="context_too_long", detail=detail, nearest=numbers)
    if intent.quantizations is not None and quantization not in intent.quantizations:
        detail = f"the intent allows {', '.join(intent.quantizations)}"
        return Refusal(family=quantization, reason="forbidden_by_intent", detail=detail)
    if intent.kv_dtypes is not None and kv_dtype not in intent.kv_dtypes:
        detail = f"the intent allows KV in {', '.join(intent.kv_dtypes)}"
        return Refusal(family=f"kv {kv_dtype}", reason="forbidden_by_intent", detail=detail)
    if not computes(gpu, quantization):
        detail = f"vLLM does not serve {quantization} weights on {gpu.name}"
        return Refusal(family=name, reason="unsupported_by_gpu", detail=detail)
    if kv_dtype == "fp8" and "fp8" not in gpu.peak:
        return Refusal(family=name, reason="unsupported_by_gpu", detail=f"{gpu.name} has no fp8 for the KV cache")
    quality = wish.quality_of(quantization, kv_dtype)
    if quality < intent.quality:
        detail = f"quality {quality:.4g} of the unquantized score is below the floor {intent.quality:.4g}"
        numbers = {"quality": quality, "quality_limit": intent.quality}
        return Refusal(family=name.partition("-")[2], reason="quality_below_floor", detail=detail, nearest=numbers)
    return None


def computes(gpu: GPU, quantization: QuantizationName) -> bool:
    """Whether vLLM serves the weight format on the GPU: by CUDA capability, elsewhere by what it multiplies."""
    needs = QUANTIZATIONS[quantization]
    if gpu.vendor == "nvidia":
        return gpu.compute_capability >= needs.min_capability
    return needs.compute in gpu.peak


def split_refusal(model: Model, configuration: Configuration) -> Refusal | None:
    """Why vLLM would not split the model so; None where it does."""
    tp, name = configuration.tp, f"{configuration.gpu}-tp{configuration.tp}"
    for layer, _ in model.layers:
        said = _layer_refusal(layer, tp) or _width_refusal(model, layer, configuration)
        if said:
            ep = f"-ep{configuration.ep}" if configuration.expert_parallel else ""
            return Refusal(family=name + ep, reason="does_not_divide", detail=said)
    if model.moe is not None and configuration.ep > model.moe.num_experts:
        detail = f"{model.moe.num_experts} experts are fewer than {configuration.ep} ranks"
        return Refusal(family=f"{name}-ep{configuration.ep}", reason="does_not_divide", detail=detail)
    if configuration.pp > model.num_layers:
        detail = f"{model.num_layers} layers are fewer than {configuration.pp} stages"
        return Refusal(family=f"{name}-pp{configuration.pp}", reason="does_not_divide", detail=detail)
    return None


def _layer_refusal(layer: Layer, tp: int) -> str:
    if layer.num_heads % tp:
        return f"{layer.num_heads} attention heads do not divide by tp {tp}"
    kv = layer.num_kv_heads
    if layer.attention != "mla" and kv % tp and tp % kv:
        return f"{kv} KV heads neither divide by tp {tp} nor repeat in it"
    return ""


def _width_refusal(model: Model, layer: Layer, configuration: Configuration) -> str:
    """The feed-forward widths of one layer, split over ranks, against divisibility and scale blocks."""
    tp, block = configuration.tp, SCALE_BLOCK.get(configuration.quantization, 1)
    widths = []
    if layer.ffn == "dense":
        widths.append(("intermediate size", layer.intermediate_size, tp))
    elif model.moe is not None:
        spread = 1 if configuration.expert_parallel else tp * configuration.dp
        widths.append(("experts' intermediate size", model.moe.intermediate_size, spread))
        widths.append(("shared experts' intermediate size", model.moe.shared_intermediate_size, tp))
    for what, width, ranks in widths:
        if width % ranks:
            return f"{what} {width} does not divide by {ranks}"
        if ranks > 1 and (width // ranks) % block:
            return f"{what} {width} over {ranks} ranks cuts through {configuration.quantization}'s blocks of {block}"
    return ""


def _placeless(place: Place, configuration: Configuration) -> Refusal | None:
    if any(hosts(pool, place.gpu, configuration) for pool in place.pools):
        return None
    numbers = {"gpus": float(configuration.gpus), "gpus_limit": float(max(pool.gpus for pool in place.pools))}
    detail = f"no pool of {place.gpu.name} can hold a replica of {configuration.gpus} GPUs"
    shared = [f"{pool.name} ({pool.engines_per_gpu} engines a GPU)" for pool in place.pools if pool.engines_per_gpu > 1]
    if shared:
        detail += f"; {', '.join(shared)} takes only engines that share a GPU"
    family = f"{configuration.gpu}-tp{configuration.tp}" + f"-pp{configuration.pp}" * (configuration.pp > 1)
    family += f"-dp{configuration.dp}" * (configuration.dp > 1)
    return Refusal(family=family, reason="not_enough_gpus", detail=detail, nearest=numbers)


def _powers(most: int) -> tuple[int, ...]:
    return tuple(2**k for k in range(most.bit_length()) if 2**k <= most)
