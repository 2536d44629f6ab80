"""`Plans`: every published plan as one visible folder, `<root>/<serial>/`, whole or absent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from catalog.errors import BadInput, StalePlan
from catalog.store.blobs import blobs_at

PLAN = "plan.json"


class Plans:
    """Published plans under one root, a path or a URL. Serials start at 1 and are never reused."""

    def __init__(self, root: str | Path) -> None:
        self.root = str(root)
        self._blobs = blobs_at(root)

    def folder(self, serial: int) -> str:
        """Where the plan of that serial lies."""
        return f"{self.root.rstrip('/')}/{serial}"

    def serials(self) -> tuple[int, ...]:
        """Serials of all published plans, ascending."""
        parts = (name.split("/") for name in self._blobs.names())
        return tuple(
            sorted(int(part[0]) for part in parts if len(part) == 2 and part[0].isdecimal() and part[1] == PLAN)
        )

    def latest(self) -> int | None:
        """Serial of the plan in force, None before the first."""
        return max(self.serials(), default=None)

    def next_serial(self) -> int:
        """One above every serial that was published or claimed."""
        return 1 + max((int(part) for part in self._claimed() if part.isdecimal()), default=0)

    def read(self, serial: int, name: str = PLAN) -> bytes:
        """Return one file of a plan; BadInput if there is no such plan."""
        try:
            return self._blobs.read(f"{serial}/{name}")
        except FileNotFoundError:
            known = ", ".join(map(str, self.serials()[-5:])) or "none"
            msg = f"{self.root} has no {name} of plan {serial}"
            raise BadInput(msg, mend=f"published plans: {known}") from None

    def publish(self, serial: int, files: Mapping[str, bytes]) -> str:
        """Write all files of a plan as its folder and return where; StalePlan if the serial was taken meanwhile.

        The serial fences overlapping nights: each takes the one after the plan it started from, and one of them wins.
        """
        if PLAN not in files:
            msg = f"a plan's files hold no {PLAN}"
            raise ValueError(msg)
        if not self._blobs.put_folder(str(serial), files, last=PLAN):
            msg = f"{self.folder(serial)}: published by another night meanwhile; this plan is superseded, run again"
            raise StalePlan(msg)
        return self.folder(serial)

    def _claimed(self) -> set[str]:
        return {name.split("/")[0] for name in self._blobs.names()}
