"""Laws of steps: results come in order, whoever carries them out, and the first error ends the night."""

from __future__ import annotations

from functools import partial

import pytest

from flows.progress import Shown
from flows.steps import STAGES, TELL, Perform, Step, in_process


def squares(count: int) -> list[Step[int]]:
    """Steps that square their number."""
    return [Step(stage="probe", label=str(i), call=partial(pow, i, 2)) for i in range(count)]


@pytest.mark.parametrize("perform", [in_process, Shown()], ids=["silent", "shown"])
def test_results_come_in_the_order_of_the_steps(perform: Perform) -> None:
    """Whoever carries steps out returns their results in their order, and nothing for no steps."""
    assert perform(squares(5)) == [0, 1, 4, 9, 16]
    assert perform([]) == []


@pytest.mark.parametrize("perform", [in_process, Shown()], ids=["silent", "shown"])
def test_an_error_ends_the_stage(perform: Perform) -> None:
    """A step that fails passes its own error on."""
    steps = [*squares(2), Step(stage="probe", label="bad", call=partial(divmod, 1, 0))]
    with pytest.raises(ZeroDivisionError):
        perform(steps)


def test_stages_are_those_of_the_night() -> None:
    """The stages are named in the order in which the night runs them."""
    assert STAGES == ("observe", "probe", "search", "place", "render", "publish")


def test_a_bar_moves_within_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a step tells of its parts moves its stage's bar, never back, and a step that is done counts one."""
    shown, seen = Shown(), []
    monkeypatch.setattr(shown._progress, "update", lambda _, **said: seen.append(said))

    def told() -> int:
        tell = TELL.get()
        for part in (
            ("configurations", 5, 5),
            ("screened", 1, 2),
            ("screened", 2, 2),
            ("other", 0, 9),
            ("verified", 1, 4),
        ):
            tell(*part)
        return 7

    assert shown([Step(stage="search", label="chat", call=told), *squares(1)]) == [7, 0]
    moved = [said["completed"] for said in seen if "completed" in said]
    assert moved == sorted(moved)
    assert 0 < moved[0] < moved[1] < moved[2] < 1
    assert moved[-1] == 2
    described = [said["description"] for said in seen if said.get("description")]
    assert "chat: 5 configurations" in described
    assert "chat: 1 of 2 screened" in described
