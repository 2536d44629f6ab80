"""`PowerConstants`: what turns the utilisation of a GPU into watts, as shares of its TDP, with their error."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import yaml
from pydantic import Field

from catalog.cluster import Fact

PATH = Path(__file__).with_name("power.yaml")


class PowerConstants(Fact):
    """Coefficients of `planner.power`, each a share of the TDP. Written by `python -m benchmarks refit-power`."""

    idle: float = Field(ge=0.0, le=1.0)
    """A GPU that holds a model and computes nothing (assumed where the data sheet does not say)."""
    busy: float = Field(ge=0.0, le=1.0)
    """A GPU that runs steps back to back."""
    kv: float = Field(ge=0.0)
    """Per unit of memory bandwidth taken by KV reads."""
    compute: float = Field(ge=0.0)
    """Per square root of the share of peak FLOP/s."""
    error: float = Field(ge=0.0)
    """Half-width of the relative 90 % interval on the calibration GPU, from models left out."""
    error_elsewhere: float = Field(ge=0.0)
    """The same on a GPU that was not measured (assumed twice the first, and at least 0.2)."""
    fitted_on: str
    """GPU of the calibration."""
    data: str
    data_sha256: str
    command: str


@cache
def load_power() -> PowerConstants:
    """The constants that ship with the package."""
    return PowerConstants.model_validate(yaml.safe_load(PATH.read_text(encoding="utf-8")))
