"""Fingerprints that a user already has: per-layer timings of vLLM in the layout of LLMServingSim's profiler.

    <hardware>/<model>/<variant>/meta.yaml, tp<N>/{dense,per_sequence,attention,moe}.csv       (times in us)

Each file's layers become our operators of the same sizes. Attention rows that mix a prefill chunk with decodes are left
out: a predictor adds the two parts, and the rows that time them apart give both. `moe.csv` is read at the number of
experts that its tokens are expected to touch. What the layout does not hold (collectives) is listed in `failures`;
`completed` fills it from another fingerprint of the same key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import yaml

from catalog.errors import BadInput
from catalog.fingerprints import Fingerprint, FingerprintKey, Op, OpKind
from catalog.gpus import find_gpu
from catalog.models import Model, find_model
from probes.runners import Timing, points, refused

_VARIANTS: Mapping[str, str] = {"bf16": "bf16", "fp8": "fp8"}
_MAX_ROWS = 1_000_000
_MAX_META_BYTES = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """One tp<N> folder."""

    folder: Path
    model: Model
    tp: int
    quantization: str


def read_fingerprints(root: Path) -> list[Fingerprint]:
    """Read every tp<N> folder below `root`, sorted by path; folders are searched four levels deep at most.

    Raises:
        BadInput: a meta.yaml or table that is no table, with its path; an unknown GPU, model or variant.
    """
    found = []
    for meta in (
        sorted(root.glob("*/*/meta.yaml"))
        + sorted(root.glob("*/*/*/meta.yaml"))
        + sorted(root.glob("*/*/*/*/meta.yaml"))
    ):
        found += list(_read_variant(meta))
    if not found:
        raise BadInput("no meta.yaml of a profiled model", place=str(root), mend="name the folder of the hardware")
    return found


def completed(fingerprint: Fingerprint, other: Fingerprint) -> Fingerprint:
    """Add operators that only the other fingerprint holds; what both hold stays as in the first."""
    mine = {(kind, dtype, shape) for kind, dtype, shape in fingerprint.points.select("kind", "dtype", "shape").rows()}
    rows = other.points.select("kind", "dtype", "shape").rows()
    extra = other.points.filter(pl.Series([row not in mine for row in rows], dtype=pl.Boolean))
    names = set(extra["op"])
    failures = {name: reason for name, reason in fingerprint.failures.items() if name not in names}
    provenance = f"{fingerprint.provenance}; rest: {other.provenance}"
    return replace(fingerprint, points=pl.concat([fingerprint.points, extra]), failures=failures,
                   provenance=provenance)  # fmt: skip


def _read_variant(path: Path) -> Iterator[Fingerprint]:
    meta = _meta(path)
    variant = str(meta.get("variant", path.parent.name))
    if variant not in _VARIANTS:
        raise BadInput(f"unsupported: variant {variant[:60]!r}", place=str(path), mend="bf16 and fp8 are read")
    model, gpu = find_model(str(meta.get("model"))), find_gpu(str(meta.get("gpu")))
    for folder in sorted(path.parent.glob("tp[0-9]*")):
        run = _Run(folder=folder, model=model, tp=_degree(folder), quantization=_VARIANTS[variant])
        key = FingerprintKey(
            model=model.name, model_digest=model.digest, gpu=gpu.name, tp=run.tp, quantization=run.quantization,
            kv_dtype="bf16", engine_version=str(meta.get("vllm_version", "")), runner="imported",
            flags=("enforce_eager",),
        )  # fmt: skip
        timed, failures = _timings(run)
        provenance = f"LLMServingSim profile of {meta.get('gpu')} at {meta.get('profiled_at')}"
        yield Fingerprint(key=key, points=points(timed), failures=failures, provenance=provenance)


def _meta(path: Path) -> dict[str, object]:
    if path.stat().st_size > _MAX_META_BYTES:
        raise BadInput("is larger than 1 MB", place=str(path), mend="name a folder that the profiler wrote")
    try:
        meta = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"is no YAML: {error}", place=str(path)) from error
    if not isinstance(meta, dict):
        raise BadInput("holds no mapping", place=str(path), mend="name a folder that the profiler wrote")
    return meta


def _degree(folder: Path) -> int:
    number = folder.name.removeprefix("tp")
    if not number.isdecimal() or not 1 <= int(number) <= 64:
        raise BadInput(f"{folder.name!r} names no tensor-parallel degree", place=str(folder))
    return int(number)


def _timings(run: _Run) -> tuple[list[tuple[Op, Timing]], dict[str, str]]:
    failures = {"all_reduce": "the layout times one rank alone"} if run.tp > 1 else {}
    timed: list[tuple[Op, Timing]] = []
    for name, read in (("dense.csv", _dense), ("per_sequence.csv", _per_sequence), ("attention.csv", _attention),
                       ("moe.csv", _moe)):  # fmt: skip
        path = run.folder / name
        if path.is_file():
            timed += read(run, _table(path, failures))
        elif name != "moe.csv" or run.model.moe is not None:
            failures[name.removesuffix(".csv")] = f"{path.name} is absent"
    return timed, failures


def _table(path: Path, failures: dict[str, str]) -> pl.DataFrame:
    """Read a CSV with its time as `time_s`; rows that cannot be true are refused and counted in `failures`."""
    try:
        frame = pl.read_csv(path, n_rows=_MAX_ROWS, infer_schema_length=None)
        # Columns named x and y are checked by `refused`; here only the time can be.
        frame = frame.with_columns(time_s=pl.col("time_us").cast(pl.Float64) * 1e-6, x=pl.lit(1.0), y=pl.lit(0.0))
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        raise BadInput(f"is no table of timings: {error}", place=str(path)) from error
    good, counts = refused(frame)
    failures |= {f"{path.name}: {count} rows": reason for reason, count in counts.items()}
    return good


def _timing(x: pl.Series, time_s: pl.Series, y: pl.Series | None = None) -> Timing:
    sizes = x.cast(pl.Float64).to_numpy()
    contexts = np.zeros_like(sizes) if y is None else y.cast(pl.Float64).to_numpy()
    keep = sizes > 0
    return Timing(x=sizes[keep], y=contexts[keep], time_s=time_s.to_numpy()[keep], source="measured")


def _op(name: str, kind: OpKind, count: int, dtype: str, **shape: int) -> Op:
    return Op(name=name, kind=kind, count=count, dtype=dtype, shape=tuple(sorted(shape.items())))


def _sizes(run: _Run) -> dict[str, int]:
    layer = run.model.layers[0][0]
    return {
        "layers": run.model.num_layers, "hidden": run.model.hidden_size, "head_dim": layer.head_dim,
        "heads": max(1, layer.num_heads // run.tp), "kv_heads": max(1, layer.num_kv_heads // run.tp),
        "width": max(1, layer.intermediate_size // run.tp),
    }  # fmt: skip


def _dense(run: _Run, frame: pl.DataFrame) -> list[tuple[Op, Timing]]:
    s = _sizes(run)
    qkv, layers, h = (s["heads"] + 2 * s["kv_heads"]) * s["head_dim"], s["layers"], s["hidden"]
    known = {
        "qkv_proj": _op("qkv", "gemm", layers, run.quantization, n=qkv, k=h),
        "o_proj": _op("o_proj", "gemm", layers, run.quantization, n=h, k=s["heads"] * s["head_dim"]),
        "gate_up_proj": _op("gate_up", "gemm", layers, run.quantization, n=2 * s["width"], k=h),
        "down_proj": _op("down", "gemm", layers, run.quantization, n=h, k=s["width"]),
        "act_fn": _op("act", "elementwise", layers, "bf16", read=4 * s["width"], write=2 * s["width"]),
        "layernorm": _op("norm", "elementwise", 2 * layers, "bf16", read=4 * h, write=4 * h),
        "rotary_emb": _op("rope", "elementwise", layers, "bf16", read=2 * qkv, write=2 * qkv),
    }
    # Norms of q and k run beside the rotary embedding: one operator of ours.
    extra = frame.filter(pl.col("layer") == "qk_norm").select("tokens", extra_s="time_s")
    frame = frame.join(extra, on="tokens", how="left").with_columns(
        time_s=pl.col("time_s")
        + pl.when(pl.col("layer") == "rotary_emb").then(pl.col("extra_s").fill_null(0)).otherwise(0)
    )
    found = []
    for name, op in known.items():
        rows = frame.filter(pl.col("layer") == name).sort("tokens")
        if rows.height:
            found.append((op, _timing(rows["tokens"], rows["time_s"])))
    return found


def _per_sequence(run: _Run, frame: pl.DataFrame) -> list[tuple[Op, Timing]]:
    vocab = -(-run.model.vocab_size // run.tp)
    known = {
        "lm_head": _op("lm_head", "lm_head", 1, "bf16", n=vocab, k=run.model.hidden_size),
        "sampler": _op("sampling", "sampling", 1, "bf16", read=18 * run.model.vocab_size, write=0),
    }
    found = []
    for name, op in known.items():
        rows = frame.filter(pl.col("layer") == name).sort("sequences")
        if rows.height:
            found.append((op, _timing(rows["sequences"], rows["time_s"])))
    return found


def _attention(run: _Run, frame: pl.DataFrame) -> list[tuple[Op, Timing]]:
    s = _sizes(run)
    shape = {"heads": s["heads"], "kv_heads": s["kv_heads"], "head_dim": s["head_dim"],
             "window": run.model.layers[0][0].window}  # fmt: skip
    decode = frame.filter(pl.col("prefill_chunk") == 0).sort("n_decode", "kv_decode")
    prefill = frame.filter(pl.col("n_decode") == 0).sort("prefill_chunk", "kv_prefill")
    return [
        (_op("attention_prefill", "attention_prefill", s["layers"], "bf16", **shape),
         _timing(prefill["prefill_chunk"], prefill["time_s"], prefill["kv_prefill"])),
        (_op("attention_decode", "attention_decode", s["layers"], "bf16", **shape),
         _timing(decode["n_decode"], decode["time_s"], decode["kv_decode"])),
    ]  # fmt: skip


def _moe(run: _Run, frame: pl.DataFrame) -> list[tuple[Op, Timing]]:
    moe = run.model.moe
    if moe is None:
        return []
    op = _op("moe", "moe", sum(count for layer, count in run.model.layers if layer.ffn == "moe"), run.quantization,
             hidden=run.model.hidden_size, inter=moe.intermediate_size, topk=moe.top_k, experts=moe.num_experts,
             tp=run.tp, ep=1, group=1)  # fmt: skip
    tokens, time_s = [], []
    for (count,), rows in frame.sort("tokens", "activated_experts").group_by("tokens", maintain_order=True):
        touched = moe.num_experts * (1 - (1 - moe.top_k / moe.num_experts) ** float(count))
        known = rows["activated_experts"].to_numpy()
        tokens.append(float(count))
        time_s.append(float(np.interp(touched, known, rows["time_s"].to_numpy())))
    return [(op, _timing(pl.Series(tokens), pl.Series(time_s)))]
