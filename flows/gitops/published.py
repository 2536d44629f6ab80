"""`Published`: published.json, the list of what a plan put into its folder of a repository."""

from __future__ import annotations

import json
import re

from pydantic import Field, ValidationError

from catalog.cluster import Fact
from catalog.errors import BadInput, CorruptRecord

NAME = "published.json"
_PART = re.compile(r"[A-Za-z0-9._-]{1,255}")


class Published(Fact):
    """What was published last, and which files are fleetplan's own."""

    schema_version: str = "fleetplan/published/v1"
    serial: int = Field(ge=0)
    newest: int = Field(ge=0)
    """The highest serial that was ever published here: above `serial` after a rollback."""
    restores: int | None = None
    """The serial whose files a rollback brought back under a serial of its own."""
    digest: str
    fleet_digest: str
    files: dict[str, str]
    """Path below the folder -> Git's object id of its content."""

    def text(self) -> str:
        """Write it: sorted keys, newline at the end."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, indent=1, ensure_ascii=False) + "\n"


def read(content: bytes, *, place: str) -> Published:
    """Read published.json.

    Raises:
        CorruptRecord: it is not what was written, or lists a path outside its folder.
    """
    try:
        found = Published.model_validate_json(content)
        for path in found.files:
            checked(path, place=place)
    except (ValidationError, BadInput) as error:
        first = error.errors(include_url=False)[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise CorruptRecord(f"{place}: not a list that fleetplan wrote: {first}") from None
    return found


def checked(path: str, *, place: str) -> str:
    """A relative path of plain names; BadInput for anything that could lead elsewhere."""
    parts = path.split("/")
    plain = all(_PART.fullmatch(part) and part.rstrip(".").casefold() not in {"", ".git"} for part in parts)
    if not plain or len(path) > 1024:
        mend = "write plain names separated by /, such as clusters/eu: letters, digits, dots, dashes, underscores"
        raise BadInput(f"{path[:80]!r} is no folder inside the repository", place=place, mend=mend)
    return path
