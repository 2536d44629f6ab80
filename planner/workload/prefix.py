"""Prefix reuse from block hashes: how many prompt tokens a prefix cache would have held."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from catalog.errors import BadInput

#: Tokens per hashed block in Mooncake's published traces.
MOONCAKE_BLOCK = 512


def prefix_hits(
    blocks: Sequence[Sequence[int]],
    prompt: ArrayLike,
    *,
    block_tokens: int = MOONCAKE_BLOCK,
    capacity_blocks: int | None = None,
) -> NDArray[np.int64]:
    """Prompt tokens of each request that the requests before it left in the cache.

    `blocks` are chained hashes (equal id = equal text from the start up to there), in order of arrival; a request
    hits its leading run of known blocks, at most prompt - 1 tokens since vLLM computes the last one always. With
    `capacity_blocks` the least recently used blocks fall out, deeper ones of a prefix first, as vLLM frees them.
    """
    lengths = np.asarray(prompt, dtype=np.int64)
    if len(lengths) != len(blocks):
        what = f"{len(blocks)} lists of block hashes for {len(lengths)} prompts"
        raise BadInput(what, mend="give one list per request")
    held: OrderedDict[int, None] = OrderedDict()
    hits = np.zeros(len(lengths), dtype=np.int64)
    for index, chain in enumerate(blocks):
        known = 0
        while known < len(chain) and chain[known] in held:
            known += 1
        hits[index] = min(known * block_tokens, lengths[index] - 1)
        for block in reversed(chain):
            held[block] = None
            held.move_to_end(block)
        while capacity_blocks is not None and len(held) > capacity_blocks:
            held.popitem(last=False)
    return hits
