"""`fleetplan whatif`: how the best answer to one intent changes with price, limits, load, lengths and network."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast, get_args

import typer

from catalog.errors import BadInput, near_names
from catalog.units import BANDWIDTH, GPU_PRICE, parse_quantity
from flows.cli import options

if TYPE_CHECKING:
    import polars as pl

    from planner.whatif import Study, Upgrade

Sweep = Literal["price", "slo", "load", "length", "bandwidth", "latency", "jitter"]
NETWORK = ("bandwidth", "latency", "jitter")
SWEEPS: tuple[Sweep, ...] = ("price", "slo", "load", "length")
Call = Callable[[], "pl.DataFrame"]

#: Multiples of what the fleet file says today.
FACTORS = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
LIMITS = (0.5, 0.7, 0.85, 1.0, 1.5, 2.0)
#: Bytes per second and GPU: from 1 Gbit/s Ethernet to 800 Gbit/s InfiniBand.
BANDWIDTHS = (0.125e9, 0.3e9, 0.6e9, 1.25e9, 3.125e9, 12.5e9, 50e9, 100e9)
#: Seconds: from InfiniBand inside a rack to a distant site.
LATENCIES = (2e-6, 20e-6, 200e-6, 2e-3, 20e-3, 100e-3)
JITTERS = (0.0, 20e-6, 200e-6, 2e-3, 20e-3, 100e-3)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(whatif)


def whatif(  # noqa: PLR0913 - options
    fleet: options.Fleet,
    intent: Annotated[str, typer.Argument(help="Name of an intent of the fleet.")],
    *,
    sweep: Annotated[
        list[str] | None,
        typer.Option(help=f"What to vary, of {', '.join(get_args(Sweep))}; repeat. By default the first four."),
    ] = None,
    factor: Annotated[
        list[float] | None, typer.Option(help="Multiple of today's value, for all but the network; repeat.")
    ] = None,
    pool: Annotated[
        list[str] | None, typer.Option(help="Node pool whose price is varied; repeat; default all.")
    ] = None,
    upgrade: Annotated[str, typer.Option(help="A faster network per GPU to judge, such as '800 Gbit/s'.")] = "",
    at: Annotated[
        str, typer.Option("--at", help="What the upgrade costs per GPU that uses it, such as '0.1 USD/GPU/h'.")
    ] = "",
    plots: Annotated[Path | None, typer.Option(help="Folder to draw the sweeps into.")] = None,
    plot_format: Annotated[Literal["png", "svg"], typer.Option("--format", help="Format of the plots.")] = "png",
    root: options.Root = options.ROOT,
    as_json: options.Json = False,
) -> None:
    """Ask what one intent would cost if prices, limits, load, lengths or the network were different."""
    chosen = _sweeps(sweep or ([] if upgrade else list(SWEEPS)))
    factors = _factors(factor)
    bandwidth, price = _quantity(upgrade, BANDWIDTH, "--upgrade"), _quantity(at, GPU_PRICE, "--at") or 0.0
    study = _study(fleet, intent, root=root)
    if study.intent.disaggregated == "forbidden" and (bandwidth or set(chosen) & set(NETWORK)):
        what = f"intent {intent!r} forbids disaggregation, so the network between nodes has no bearing on it"
        raise BadInput(what, mend="drop `disaggregated: forbidden`, or vary something else")
    asked = [(name, call) for each in chosen for name, call in _calls(study, each, factors, pool)]
    frames, worth = _ask(study, asked, bandwidth, price)
    drawn = [] if plots is None else _draw(frames, intent, plots, plot_format)
    if as_json:
        _print_json(intent, frames, worth, drawn)
    else:
        _print(intent, frames, worth, drawn)


def _sweeps(given: list[str]) -> tuple[Sweep, ...]:
    """The sweeps asked for, each once."""
    for name in given:
        if name not in get_args(Sweep):
            raise BadInput(f"unknown sweep {name!r}", mend=near_names(name, get_args(Sweep)))
    return cast("tuple[Sweep, ...]", tuple(dict.fromkeys(given)))


def _study(fleet: Path, intent: str, *, root: str) -> Study:
    from flows.fleet import read_fleet  # noqa: PLC0415 - what only this command needs
    from flows.progress import Shown  # noqa: PLC0415
    from flows.site import site_at  # noqa: PLC0415
    from flows.sweeps import study_of  # noqa: PLC0415

    with Shown() as shown:
        return study_of(read_fleet(fleet), site_at(root, options.OUT), intent, perform=shown)


def _calls(
    study: Study, sweep: Sweep, factors: tuple[float, ...], pools: list[str] | None
) -> Iterator[tuple[str, Call]]:
    """(what it is about, how to ask) of every frame of a sweep."""
    from planner import whatif as library  # noqa: PLC0415

    match sweep:
        case "price":
            yield "price", partial(library.prices, study, factors or FACTORS, pools=_known(study, pools))
        case "load":
            yield "load", partial(library.loads, study, factors or FACTORS)
        case "length":
            yield "prompt length", partial(library.lengths, study, "prompt", factors or FACTORS)
            yield "output length", partial(library.lengths, study, "output", factors or FACTORS)
        case "slo":
            yield from _limits(study, factors or LIMITS)
        case "bandwidth":
            yield "network bandwidth", partial(library.networks, study, BANDWIDTHS)
        case "latency":
            yield "network latency", partial(library.latencies, study, LATENCIES)
        case "jitter":
            yield "network jitter", partial(library.jitters, study, JITTERS)


def _limits(study: Study, factors: tuple[float, ...]) -> Iterator[tuple[str, Call]]:
    from planner import whatif as library  # noqa: PLC0415

    slo = study.intent.slo
    found = {} if slo is None else {"ttft": slo.ttft, "tpot": slo.tpot, "e2e": slo.e2e}
    today = {limit: value for limit, value in found.items() if value is not None}
    if not today:
        what = f"intent {study.intent.name!r} has no slo whose limits could be varied"
        raise BadInput(what, mend="give it one, such as slo: {ttft: 500 ms}")
    for limit, value in today.items():
        yield f"{limit.upper()} limit", partial(library.limits, study, limit, [value * factor for factor in factors])  # type: ignore[arg-type]


def _known(study: Study, pools: list[str] | None) -> list[str] | None:
    """The pools named, all of them real."""
    for name in pools or ():
        if name not in study.prices:
            raise BadInput(f"the fleet has no node pool {name!r}", mend=near_names(name, study.prices))
    return pools


def _factors(given: list[float] | None) -> tuple[float, ...]:
    for factor in given or ():
        if not 0.0 < factor <= 1000.0:
            raise BadInput(f"--factor {factor!r} is refused", mend="give multiples above 0, at most 1000")
    return tuple(sorted(set(given or ())))


def _quantity(text: str, units: dict[str, float], option: str) -> float | None:
    if not text:
        return None
    try:
        value = parse_quantity(text, units)
    except ValueError as error:
        raise BadInput(f"{option}: {error}", mend=f"write it as '1 {next(iter(units))}'") from None
    if not 0.0 <= value < float("inf"):
        raise BadInput(f"{option} {text!r} is refused", mend="give a number of at least 0")
    return value


def _ask(
    study: Study, asked: list[tuple[str, Call]], bandwidth: float | None, price: float
) -> tuple[list[tuple[str, pl.DataFrame]], Upgrade | None]:
    from flows.progress import Shown  # noqa: PLC0415
    from flows.steps import Step  # noqa: PLC0415
    from planner.whatif import upgraded  # noqa: PLC0415

    steps = [Step(stage="search", label=name, call=call) for name, call in asked]
    judged = partial(upgraded, study, bandwidth, price_per_gpu_hour=price) if bandwidth else None
    with Shown() as shown:
        frames = list(zip([name for name, _ in asked], shown(steps), strict=True)) if steps else []
        (worth,) = shown([Step(stage="search", label="upgrade", call=judged)]) if judged else (None,)
    return frames, worth


def _draw(frames: list[tuple[str, pl.DataFrame]], intent: str, folder: Path, form: Literal["png", "svg"]) -> list[str]:
    from planner.report.sweeps import plot  # noqa: PLC0415

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, frame in frames:
        path = folder / f"{intent}-{frame['sweep'][0]}.{form}"
        path.write_bytes(plot(frame, about=f"{intent}: cost along {name}", form=form))
        written.append(str(path))
    return written


def _print_json(intent: str, frames: list[tuple[str, pl.DataFrame]], worth: Upgrade | None, drawn: list[str]) -> None:
    from flows.cli.reading import plain  # noqa: PLC0415
    from planner.whatif import break_even  # noqa: PLC0415

    sweeps = {
        frame["sweep"][0]: {
            "points": plain(frame.to_dicts()),
            **({"pays_between": break_even(frame)} if "gain" in frame.columns else {}),
        }
        for _, frame in frames
    }
    found = {"intent": intent, "sweeps": sweeps, "upgrade": None if worth is None else asdict(worth), "plots": drawn}
    options.print_json(plain(found))


def _print(intent: str, frames: list[tuple[str, pl.DataFrame]], worth: Upgrade | None, drawn: list[str]) -> None:
    from flows import sweep_tables  # noqa: PLC0415

    for name, frame in frames:
        options.print_tables(sweep_tables.sweep(frame, title=f"{intent} along {name}"), *sweep_tables.turn(frame))
    if worth is not None:
        options.print_tables(*sweep_tables.upgrade(worth))
    for path in drawn:
        sys.stdout.write(f"drawn {path}\n")
