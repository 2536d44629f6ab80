"""Names that users write, checked against what exists."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from catalog.errors import BadInput, near_names

if TYPE_CHECKING:
    from catalog.gpus import GPU
    from planner.intents import Fleet


def gpu_names(gpus: Mapping[str, GPU] | None) -> dict[str, str]:
    """Every spelling of a GPU (name, alias, the mapping's key) -> the catalog's name."""
    names: dict[str, str] = {}
    for key, gpu in (gpus or {}).items():
        for spelling in (*gpu.aliases, gpu.name, key):
            names[spelling] = gpu.name
    return names


def check(fleet: Fleet, gpus: Mapping[str, GPU] | None = None) -> None:
    """Raise BadInput for the first name that refers to nothing, so that no quota or budget is silently off."""
    names = gpu_names(gpus)
    pools = [pool.name for pool in fleet.cluster.pools]
    there = {names.get(pool.gpu, pool.gpu) for pool in fleet.cluster.pools}
    teams = [team.name for team in fleet.teams]
    for intent in fleet.intents:
        place = f"intent {intent.name!r}"
        if intent.team is not None:
            _known("team", intent.team, teams, place)
        for name in (*(intent.pools or ()), *intent.forbidden_pools):
            _known("node pool", name, pools, place)
        for name in (*(intent.gpus or ()), *(intent.forbidden_gpus if names else ())):
            if names.get(name, name) not in {*there, *names.values()}:
                _known("GPU", name, there, place)
    for team in fleet.teams:
        for gpu in team.quota:
            if names.get(gpu, gpu) not in {*there, *names.values()}:
                _known("GPU", gpu, there, f"quota of team {team.name!r}")


def _known(what: str, name: str, known: Iterable[str], place: str) -> None:
    if name not in (all_ := sorted(known)):
        raise BadInput(f"{what} {name!r} is not declared", place=place, mend=near_names(name, all_))
