"""`fleetplan probe`: measure a model on the device at hand, what is missing alone, and keep it in the catalog."""

from __future__ import annotations

import json
import signal
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catalog.errors import BadInput
from flows.cli import options

if TYPE_CHECKING:
    from flows.refining import Refined


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(probe)


def probe(  # noqa: PLR0913 - options
    *,
    model: Annotated[str, typer.Option(help="config.json of the model, or (torch) the name of a known one.")],
    gpu: Annotated[str, typer.Option(help="GPU type of this machine; `cpu` where it has none.")],
    runner: Annotated[str, typer.Option(help="torch: real kernels, one by one; vllm: steps of a real engine.")],
    tp: Annotated[int, typer.Option(min=1, max=64, help="Tensor-parallel degree.")] = 1,
    quantization: Annotated[str, typer.Option(help="Weight format.")] = "bf16",
    python: Annotated[str, typer.Option(help="Interpreter that has torch or vLLM.")] = "",
    engine: Annotated[list[str] | None, typer.Option(help="NAME=VALUE, an engine argument of vLLM; repeat.")] = None,
    env: Annotated[list[str] | None, typer.Option(help="NAME=VALUE, a variable of the probe; repeat.")] = None,
    budget: Annotated[float, typer.Option(min=0, max=86400, help="Seconds for sizes beyond the coarse grid.")] = 0.0,
    root: options.Root = options.ROOT,
    out: options.Out = options.OUT,
    as_json: options.Json = False,
) -> None:
    """Measure a model on this machine's device; killed and started again, it measures only what is missing.

    With --budget it goes on where interpolation between sizes is most in doubt and the plan in force (of --out) leans
    on it, until that is certain enough or the seconds are spent.
    """
    from flows.measuring import asked_of, measure_missing  # noqa: PLC0415 - tables are loaded for this command alone
    from flows.publish import in_force  # noqa: PLC0415
    from flows.refining import planned  # noqa: PLC0415
    from flows.site import site_at  # noqa: PLC0415

    site = site_at(root, out)
    asked = asked_of(
        model, gpu, runner, tp=tp, quantization=quantization, python=python,
        engine=_pairs(engine, json_values=True), environment=_pairs(env),
    )  # fmt: skip
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # an end that lets the probe's processes be stopped
    begun = time.monotonic()
    weight = planned(in_force(site.plans).plan, model=asked.model.name, gpu=asked.gpu.name)
    answer = measure_missing(asked, site.store, on_row=_progress, budget_s=budget, weight=weight)
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")
    failures = dict(answer.fingerprint.failures)
    shown = {
        "model": answer.fingerprint.key.model, "gpu": asked.gpu.name, "measured": answer.measured,
        "found": answer.found, "points": answer.fingerprint.points.height, "failures": failures,
        "record": None if answer.record is None else str(answer.record),
        "refined": _refined(answer.refined), "provenance": answer.fingerprint.provenance,
        "seconds": round(time.monotonic() - begun, 1),
    }  # fmt: skip
    if as_json:
        options.print_json(shown)
    else:
        for what, why in answer.fingerprint.failures.items():
            sys.stderr.write(f"not measured: {what}: {why}\n")
        sys.stdout.write(f"{asked.model.name} on {asked.gpu.name}: {answer.measured} pieces measured, "
                         f"{answer.found} found, {shown['points']} points, {shown['seconds']} s\n")  # fmt: skip
        if answer.refined is not None:
            sys.stdout.write(f"{len(answer.refined.added)} sizes beyond the grid; doubt left at most "
                             f"{answer.refined.widest:.1%}: {answer.refined.ended}\n")  # fmt: skip
    if answer.fingerprint.points.is_empty():
        raise typer.Exit(1)


def _refined(refined: Refined | None) -> dict[str, Any] | None:
    """What a budget added, as JSON."""
    if refined is None:
        return None
    added = [{"axis": axis, "x": x, "y": y} for axis, (x, y) in refined.added]
    return {"added": added, "widest": refined.widest, "ended": refined.ended}


def _pairs(texts: list[str] | None, *, json_values: bool = False) -> dict[str, Any]:
    """Read NAME=VALUE texts; values are JSON where that is meant (`true`, `4096`), else text."""
    found: dict[str, Any] = {}
    for text in texts or []:
        name, equals, value = text.partition("=")
        if not equals or not name.replace("_", "").isalnum():
            raise BadInput(f"{text[:80]!r} is no NAME=VALUE", mend="write it as max_model_len=4096")
        try:
            found[name] = json.loads(value) if json_values else value
        except ValueError:
            found[name] = value
    return found


_seen = iter(range(1, 10**9))


def _progress(row: dict[str, Any]) -> None:
    """Say what was measured: one line that is rewritten on a terminal, every 20th piece elsewhere."""
    number = next(_seen)
    what = f"{row.get('op', row.get('kind'))}({row['x']}, {row['y']})"
    result = f"{row['time_s'] * 1e3:.3f} ms" if isinstance(row.get("time_s"), float) else "failed"
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{number} {what} {result}")
    elif number % 20 == 0:
        sys.stderr.write(f"probe    {number} pieces\n")
    sys.stderr.flush()
