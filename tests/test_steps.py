"""Laws of steps: results come in order, whoever carries them out, and the first error ends the night."""

from __future__ import annotations

from functools import partial

import pytest

from flows.progress import Shown
from flows.steps import STAGES, Perform, Step, in_process


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
