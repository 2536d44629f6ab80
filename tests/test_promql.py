"""`flows.promql`: names from outside stay inside their quotes, and each query is what Prometheus' rules want."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from flows import promql
from planner.workload import Scraped

STRING = re.compile(r'"((?:[^"\\\n]|\\.)*)"')


@given(st.text(min_size=1, max_size=60))
def test_a_quoted_text_is_one_string_that_reads_back(text: str) -> None:
    """No label value ends its own string: what stands in the quotes, unescaped, is the text."""
    found = STRING.fullmatch(promql.quoted(text))
    assert found is not None
    plain = found[1].replace("\\n", "\n").replace("\\r", "\r") if "\\\\" not in found[1] else None
    if plain is not None:
        assert plain.replace('\\"', '"') == text


def test_escapes_by_hand() -> None:
    r"""A quote, a backslash and a newline, worked out."""
    assert promql.quoted('a"b\\c\n') == '"a\\"b\\\\c\\n"'


def test_a_selector_holds_its_labels_in_order() -> None:
    """Equal selections are equal queries, whatever the order in which they are written."""
    first = promql.selector(Scraped(select={"b": 'x"} or up{a="', "a": "1"}))
    assert first == '{a="1",b="x\\"} or up{a=\\""}'
    assert first == promql.selector(Scraped(select={"a": "1", "b": 'x"} or up{a="'}))


def test_rates_come_before_sums() -> None:
    """`rate` and `increase` are inside `sum`: a server that starts anew must not look like a fall of the sum."""
    assert promql.hourly_rate("c", "{}", window_s=300) == "avg_over_time(sum(rate(c{}[300s]))[1h:5m])"
    query = promql.gained({"p": "h_bucket", "s": "h_sum"}, "{}", span_s=60)
    assert query == (
        'label_replace(sum by (le) (increase(h_bucket{}[60s])), "what", "p", "", "") or '
        'label_replace(sum (increase(h_sum{}[60s])), "what", "s", "", "")'
    )
