"""`memory`: how many KV tokens one vLLM engine holds, by vLLM's own rules, bounded on the safe side.

    KV space = HBM x gpu_memory_utilization - weights - activation peak - CUDA graphs (since 0.21) - buffers
    blocks   = KV space // bytes per block, one block is held back

Laws: more TP never takes more memory per GPU, more HBM never holds fewer tokens, fp8 KV holds twice the tokens.
Not modelled: vision towers and draft models. Checked against a measured engine (Llama-3.1-8B on one RTX 4090, vLLM
0.19: 2588 blocks) and meant to stay below it: too few blocks cost a little, too many break the start.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from catalog.fingerprints import Source
from catalog.gpus import GPU
from catalog.models import Model
from planner.memory import overhead
from planner.memory.blocks import BLOCK_SIZE, Groups, groups
from planner.memory.weights import weights_bytes
from planner.strategies import Configuration

__all__ = ["DoesNotFit", "Memory", "default_utilization", "hold", "memory"]

default_utilization = overhead.default_utilization

MARGIN = 0.1
"""Stated relative error of `kv_tokens`; the bias is towards too few."""


class DoesNotFit(Exception):
    """The model leaves too little KV space. `shortfall` is how many bytes per GPU are missing."""

    def __init__(self, detail: str, *, shortfall: float = 0.0) -> None:
        self.detail = detail
        self.shortfall = shortfall
        super().__init__(detail)


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What lies where on the fullest GPU of a replica (bytes per GPU), and what one engine can hold."""

    weights_bytes: float
    activation_bytes: float
    graph_bytes: float
    communication_bytes: float
    kv_bytes: float
    """KV space, in whole blocks."""
    kv_bytes_per_token: float
    """KV bytes that one more token of a long request takes: layers that see every token, none of the windows."""
    kv_tokens: int
    """Tokens in full-attention blocks that one engine holds when windows are counted at `max_model_len` (what vLLM
    prints as its KV cache size). For shorter requests of a model with windows use `tokens_at`."""
    num_blocks: int
    block_size: int
    max_concurrency: float
    """Requests of `max_model_len` tokens held at once."""
    max_num_batched_tokens: int
    groups: Groups
    source: Source = "roofline"
    margin: float = MARGIN

    @property
    def used_bytes(self) -> float:
        """Everything but KV space, per GPU."""
        return self.weights_bytes + self.activation_bytes + self.graph_bytes + self.communication_bytes

    @property
    def window_blocks(self) -> int:
        """Blocks that the sliding-window layers of one long decoding request keep, whatever its length."""
        return sum(count * (math.ceil(window / self.block_size) + 1) for window, count in self.groups.windows if window)

    def tokens_at(self, length: int) -> int:
        """Tokens held when every request is a decoding one of `length` tokens."""
        return int((self.num_blocks - 1) / hold(self, length) * length)


def hold(memory: Memory, length: int, *, prefilling: bool = False) -> int:
    """Blocks that a request of `length` tokens holds; while prefilling, windows keep one step's tokens more."""
    in_flight = memory.max_num_batched_tokens if prefilling else 1
    return memory.groups.blocks(length, block_size=memory.block_size, in_flight=in_flight)


def memory(  # noqa: PLR0913 - keywords with defaults
    model: Model,
    gpu: GPU,
    configuration: Configuration,
    *,
    vllm_version: str | None = "0.32.0",
    gpu_memory_utilization: float | None = None,
    block_size: int = BLOCK_SIZE,
) -> Memory:
    """Divide one GPU's memory as vLLM does at start-up.

    `gpu_memory_utilization` defaults to the version's own default; engines that share a GPU have equal parts of it,
    and each keeps `overhead.PROCESS_BYTES` for what vLLM does not count. Raises `DoesNotFit` when nothing is left for
    KV blocks or one request of `max_model_len` does not fit.
    """
    version = overhead.parse_version(vllm_version)
    utilization = default_utilization(vllm_version) if gpu_memory_utilization is None else gpu_memory_utilization
    weights = weights_bytes(model, configuration)
    activations = overhead.activation_bytes(model, configuration, version=version, block_size=block_size)
    graphs = overhead.graph_bytes(model, configuration)
    buffers = overhead.communication_bytes(configuration)
    subtracted = weights + activations + buffers
    subtracted += graphs if version >= overhead.GRAPHS_SUBTRACTED_SINCE else 0.0
    layout = groups(model, configuration)
    engines = configuration.engines_per_gpu
    space = gpu.memory * utilization / engines - subtracted - (overhead.PROCESS_BYTES if engines > 1 else 0.0)
    num_blocks = _blocks(space, layout, configuration, block_size=block_size)
    concurrency = num_blocks / _longest(layout, configuration, block_size=block_size)
    full = sum(count for window, count in layout.windows if not window) or 1
    return Memory(
        weights_bytes=weights,
        activation_bytes=activations,
        graph_bytes=graphs,
        communication_bytes=buffers,
        kv_bytes=num_blocks * block_size * layout.block_token_bytes,
        kv_bytes_per_token=full * layout.block_token_bytes,
        kv_tokens=int(concurrency * configuration.max_model_len),
        num_blocks=num_blocks,
        block_size=block_size,
        max_concurrency=concurrency,
        max_num_batched_tokens=configuration.max_num_batched_tokens,
        groups=layout,
    )


def _longest(layout: Groups, configuration: Configuration, *, block_size: int) -> int:
    """Blocks of one request of `max_model_len` tokens while its prompt is computed."""
    return layout.blocks(
        configuration.max_model_len, block_size=block_size, in_flight=configuration.max_num_batched_tokens
    )


def _blocks(space: float, layout: Groups, configuration: Configuration, *, block_size: int) -> int:
    """Whole blocks in `space` bytes; raises `DoesNotFit` when the longest request does not fit into all but one."""
    block_bytes = block_size * layout.block_token_bytes
    needed = (_longest(layout, configuration, block_size=block_size) + 1) * block_bytes
    if space < needed:
        what = "nothing is left for KV blocks" if space <= 0 else "one request of max_model_len does not fit"
        detail = (
            f"{what}: {space / 1e9:.1f} GB per GPU beside weights and activations, "
            f"{needed / 1e9:.1f} GB needed for {configuration.max_model_len} tokens"
        )
        raise DoesNotFit(detail, shortfall=needed - space)
    return int(space // block_bytes)
