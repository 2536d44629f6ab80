"""Read measured requests from disk: Azure CSV, Mooncake JSONL, ServeGen clients, `vllm bench serve`, generic tables.

The format is told by the suffix and the columns, never by trust: a row that cannot be is refused with file and line.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from catalog.errors import BadInput
from catalog.units import MIB
from flows.clients import RATE_COLUMNS, read_clients
from planner.workload import Trace, prefix_hits
from planner.workload.prefix import MOONCAKE_BLOCK

MAX_BYTES = 1024 * MIB
MAX_ROWS = 10_000_000
#: A century in seconds: a larger number is a timestamp in milliseconds or worse.
MAX_ARRIVAL_S = 5e9
MAX_TOKENS = 10_000_000

#: What the columns are called, first match wins.
ARRIVAL = ("arrival_s", "arrived_at", "timestamp", "TIMESTAMP", "start_time")
PROMPT = ("prompt", "input_toks", "input_length", "ContextTokens", "prompt_tokens", "input_len")
OUTPUT = ("output", "output_toks", "output_length", "GeneratedTokens", "output_tokens", "output_len")
CACHED = ("cached", "cached_toks", "cached_tokens")
#: Files that hold milliseconds under `timestamp`.
MILLISECONDS = "input_length"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Columns as read, with the line of the file that each row stands in."""

    path: Path
    frame: pl.DataFrame
    first_line: int
    """Line of the first row, counted from 1; rows of a Parquet file are counted from 1 too."""
    unit: str = "line"

    def place(self, index: int) -> str:
        """Where row `index` stands."""
        step = self.first_line + index
        return f"{self.path.name}:{step}" if self.unit == "line" else f"{self.path.name}, {self.unit} {step}"


def read_trace(path: str | Path) -> Trace:
    """Read a trace of requests. Raises `BadInput` naming file and line for what is missing, broken or impossible.

    Accepts `.csv` (Azure's or generic columns), `.parquet`, `.jsonl` / `.ndjson` (Mooncake: milliseconds, block
    hashes of 512 tokens) and `.json` (`vllm bench serve --save-result --save-detailed`). Generic columns: arrival_s or
    timestamp, prompt or input_toks, output or output_toks, and cached if known. From ServeGen's client rates a trace
    of the busiest hour is drawn; `client_rates_10min.parquet#m-large` names the model.
    """
    whole, _, model = str(path).partition("#")
    path = Path(whole)
    _refuse_what_is_no_file(path)
    match path.suffix.lower():
        case ".csv":
            return _from_rows(_read_csv(path))
        case ".parquet":
            rows = _read_parquet(path)
            clients = set(rows.frame.columns) >= RATE_COLUMNS
            return read_clients(path, model=model or None) if clients else _from_rows(rows)
        case ".jsonl" | ".ndjson":
            return _from_rows(_read_lines(path))
        case ".json":
            return _from_bench(path)
    what = f"{path.suffix!r} is no format of a trace"
    raise BadInput(what, place=path.name, mend="give .csv, .parquet, .jsonl or .json")


def _refuse_what_is_no_file(path: Path) -> None:
    if not path.is_file():
        what = "there is no such file"
        raise BadInput(what, place=str(path), mend="give the path of a trace, relative to fleet.yaml")
    size = path.stat().st_size
    if size == 0:
        what = "the file is empty"
        raise BadInput(what, place=path.name, mend="give at least two requests")
    if size > MAX_BYTES:
        what = f"the file has {size / MIB:.0f} MiB, more than {MAX_BYTES / MIB:.0f}"
        raise BadInput(what, place=path.name, mend="thin it to the hours that matter")


def _read_csv(path: Path) -> Rows:
    try:
        frame = pl.read_csv(path, infer_schema=False, n_rows=MAX_ROWS + 1)
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        what = f"this is no CSV: {str(error).splitlines()[0]}"
        raise BadInput(what, place=path.name, mend="write one header line and one line per request") from error
    return Rows(path=path, frame=frame, first_line=2)


