"""Which sizes are worth measuring: a fixed coarse grid first, then the point that would narrow tonight's plan most.

The predictor interpolates along efficiency in log space, so sizes are spaced by factors. `COARSE` is what one pair
needs in seconds; `next_point` picks a further one where the interval is widest and the night's decision leans on it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from catalog.fingerprints import OpKind

Size = tuple[int, int]
"""(x, y) of an operator, in the meaning of `catalog.fingerprints`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Sizes by the kind of operator."""

    tokens: tuple[int, ...]
    sequences: tuple[int, ...]
    decode: tuple[Size, ...]
    prefill: tuple[Size, ...]

    def points(self, kind: OpKind) -> list[Size]:
        """Sizes at which an operator of that kind is measured."""
        match kind:
            case "attention_decode" | "mla_decode" | "block_decode":
                return list(self.decode)
            case "attention_prefill" | "mla_prefill" | "block_prefill":
                return list(self.prefill)
            case "lm_head" | "sampling":
                return [(n, 0) for n in self.sequences]
            case _:
                return [(m, 0) for m in self.tokens]

    def within(self, *, max_model_len: int, max_tokens: int, max_seqs: int) -> Grid:
        """The sizes that an engine with these limits can run."""
        return Grid(
            tokens=tuple(m for m in self.tokens if m <= max_tokens),
            sequences=tuple(n for n in self.sequences if n <= max_seqs),
            decode=tuple((n, c) for n, c in self.decode if n <= max_seqs and c < max_model_len),
            prefill=tuple((s, p) for s, p in self.prefill if s <= max_tokens and s + p < max_model_len),
        )


#: Batch {1, 8, 32, 128} and wide contrasts in context (SCIENCE.md 2, "Fingerprint probe, done well").
COARSE = Grid(
    tokens=(1, 8, 32, 128, 512, 2048, 8192),
    sequences=(1, 8, 32, 128),
    decode=tuple((n, c) for n in (1, 8, 32, 128) for c in (128, 1024, 8192)),
    prefill=tuple((s, p) for s in (64, 512, 2048, 8192) for p in (0, 4096)),
)
#: For a CPU or a small model: what an engine of a few thousand tokens meets.
SMALL = Grid(
    tokens=(1, 4, 16, 64, 256, 1024),
    sequences=(1, 4, 16, 32),
    decode=tuple((n, c) for n in (1, 4, 8, 16, 32) for c in (64, 768)),
    prefill=tuple((s, 0) for s in (16, 64, 256, 512, 1024)),
)


Where = TypeVar("Where", bound=Hashable)
"""A size, or an axis and a size on it."""


def next_point(
    candidates: Sequence[Where],
    *,
    interval: Mapping[Where, float],
    weight: Mapping[Where, float],
    seconds: Mapping[Where, float],
) -> Where | None:
    """The candidate whose measurement narrows the decision most per second of probing; None when nothing is gained.

    Args:
        candidates: sizes not measured yet, all of one type that sorts.
        interval: log width of the predictor's 90 % interval at each size; a measured point brings it near zero.
        weight: share of the decision's time that is spent at that size (zero where tonight's plan does not go).
        seconds: expected cost of measuring it.
    """
    gains = {
        size: interval.get(size, 0.0) * weight.get(size, 0.0) / max(seconds.get(size, 1.0), 1e-6) for size in candidates
    }
    best = max(sorted(gains), key=lambda size: gains[size], default=None)  # type: ignore[type-var]
    return best if best is not None and gains[best] > 0 else None


def only(sizes: Iterable[tuple[str, Size]]) -> Grid:
    """A grid of single sizes, each under the name of its axis (a field of `Grid`)."""
    found: dict[str, list[Size]] = {"tokens": [], "sequences": [], "decode": [], "prefill": []}
    for axis, size in sizes:
        found[axis].append(size)
    return Grid(
        tokens=tuple(x for x, _ in found["tokens"]), sequences=tuple(x for x, _ in found["sequences"]),
        decode=tuple(found["decode"]), prefill=tuple(found["prefill"]),
    )  # fmt: skip
