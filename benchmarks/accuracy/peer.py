"""The peer, aiconfigurator 0.12.0: an environment of its own, and its answers to benchmark conditions.

None of its code is imported here: `peer_driver` runs in the peer's environment and speaks JSON. Answers are kept under
the working folder by the digest of what was asked, of whom and by which driver, since the peer takes minutes.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl

REQUIREMENT = "aiconfigurator==0.12.0"
DRIVER = Path(__file__).with_name("peer_driver.py")
INSTALL_S, ANSWER_S = 1200, 3600
COLUMNS = ("id", "model", "gpu", "precision", "tp", "pp", "dp", "ep", "isl", "osl", "concurrency")
PARTS = 2  # processes that answer at once
SCHEMA = {"id": pl.String, "ttft_ms": pl.Float64, "tpot_ms": pl.Float64, "out_tps_gpu": pl.Float64, "reason": pl.String}


class PeerMissing(Exception):
    """The peer cannot be run here."""


def environment(folder: Path) -> Path:
    """The Python of the peer's environment, made once. Raises PeerMissing where its packages cannot be had."""
    root = folder / REQUIREMENT.replace("==", "-")
    python = root / "bin" / "python"
    if (root / "complete").exists():
        return python
    try:
        venv.create(root, with_pip=True, clear=True)
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", REQUIREMENT]
        subprocess.run(command, check=True, timeout=INSTALL_S, stdout=sys.stderr)  # noqa: S603 - our own command
    except (OSError, subprocess.SubprocessError) as error:
        msg = f"{REQUIREMENT} cannot be installed: {error}"
        raise PeerMissing(msg) from None
    (root / "complete").touch()
    return python


def answers(inputs: pl.DataFrame, *, python: Path, folder: Path) -> pl.DataFrame:
    """What the peer predicts of each condition: id, ttft_ms, tpot_ms, out_tps_gpu, reason."""
    rows = inputs.select(COLUMNS).sort("id").to_dicts()
    asked = json.dumps(rows, sort_keys=True).encode() + DRIVER.read_bytes() + REQUIREMENT.encode()
    kept = folder / f"answers-{hashlib.sha256(asked).hexdigest()[:16]}.json"
    if not kept.exists():
        with ThreadPoolExecutor(PARTS) as pool:
            parts = list(pool.map(lambda part: _ask(python, rows[part::PARTS]), range(PARTS)))
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps({name: answer for part in parts for name, answer in part.items()}, sort_keys=True))
    found = json.loads(kept.read_text())
    return pl.DataFrame([{"id": name} | answer for name, answer in sorted(found.items())], schema=SCHEMA)


def _ask(python: Path, rows: list[dict[str, object]]) -> dict[str, dict[str, object]]:
    """Run the driver once over some conditions."""
    command = [str(python), str(DRIVER)]
    try:
        done = subprocess.run(  # noqa: S603 - our own driver
            command, input=json.dumps(rows), capture_output=True, text=True, timeout=ANSWER_S, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        msg = f"{REQUIREMENT} does not run: {said[-300:]}"
        raise PeerMissing(msg) from None
    answered: dict[str, dict[str, object]] = json.loads(done.stdout)
    return answered