def _read_parquet(path: Path) -> Rows:
    try:
        frame = pl.read_parquet(path, n_rows=MAX_ROWS + 1)
    except (pl.exceptions.PolarsError, OSError) as error:
        what = f"this is no Parquet file: {str(error).splitlines()[0]}"
        raise BadInput(what, place=path.name, mend="write it with polars, pandas or pyarrow") from error
    return Rows(path=path, frame=frame, first_line=1, unit="row")


def _read_lines(path: Path) -> Rows:
    records: list[dict[str, object]] = []
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                record = json.loads(line)
            except ValueError as error:
                what = f"{line.strip()[:60]!r} is no JSON"
                raise BadInput(what, place=f"{path.name}:{number}", mend="write one object per line") from error
            if not isinstance(record, dict):
                what = f"{line.strip()[:60]!r} is no object"
                raise BadInput(what, place=f"{path.name}:{number}", mend="write one object per line")
            records.append(record)
            _refuse_too_many(len(records), path)
    return Rows(path=path, frame=_frame(records), first_line=1)


def _frame(records: Sequence[dict[str, object]]) -> pl.DataFrame:
    """One column of objects or numbers per key; what a record lacks is null."""
    keys = sorted({key for record in records for key in record})
    columns = []
    for key in keys:
        values = [record.get(key) for record in records]
        text = key != "hash_ids"
        columns.append(pl.Series(key, [_text(v) for v in values] if text else values, strict=False))
    return pl.DataFrame(columns)


def _text(value: object) -> str | None:
    return None if value is None else value if isinstance(value, str) else json.dumps(value)


def _from_rows(rows: Rows) -> Trace:
    _refuse_too_many(len(rows.frame), rows.path)
    if rows.frame.is_empty():
        what = "the file holds no requests"
        raise BadInput(what, place=rows.path.name, mend="give at least two requests")
    arrival, offset = _arrivals(rows, _named(rows, ARRIVAL, "arrival"))
    prompt = _counts(rows, _named(rows, PROMPT, "prompt length"), low=1)
    output = _counts(rows, _named(rows, OUTPUT, "output length"), low=0)
    _refuse_disorder(rows, arrival)
    return Trace(
        arrival_s=arrival,
        prompt=prompt,
        output=output,
        cached=_cached(rows, prompt),
        source=rows.path.name,
        day_offset_s=offset,
    )


def _named(rows: Rows, names: Iterable[str], meaning: str) -> str:
    found = next((name for name in names if name in rows.frame.columns), None)
    if found is None:
        what = f"no column holds the {meaning}; the columns are {', '.join(rows.frame.columns[:12])}"
        raise BadInput(what, place=rows.path.name, mend=f"name one of them {' or '.join(list(names)[:2])}")
    return found


def _arrivals(rows: Rows, name: str) -> tuple[NDArray[np.float64], float | None]:
    """Arrivals in seconds from the first one, and the first one's time of day where the column holds dates."""
    column = rows.frame[name]
    if column.dtype.is_temporal():
        return _from_dates(rows, column.cast(pl.Datetime("us")))
    numbers = column.cast(pl.Float64, strict=False)
    if numbers.null_count() == len(numbers) and column.dtype == pl.String:
        return _from_dates(rows, _dates(column))
    factor = 1e-3 if name == "timestamp" and MILLISECONDS in rows.frame.columns else 1.0
    values = numbers.to_numpy().astype(np.float64) * factor
    bad = ~np.isfinite(values) | (values < 0) | (values > MAX_ARRIVAL_S)
    _refuse_first(rows, bad, column, f"{name} must be seconds of at least 0")
    return values - values[0], None


def _dates(column: pl.Series) -> pl.Series:
    """Dates such as `2023-11-16 18:17:03.9799600`, to the microsecond; null where it is none."""
    whole = column.str.strip_chars().str.strip_suffix("Z").str.replace("T", " ", literal=True)
    micro = whole.str.replace(r"(\.\d{6})\d+$", "$1")
    return micro.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="us", strict=False)


