"""`planner.workload.admission`: what vLLM refuses and where it cuts, by lengths alone."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from planner.workload import admit

LENGTHS = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 60)), min_size=1, max_size=20)


def test_each_rule_by_hand() -> None:
    """Of max_model_len 100: no output, a prompt of 100, one of 101 are errors; 90 + 20 is cut to 90 + 10."""
    found = admit(np.array([5, 100, 101, 90, 99]), np.array([0, 1, 1, 20, 1]), 100)
    assert found.output.tolist() == [0, 0, 0, 10, 1]
    assert (found.refused, found.cut) == (3, 1)
    assert [found.reason(i) is None for i in range(5)] == [False, False, False, True, True]
    assert "longer than max_model_len 100" in (found.reason(2) or "")
    assert sorted(found.reasons.values()) == [1, 1, 1]


@given(LENGTHS, st.integers(1, 100))
def test_whoever_is_served_fits(rows: list[tuple[int, int]], longest: int) -> None:
    """A served request ends within max_model_len with at least one token; who asks for what fits gets all of it."""
    prompt, output = np.array(rows).T
    found = admit(prompt, output, longest)
    served = found.taken
    assert (found.output[served] >= 1).all()
    assert (prompt[served] + found.output[served] <= longest).all()
    fits = (prompt + output <= longest) & (output >= 1)
    assert (served[fits]).all()
    assert (found.output[fits] == output[fits]).all()
    assert sum(found.reasons.values()) == found.refused == np.count_nonzero(~served)


@given(LENGTHS, st.integers(1, 99))
def test_a_longer_context_refuses_and_cuts_no_more(rows: list[tuple[int, int]], longest: int) -> None:
    """Raising max_model_len serves whoever was served, as long or longer."""
    prompt, output = np.array(rows).T
    less, more = admit(prompt, output, longest), admit(prompt, output, longest + 1)
    assert (more.output >= less.output).all()
    assert more.refused <= less.refused
