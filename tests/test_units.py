"""Units: what a user may write, and what it is in SI."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from catalog import units

TABLES = {
    "time": units.TIME,
    "rate": units.RATE,
    "memory": units.MEMORY,
    "bandwidth": units.BANDWIDTH,
    "flop_rate": units.FLOP_RATE,
    "power": units.POWER,
    "gpu_price": units.GPU_PRICE,
    "money_rate": units.MONEY_RATE,
    "money": units.MONEY,
    "energy_price": units.ENERGY_PRICE,
}


@pytest.mark.parametrize(
    ("text", "table", "expected"),
    [
        ("500 ms", "time", 0.5),
        ("1.5 min", "time", 90.0),
        ("12 /s", "rate", 12.0),
        ("3_600 /h", "rate", 1.0),
        ("80 GiB", "memory", 80 * 2**30),
        ("400 Gbit/s", "bandwidth", 50e9),
        ("989 TFLOP/s", "flop_rate", 989e12),
        ("0.7 kW", "power", 700.0),
        ("2.29 USD/GPU/h", "gpu_price", 2.29),
        ("730 USD/GPU/month", "gpu_price", 1.0),
        ("24 USD/d", "money_rate", 1.0),
        ("120 USD/MWh", "energy_price", 0.12),
        (".5s", "time", 0.5),
        ("0", "time", 0.0),
    ],
)
def test_a_quantity_is_its_number_times_its_unit(text: str, table: str, expected: float) -> None:
    """Hand-worked conversions: 400 Gbit/s / 8 = 50 GB/s, 730 h make a month of 8760 h / 12."""
    assert math.isclose(units.parse_quantity(text, TABLES[table]), expected)


@pytest.mark.parametrize(
    "wrong", [5, -1.5, True, None, [], "5", "ms", "", "1.2.3 s", "1 m s", "٣ s", "5 parsec", "5 MS", "0x10 s", "1e s"]
)
def test_what_is_no_quantity_is_refused_and_the_units_named(wrong: object) -> None:
    """A bare number, a wrong or missing unit and foreign digits raise ValueError; the text shows a way out."""
    with pytest.raises(ValueError, match=r"write|unit"):
        units.parse_quantity(wrong, units.TIME)


def test_no_text_makes_the_reader_backtrack() -> None:
    """A hostile run of digits is refused at once, not after exponential time."""
    started = time.perf_counter()
    for text in ("1" * 5000 + " a\nb", "1_" * 5000, "1." * 3000, " " * 5000 + "x"):
        with pytest.raises(ValueError, match="write"):
            units.parse_quantity(text, units.TIME)
    assert time.perf_counter() - started < 1.0


@given(st.text(max_size=40))
def test_any_text_is_a_number_or_a_value_error(text: str) -> None:
    """Reading never fails in another way, and never gives NaN."""
    try:
        assert not math.isnan(units.parse_quantity(text, units.TIME))
    except ValueError as error:
        assert "write" in str(error)  # noqa: PT017 - either outcome is lawful


@given(st.floats(1e-9, 1e9), st.sampled_from(sorted(TABLES)), st.data())
def test_units_of_one_table_convert_into_each_other(number: float, table: str, data: st.DataObject) -> None:
    """A number in one unit is its ratio of the other: factors of a table are consistent."""
    first, second = data.draw(st.tuples(*[st.sampled_from(sorted(TABLES[table]))] * 2))
    ratio = TABLES[table][first] / TABLES[table][second]
    converted = units.parse_quantity(f"{number * ratio!r} {second}", TABLES[table])
    assert math.isclose(units.parse_quantity(f"{number!r} {first}", TABLES[table]), converted, rel_tol=1e-9)


TYPES = [
    units.Seconds, units.PerSecond, units.Bytes, units.BytesPerSecond, units.FlopPerSecond, units.Watts,
    units.DollarsPerGPUHour, units.DollarsPerHour, units.DollarsPerKWh,
]  # fmt: skip


@pytest.mark.parametrize("kind", TYPES)
def test_what_is_written_reads_back_equal(kind: object) -> None:
    """JSON output wears the unit and parses to the same number: 0.1 stays 0.1."""
    adapter: TypeAdapter[float] = TypeAdapter(kind)
    for number in (0.1, 1.0, 7.25):
        shown = adapter.dump_json(number)
        assert adapter.validate_json(shown) == number


@pytest.mark.parametrize("text", ["-1 s", "0 s", "1e999 s", "9999 d"])
def test_seconds_beyond_any_real_wish_are_refused(text: str) -> None:
    """Negative, zero, infinite and absurd durations raise, naming the range."""
    with pytest.raises(ValidationError, match="out of range"):
        TypeAdapter(units.Seconds).validate_python(text)


def test_zero_is_allowed_where_the_type_says_so() -> None:
    """`SecondsOrZero` takes 0 with or without a unit, and no negative zero comes out."""
    for text in ("0 s", "-0 s", 0):
        assert str(TypeAdapter(units.SecondsOrZero).validate_python(text)) == "0.0"
