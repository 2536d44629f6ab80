"""Every conversion factor and every unit that a user may write.

Numbers at rest wear their unit (`500 ms`, `2.29 USD/GPU/h`); numbers in flight are SI base units
(seconds, bytes, FLOP, tokens, dollars per hour). This file holds every factor between the two.

A pydantic field declared as one of the annotated types below (`Seconds`, `PerSecond`, ...) accepts a string with a
unit, and refuses a bare number (0 apart), NaN, infinity, a boolean and a number outside its bounds.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

KILO, MEGA, GIGA, TERA, PETA = 1e3, 1e6, 1e9, 1e12, 1e15
KIB, MIB, GIB, TIB = 2.0**10, 2.0**20, 2.0**30, 2.0**40
BITS_PER_BYTE = 8.0
SECONDS_PER_HOUR = 3600.0
HOURS_PER_MONTH = 730.0  # 8760 / 12
MS = 1e-3
US = 1e-6

# The first unit of each table is the one that messages show.
TIME = {"ms": MS, "s": 1.0, "us": US, "µs": US, "min": 60.0, "h": SECONDS_PER_HOUR, "d": 24 * SECONDS_PER_HOUR}
RATE = {"/s": 1.0, "/min": 1 / 60, "/h": 1 / SECONDS_PER_HOUR, "/d": 1 / (24 * SECONDS_PER_HOUR)}
MEMORY = {"GB": GIGA, "TB": TERA, "MB": MEGA, "kB": KILO, "B": 1.0, "GiB": GIB, "TiB": TIB, "MiB": MIB, "KiB": KIB}
BANDWIDTH = {f"{unit}/s": factor for unit, factor in MEMORY.items()} | {
    "Mbit/s": MEGA / BITS_PER_BYTE,
    "Gbit/s": GIGA / BITS_PER_BYTE,
    "Tbit/s": TERA / BITS_PER_BYTE,
}
FLOP_RATE = {"TFLOP/s": TERA, "GFLOP/s": GIGA, "PFLOP/s": PETA, "FLOP/s": 1.0}
POWER = {"W": 1.0, "kW": KILO}
GPU_PRICE = {"USD/GPU/h": 1.0, "USD/GPU/month": 1 / HOURS_PER_MONTH, "USD/GPU/year": 1 / (12 * HOURS_PER_MONTH)}
MONEY_RATE = {"USD/h": 1.0, "USD/d": 1 / 24, "USD/month": 1 / HOURS_PER_MONTH, "USD/year": 1 / (12 * HOURS_PER_MONTH)}
MONEY = {"USD": 1.0}
ENERGY_PRICE = {"USD/kWh": 1.0, "USD/MWh": 1 / KILO}

# Unambiguous on purpose: no text makes it backtrack.
_QUANTITY = re.compile(r"\s*([+-]?(?:[0-9]+(?:_[0-9]+)*(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*(\S{0,40})\s*")


def parse_quantity(value: object, units: dict[str, float]) -> float:
    """Read `'500 ms'` with `units={'ms': 1e-3, ...}` as 0.5. Raises ValueError naming the accepted units."""
    accepted = ", ".join(units)
    example = f"{next(iter(units))!r}"
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        msg = f"{value!r} is not a quantity: write a number with its unit ({accepted})"
        raise ValueError(msg)
    if isinstance(value, (int, float)):
        if value == 0:
            return 0.0
        msg = f"{value!r} has no unit: write one of {accepted}, such as '{value} {next(iter(units))}'"
        raise ValueError(msg)
    match = _QUANTITY.fullmatch(value)
    if match is None:
        msg = f"{value[:60]!r} is not a quantity: write a number and a unit such as {example}"
        raise ValueError(msg)
    number, unit = float(match[1].replace("_", "")), match[2]
    if number == 0 and not unit:
        return 0.0
    if unit not in units:
        has = f"has the unit {unit!r}" if unit else "has no unit"
        msg = f"{value[:60]!r} {has}: write one of {accepted}"
        raise ValueError(msg)
    return number * units[unit] + 0.0  # + 0.0 makes of -0 a plain 0


def _quantity_type(units: dict[str, float], low: float, high: float, shown: str, *, allow_zero: bool = False) -> Any:  # noqa: ANN401 - an annotated type
    def read(value: object) -> float:
        number = parse_quantity(value, units)
        below = number < low if allow_zero else number <= low
        if not math.isfinite(number) or below or number > high:
            sign = "at least" if allow_zero else "above"
            msg = f"{value!r} is out of range: it must be {sign} {low:g} and at most {high:g} {shown}"
            raise ValueError(msg)
        return number

    def write(number: float) -> str:
        return f"{number!r} {shown}"

    schema = {"type": "string", "title": f"quantity in {shown}", "examples": [f"1 {unit}" for unit in units][:3]}
    return (BeforeValidator(read), PlainSerializer(write, when_used="json"), WithJsonSchema(schema))


# Bounds are far beyond any real fleet: they catch a wrong unit or a typo, never a legitimate wish.
Seconds = Annotated[float, *_quantity_type(TIME, 0.0, 7 * 24 * SECONDS_PER_HOUR, "s")]
SecondsOrZero = Annotated[float, *_quantity_type(TIME, 0.0, 7 * 24 * SECONDS_PER_HOUR, "s", allow_zero=True)]
PerSecond = Annotated[float, *_quantity_type(RATE, 0.0, 1e6, "/s")]
Bytes = Annotated[float, *_quantity_type(MEMORY, 0.0, 1e15, "B")]
BytesPerSecond = Annotated[float, *_quantity_type(BANDWIDTH, 0.0, 1e15, "B/s")]
FlopPerSecond = Annotated[float, *_quantity_type(FLOP_RATE, 0.0, 1e18, "FLOP/s")]
Watts = Annotated[float, *_quantity_type(POWER, 0.0, 1e5, "W")]
DollarsPerGPUHour = Annotated[float, *_quantity_type(GPU_PRICE, 0.0, 1000.0, "USD/GPU/h")]
DollarsPerHour = Annotated[float, *_quantity_type(MONEY_RATE, 0.0, 1e7, "USD/h")]
Dollars = Annotated[float, *_quantity_type(MONEY, 0.0, 1e9, "USD")]
DollarsPerKWh = Annotated[float, *_quantity_type(ENERGY_PRICE, 0.0, 10.0, "USD/kWh")]
