"""`Op` and `Fingerprint`: measured times of the operators that one rank runs in an engine step.

A fingerprint holds, for each operator of one (model, GPU, TP, quantization), points (size -> seconds). The size of an
operator is up to two numbers, by its kind:

| kind | x | y | time of |
|---|---|---|---|
| `gemm`, `moe`, `elementwise`, collectives, `p2p` | tokens in the step | 0 | one layer's operator |
| `lm_head`, `sampling` | sequences | 0 | once per step |
| `attention_prefill`, `mla_prefill` | tokens of the chunk | tokens before it | one layer, one sequence |
| `attention_decode`, `mla_decode` | sequences | context of each | one layer, all sequences |
| `block_prefill`, `block_decode` | as the attentions | as the attentions | one whole block of an engine's step |

A fingerprint of a running engine holds blocks instead of operators: `count` times a block of each kind, and once the
`base` that every step pays (embedding, head, scheduler, sampling). `overhead` is what a served run adds: per `step`,
per `sequence` of a step, per `request`, per `output_token` of a request.

Collectives are `all_reduce`, `all_to_all`, `all_gather`, `reduce_scatter`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import polars as pl

OpKind = Literal[
    "gemm", "moe", "elementwise", "all_reduce", "all_to_all", "all_gather", "reduce_scatter", "p2p",
    "lm_head", "sampling", "attention_prefill", "attention_decode", "mla_prefill", "mla_decode",
    "block_prefill", "block_decode", "overhead",
]  # fmt: skip

#: Where a number comes from, strongest first; when numbers are combined the weakest source wins.
Source = Literal["measured", "reference", "fitted", "transferred", "roofline"]
SOURCES: tuple[Source, ...] = ("measured", "reference", "fitted", "transferred", "roofline")


def weakest(*sources: Source) -> Source:
    """The source of a number that was combined from several."""
    return max(sources, key=SOURCES.index)


@dataclass(frozen=True, slots=True, kw_only=True)
class Op:
    """One operator of a rank: what it computes, and how often per step."""

    name: str
    kind: OpKind
    count: int
    """Times per step (layers that have it)."""
    dtype: str
    """Weight format of a gemm or moe (a QuantizationName), KV format of an attention."""
    shape: tuple[tuple[str, int], ...]
    """Sizes that tell this operator from another of its kind, per rank: (('n', 6144), ('k', 4096))."""

    def size(self, key: str, default: int = 0) -> int:
        """One entry of the shape."""
        return dict(self.shape).get(key, default)


@dataclass(frozen=True, slots=True, kw_only=True)
class FingerprintKey:
    """What a measurement was made on; any difference makes it another fingerprint."""

    model: str
    model_digest: str
    gpu: str
    tp: int
    quantization: str
    kv_dtype: str
    ep: int = 1
    engine: str = "vllm"
    engine_version: str
    driver: str = ""
    flags: tuple[str, ...] = ()
    runner: str


POINTS_SCHEMA = pl.Schema(
    {
        "op": pl.String,
        "kind": pl.String,
        "dtype": pl.String,
        "shape": pl.String,
        "count": pl.Int64,
        "x": pl.Float64,
        "y": pl.Float64,
        "time_s": pl.Float64,
        "spread": pl.Float64,
        "source": pl.String,
    }
)
"""Columns of `Fingerprint.points`; `shape` reads `k=4096,n=6144`, `spread` is relative over repeats (0 = unknown)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fingerprint:
    """Measured operator times of one key, and what could not be measured."""

    key: FingerprintKey
    points: pl.DataFrame
    """Rows by `POINTS_SCHEMA`."""
    failures: dict[str, str] = field(default_factory=dict)
    """Operator or point -> why it has no measurement (not in the tables, out of memory, crash, hang)."""
    provenance: str = ""
    """Who measured: package and version of the tables, or machine, driver and time."""
