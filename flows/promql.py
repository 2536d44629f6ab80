"""Queries to Prometheus: built from a service's labels, escaped, and vLLM's names for what is asked."""

from __future__ import annotations

from collections.abc import Mapping

from planner.workload import Scraped

HOUR_S = 3600
#: Instants of an hour's mean are this far apart.
_EACH = "5m"


def selector(scraped: Scraped) -> str:
    """`{a="x",b="y"}`: labels in order, values as PromQL's double-quoted strings."""
    pairs = (f"{name}={quoted(value)}" for name, value in sorted(scraped.select.items()))
    return "{" + ",".join(pairs) + "}"


def quoted(text: str) -> str:
    """A PromQL string that holds exactly this text, whatever it is."""
    plain = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{plain}"'


def hourly_rate(counter: str, labels: str, *, window_s: int) -> str:
    """Mean of the rate over the hour before, of all series together; instants without telemetry do not count.

    `rate` comes before `sum`, so a counter that starts anew is a new start and no fall of the sum.
    """
    return f"avg_over_time(sum(rate({counter}{labels}[{window_s}s]))[1h:{_EACH}])"


def samples(counter: str, labels: str, *, span_s: int) -> str:
    """Every sample of a counter in the span, with its own time."""
    return f"{counter}{labels}[{span_s}s]"


def gained(names: Mapping[str, str], labels: str, *, span_s: int) -> str:
    """What counters and histograms gained in the span, each marked by a label `what`; one query for all.

    `names` maps what is asked to the series: a name ending in `_bucket` keeps its `le`.
    """
    parts = (
        marked(f"sum{' by (le)' * name.endswith('_bucket')} (increase({name}{labels}[{span_s}s]))", what)
        for what, name in sorted(names.items())
    )
    return " or ".join(parts)


def highest(names: Mapping[str, str], labels: str, *, span_s: int) -> str:
    """The highest value of gauges in the span on any server, each marked by a label `what`."""
    parts = (marked(f"max(max_over_time({name}{labels}[{span_s}s]))", what) for what, name in sorted(names.items()))
    return " or ".join(parts)


def marked(query: str, what: str) -> str:
    """The same result with a label that says what it is."""
    return f'label_replace({query}, "what", {quoted(what)}, "", "")'
