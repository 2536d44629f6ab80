"""The flows `observe` and `calibrate` on a Prefect server: their artifacts, and a drift as an event."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_prometheus import Vllm, serving
from test_observe import FLEET


@pytest.mark.prefect
def test_the_flows_show_what_they_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefect_server: None) -> None:
    """`observe` leaves a table of the next day; `calibrate` a scoreboard and a page, and emits each new drift."""
    del prefect_server
    monkeypatch.chdir(tmp_path)
    from prefect.client.orchestration import get_client  # noqa: PLC0415 - seconds to import
    from prefect.client.schemas.sorting import ArtifactSort  # noqa: PLC0415

    from flows import events  # noqa: PLC0415
    from flows.calibrating import COMPARISON  # noqa: PLC0415
    from flows.deployed.calibrate import calibrate  # noqa: PLC0415
    from flows.deployed.observe import observe  # noqa: PLC0415
    from flows.site import store_at  # noqa: PLC0415

    told = []
    monkeypatch.setattr(events, "emit", lambda event, resource, payload: told.append((event, resource, payload)))
    with serving(Vllm()) as fake:
        (tmp_path / "fleet.yaml").write_text(FLEET.format(url=fake.url))
        assert observe(fleet="fleet.yaml", root="var") == 2
        _drifting(store_at("var"), COMPARISON)
        assert calibrate(fleet="fleet.yaml", root="var", out="plans") == 0
        assert calibrate(fleet="fleet.yaml", root="var", out="plans") == 0
    assert [(event, resource) for event, resource, _ in told] == [(events.DRIFT, "intent.chat")]
    assert told[0][2]["phase"] == "decode"
    with get_client(sync_client=True) as client:
        found = {artifact.key: artifact for artifact in client.read_artifacts(sort=ArtifactSort.KEY_DESC)}
    assert {"observed", "scoreboard", "calibration"} <= set(found)
    assert "Drift: **chat**" in str(found["calibration"].data)


def _drifting(store, kind: str) -> None:
    """Nights up to now of a service whose TPOT has shifted by half."""
    import json  # noqa: PLC0415
    import time  # noqa: PLC0415

    from test_calibrate import night  # noqa: PLC0415

    now = int(time.time() // 3600)
    for day in range(10):
        row = night(at=now - 24 * (10 - day), ratio=1.0 if day < 5 else 1.5)
        store.put(kind, {"intent": row.intent, "at_hour": row.at_hour}, note=json.loads(row.model_dump_json()))