def _from_dates(rows: Rows, dates: pl.Series) -> tuple[NDArray[np.float64], float | None]:
    _refuse_first(rows, dates.is_null().to_numpy(), rows.frame.to_series(0), "the arrival is no date and no number")
    micro = dates.dt.epoch("us").to_numpy()
    day = 24 * 3600 * 1_000_000
    return (micro - micro[0]) / 1e6, float(micro[0] % day) / 1e6


def _counts(rows: Rows, name: str, *, low: int) -> NDArray[np.int64]:
    """Whole tokens, at least `low`."""
    column = rows.frame[name]
    values = column.cast(pl.Float64, strict=False).to_numpy().astype(np.float64)
    bad = ~np.isfinite(values) | (values < low) | (values > MAX_TOKENS) | (values != np.round(values))
    _refuse_first(rows, bad, column, f"{name} must be a whole number of tokens, at least {low}")
    return values.astype(np.int64)


def _cached(rows: Rows, prompt: NDArray[np.int64]) -> NDArray[np.int64] | None:
    named = next((name for name in CACHED if name in rows.frame.columns), None)
    if named is not None:
        cached = _counts(rows, named, low=0)
        _refuse_first(rows, cached >= prompt, rows.frame[named], f"{named} must be below the prompt's length")
        return cached
    if "hash_ids" not in rows.frame.columns:
        return None
    blocks = rows.frame["hash_ids"]
    whole = blocks.dtype == pl.List(pl.Int64)
    _refuse_first(rows, blocks.is_null().to_numpy() | (not whole), blocks, "hash_ids must be a list of whole numbers")
    return prefix_hits(blocks.to_list(), prompt, block_tokens=MOONCAKE_BLOCK)


def _refuse_first(rows: Rows, bad: NDArray[np.bool_], column: pl.Series, rule: str) -> None:
    if bad.any():
        index = int(np.argmax(bad))
        what = f"{column[index]!r} is refused: {rule}"
        raise BadInput(what, place=rows.place(index), mend="mend the row or leave it out")


def _refuse_disorder(rows: Rows, arrival: NDArray[np.float64]) -> None:
    bad = np.diff(arrival, prepend=arrival[:1]) < 0
    if bad.any():
        index = int(np.argmax(bad))
        what = "the arrival is earlier than the row before"
        raise BadInput(what, place=rows.place(index), mend="sort the rows by arrival")


def _refuse_too_many(count: int, path: Path) -> None:
    if count > MAX_ROWS:
        what = f"the file has more than {MAX_ROWS:,} rows"
        raise BadInput(what, place=path.name, mend="thin it to the hours that matter")


def _from_bench(path: Path) -> Trace:
    """A result of `vllm bench serve`: requests that failed are left out, the rest sorted by their start."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        what = f"this is no JSON: {error}"
        raise BadInput(what, place=path.name, mend="give the file of `vllm bench serve --save-result`") from error
    keys = ("start_times", "input_lens", "output_lens")
    if not isinstance(result, dict) or not all(isinstance(result.get(key), list) for key in keys):
        what = f"the result lacks one of {', '.join(keys)}"
        raise BadInput(what, place=path.name, mend="run `vllm bench serve --save-result --save-detailed`")
    if len({len(result[key]) for key in keys}) != 1:
        what = f"{', '.join(keys)} differ in length"
        raise BadInput(what, place=path.name, mend="give the file as `vllm bench serve` wrote it")
    errors = result.get("errors") or [""] * len(result["start_times"])
    kept = [row for row in zip(*(result[key] for key in keys), errors, strict=True) if not row[3]]
    kept.sort(key=lambda row: float(row[0]) if isinstance(row[0], (int, float)) else float("nan"))
    frame = pl.DataFrame(
        {name: [_text(row[i]) for row in kept] for i, name in enumerate(("arrival_s", "prompt", "output"))}
    )
    return _from_rows(Rows(path=path, frame=frame, first_line=1, unit="request"))
