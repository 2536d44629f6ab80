"""Fixtures that several test files share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# Loaded machines make a first example slow (compiled kernels); laws are checked on the same examples at every run.
settings.register_profile("fleetplan", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fleetplan")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests with a Prefect server run last: its client's threads draw from `random`, and hypothesis refuses that."""
    items.sort(key=lambda item: item.get_closest_marker("prefect") is not None)


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One ephemeral Prefect server for the session, its files in a temporary folder."""
    home = tmp_path_factory.mktemp("prefect")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "PREFECT_HOME": str(home),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        }.items():
            patch.setenv(name, value)
        from prefect.testing.utilities import prefect_test_harness  # noqa: PLC0415 - seconds to import

        with prefect_test_harness(server_startup_timeout=150):
            yield
