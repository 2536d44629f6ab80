"""KV blocks: pages, groups of layers, and how many blocks a request holds.

vLLM cuts the KV space into blocks of `block_size` tokens. Layers of one kind form groups of equal size; a request holds
blocks in each group (v1/core/kv_cache_utils.py, v1/kv_cache_interface.py):

    full attention   ceil(length / block_size)
    sliding window   ceil(min(window - 1 + in flight, length) / block_size) + 1
    MLA              as full attention, one latent vector per token and layer, not divided by TP

in flight = the tokens one step may add (max_num_batched_tokens) while a prompt is computed, 1 while it decodes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from catalog.models import Layer, Model
from catalog.quantizations import KV_BYTES
from planner.memory.weights import kv_heads_per_gpu, stage_layers
from planner.strategies import Configuration

BLOCK_SIZE = 16  # CacheConfig.DEFAULT_BLOCK_SIZE


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """Layers of one pipeline stage, as vLLM groups them for its block tables."""

    windows: tuple[tuple[int, int], ...]
    """(window, groups that have it), 0 = full attention."""
    group_layers: int
    """Layers per group."""
    layer_token_bytes: float
    """KV bytes of one token in one layer (the widest kind), per GPU."""

    @property
    def block_token_bytes(self) -> float:
        """KV bytes of one token in one group, per GPU."""
        return self.group_layers * self.layer_token_bytes

    def blocks(self, length: int, *, block_size: int, in_flight: int) -> int:
        """Blocks that one request of `length` tokens holds over all groups."""
        total = 0
        for window, count in self.windows:
            held = math.ceil(length / block_size)
            if window:
                held = min(held, math.ceil((window - 1 + in_flight) / block_size) + 1)
            total += count * held
        return total


def layer_token_bytes(model: Model, layer: Layer, configuration: Configuration) -> float:
    """KV bytes of one token in one layer, per GPU."""
    element = KV_BYTES[configuration.kv_dtype]
    if layer.attention == "mla" and model.mla is not None:
        return element * (model.mla.kv_lora_rank + model.mla.qk_rope_head_dim)
    return element * 2 * layer.head_dim * kv_heads_per_gpu(layer, configuration.tp)


def groups(model: Model, configuration: Configuration) -> Groups:
    """Group the layers of the largest stage: equal groups as long as the rarest kind, the last ones padded."""
    counts: dict[int, int] = {}
    for layer, count in stage_layers(model, configuration.pp):
        window = layer.window if layer.attention == "sliding" else 0
        counts[window] = counts.get(window, 0) + count
    # One group when there is one kind; when the kinds are almost as many as each other, the larger count (padded).
    rarest, commonest = min(counts.values()), max(counts.values())
    size = commonest if commonest < 1.25 * rarest else rarest
    widest = max(layer_token_bytes(model, layer, configuration) for layer, _ in model.layers)
    windows = tuple((window, math.ceil(count / size)) for window, count in sorted(counts.items()))
    return Groups(windows=windows, group_layers=size, layer_token_bytes=widest)
