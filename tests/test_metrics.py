"""`catalog.metrics`: every version has the names that it measures, and no name could break a query."""

from __future__ import annotations

import pytest

from catalog.errors import BadInput
from catalog.metrics import load_metrics, metric_names


def test_the_tested_version_measures_everything_but_refusals() -> None:
    """VLLM 0.32 names each metric but the rejections at the door, which came with 0.33."""
    assert set(load_metrics()) - set(metric_names("0.32.0")) == {"refused"}
    assert set(metric_names("0.33.0")) == set(load_metrics())


def test_a_renamed_metric_has_the_name_of_its_version() -> None:
    """The KV usage was gpu_cache_usage_perc until it was renamed; a version has one of the two."""
    assert metric_names("0.9.1")["kv_usage"] == "vllm:gpu_cache_usage_perc"
    assert metric_names("0.32.0")["kv_usage"] == "vllm:kv_cache_usage_perc"
    assert metric_names("0.10.1")["tpot"] == "vllm:time_per_output_token_seconds"


def test_versions_are_compared_as_numbers() -> None:
    """0.9 is before 0.10, and spellings stand in the order of their versions."""
    for metric in load_metrics().values():
        releases = [tuple(int(part) for part in spelling.since.split(".")) for spelling in metric.names]
        assert releases == sorted(releases)


def test_counters_wear_their_suffix() -> None:
    """A counter ends in _total, nothing else does."""
    for what, metric in load_metrics().items():
        for spelling in metric.names:
            assert spelling.name.endswith("_total") == (metric.kind == "counter"), what


@pytest.mark.parametrize("version", ["", "1", "v0.32", "0.x", "0.³2"])
def test_what_is_no_version_is_refused(version: str) -> None:
    """A text that is no version is bad input, not an old version."""
    with pytest.raises(BadInput, match="no vLLM version"):
        metric_names(version)
