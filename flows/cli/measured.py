"""Commands on measurements: `predict` conditions, `replay` a request log, import fingerprints and `vllm bench` runs."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catalog.errors import BadInput
from flows.cli import options

if TYPE_CHECKING:
    from catalog.store import Store

Predictions = Annotated[Path, typer.Option("--out", help="Parquet file to write.")]
Count = Annotated[int | None, typer.Option(min=1)]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(predict)
    app.command()(replay)
    app.command()(import_fingerprints)
    app.command()(import_bench)


def predict(
    *,
    inputs: Annotated[Path, typer.Option(help="Conditions: Parquet or CSV, one benchmark run a row.")],
    out: Predictions,
    root: options.Root = options.ROOT,
    as_json: options.Json = False,
) -> None:
    """Predict benchmark runs with 90 % intervals; a row that cannot be predicted gets its reason."""
    from flows.predict import predict_file, predicted_with  # noqa: PLC0415

    frame = predict_file(inputs, out, predictors=predicted_with(_existing(root)), progress=_progress)
    refused = frame.filter(frame["reason"].is_not_null()).select("id", "reason").to_dicts()
    if as_json:
        found = {"rows": frame.height, "predicted": frame.height - len(refused), "refused": refused, "out": str(out)}
        options.print_json(found)
        return
    for row in refused:
        sys.stderr.write(f"not predicted: {row['id']}: {row['reason']}\n")
    sys.stdout.write(f"{frame.height - len(refused):,} of {frame.height:,} rows predicted: {out}\n")


def replay(  # noqa: PLR0913 - options
    *,
    engine: Annotated[Path, typer.Option(help="JSON of the vLLM engine's settings.")],
    requests: Annotated[Path, typer.Option(help="Log: id, arrival_s, input_toks, output_toks; or another trace.")],
    out: Predictions,
    fingerprints: Annotated[Path | None, typer.Option(help="Folder of fingerprints, instead of the store's.")] = None,
    root: options.Root = options.ROOT,
    as_json: options.Json = False,
) -> None:
    """Replay a request log on an engine: TTFT, TPOT, end to end and queue time of each request."""
    from flows.replay import replay_file  # noqa: PLC0415

    found = replay_file(engine, requests, out, store=_existing(root), fingerprints=fingerprints)
    summary = found.summary()
    if as_json:
        options.print_json({**summary, "out": str(out)})
        return
    for note in found.notes:
        sys.stderr.write(f"note: {note}\n")
    for reason, count in found.reasons.items():
        sys.stderr.write(f"refused as vLLM does: {count:,} of {found.frame.height:,} requests: {reason}\n")
    lines = [f"{name:<14} {value:,.4g}" for name, value in summary.items() if isinstance(value, (int, float))]
    sys.stdout.write("\n".join([*lines, f"step times     {found.source}", f"predictions    {out}"]) + "\n")


def import_fingerprints(
    folder: Annotated[Path, typer.Argument(help="Folder of profiles: <hardware>/<model>/<variant>/meta.yaml, tp<N>/.")],
    *,
    root: options.Root = options.ROOT,
    as_json: options.Json = False,
) -> None:
    """Take in per-layer timings of vLLM, so that their model and GPU are planned by their own measurements."""
    from flows.imports import import_fingerprints as take_in  # noqa: PLC0415
    from flows.site import store_at  # noqa: PLC0415

    if not folder.is_dir():
        raise BadInput("no such folder", place=str(folder), mend="give the folder that the profiler wrote")
    found = take_in(folder, store_at(root))
    if as_json:
        options.print_json([asdict(each) for each in found])
        return
    for each in found:
        key, state = each.key, "new" if each.new else "already there"
        sys.stdout.write(f"{key.model} on {key.gpu} tp{key.tp} {key.quantization}: {each.points} points ({state})\n")
        for name, reason in sorted(each.failures.items()):
            sys.stderr.write(f"left out: {key.model} on {key.gpu} tp{key.tp}: {name}: {reason}\n")


def import_bench(  # noqa: PLR0913 - one option per setting that the file lacks
    files: Annotated[list[Path], typer.Argument(help="JSON of vllm bench serve, latency or throughput.")],
    *,
    gpu: Annotated[str | None, typer.Option(help="GPU of the server; else --metadata gpu=NAME of the run.")] = None,
    model: Annotated[str | None, typer.Option(help="Model; else the file's.")] = None,
    tp: Count = None,
    pp: Count = None,
    dp: Count = None,
    quantization: Annotated[str | None, typer.Option(help="Weight format; else the model's own.")] = None,
    kv_cache_dtype: Annotated[str | None, typer.Option(help="KV format.")] = None,
    vllm_version: Annotated[str | None, typer.Option(help="vLLM of the server.")] = None,
    max_num_seqs: Count = None,
    max_num_batched_tokens: Count = None,
    isl: Annotated[float | None, typer.Option(help="Prompt tokens, where the file lacks them.")] = None,
    osl: Annotated[float | None, typer.Option(help="Output tokens, where the file lacks them.")] = None,
    batch_size: Annotated[float | None, typer.Option(help="Requests of a bench latency batch.")] = None,
    root: options.Root = options.ROOT,
    as_json: options.Json = False,
) -> None:
    """Take in benchmark results: predictions of the same model, GPU and TP are corrected by them and narrowed."""
    from flows.imports import import_bench as take_in  # noqa: PLC0415
    from flows.site import store_at  # noqa: PLC0415

    said: dict[str, Any] = {
        "gpu": gpu, "model": model, "tp": tp, "pp": pp, "dp": dp, "precision": quantization,
        "kv_cache_dtype": kv_cache_dtype, "engine_version": vllm_version, "max_num_seqs": max_num_seqs,
        "max_num_batched_tokens": max_num_batched_tokens, "isl": isl, "osl": osl, "concurrency": batch_size,
    }  # fmt: skip
    found = take_in(files, store_at(root), said=said)
    for each in found.refused:
        sys.stderr.write(f"refused: {each.place}: {each.reason}\n")
    if as_json:
        options.print_json({**asdict(found), "out": root})
    else:
        sys.stdout.write(f"{len(found.runs)} runs read, {found.new} of them new, {len(found.refused)} refused\n")
    if not found.runs:
        raise typer.Exit(2)


def _existing(root: str) -> Store | None:
    """The store below a root, without making one that is not there."""
    from flows.site import store_at  # noqa: PLC0415

    return store_at(root) if "://" in root or Path(root).is_dir() else None


def _progress(done: int, count: int) -> None:
    if sys.stderr.isatty() and (done == count or done % 10 == 0):
        sys.stderr.write(f"\r{done:,} of {count:,} rows" + ("\n" if done == count else ""))
