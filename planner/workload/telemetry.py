"""`Telemetry` and `Scraped`: where a fleet's metrics are, and which of them are one service's."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import AfterValidator, AnyHttpUrl, Field, StringConstraints, TypeAdapter, ValidationError, model_validator

from catalog.cluster import Fact
from catalog.units import Seconds

#: As Prometheus accepts it.
LabelName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]{0,99}$")]
LabelValue = Annotated[str, StringConstraints(min_length=1, max_length=500)]
#: Labels that queries use themselves.
_TAKEN = ("__name__", "le")
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_URL = TypeAdapter(AnyHttpUrl)


def _server(url: str) -> str:
    """An http or https URL without user, password, query or fragment, as it was written."""
    try:
        parts = None if re.search(r"[\s\\]", url) or len(url) > 500 else _URL.validate_python(url)
    except ValidationError:
        parts = None
    if parts is None:
        msg = f"{url[:80].rpartition('@')[2]!r} is no URL of a server: write http://host:9090 or https://host/path"
        raise ValueError(msg)
    if any(part is not None for part in (parts.username, parts.password, parts.query, parts.fragment)):
        msg = "the URL holds a user, a query or a fragment: give a token through token_env, and the plain URL"
        raise ValueError(msg)
    return url.rstrip("/")


ServerURL = Annotated[str, AfterValidator(_server)]


class Telemetry(Fact):
    """The Prometheus server (or one that speaks its HTTP API) that scrapes the fleet's vLLM servers."""

    url: ServerURL
    """`http://prometheus:9090`; redirects are not followed and proxies of the environment are not used."""
    token_env: Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{0,63}$")] | None = None
    """Environment variable that holds a bearer token; sent over https or on this machine alone."""
    days: int = Field(default=14, ge=1, le=90)
    """History that is read."""
    scrape: Seconds = 60.0
    """How often it scrapes, or less often."""

    @model_validator(mode="after")
    def _keeps_the_token_secret(self) -> Self:
        parts = _URL.validate_python(self.url)
        if self.token_env is not None and parts.scheme != "https" and parts.host not in _LOOPBACK:
            msg = f"a token would be sent in clear to {self.url!r}: use https"
            raise ValueError(msg)
        return self

    @property
    def window_s(self) -> int:
        """Seconds over which a rate is taken: a few scrapes, so that one that fails leaves no gap."""
        return max(300, 4 * round(self.scrape))


class Scraped(Fact):
    """The series of one service."""

    select: dict[LabelName, LabelValue] = Field(min_length=1, max_length=20)
    """Labels that all of its series carry and no other service's do: `{model_name: org/model, namespace: prod}`.

    Of a disaggregated service, its decode replicas: prefill replicas count each request once more.
    """

    @model_validator(mode="after")
    def _leaves_our_labels_alone(self) -> Self:
        taken = [name for name in self.select if name in _TAKEN]
        if taken:
            msg = f"select must not name {taken[0]!r}: name labels of the targets, such as model_name or namespace"
            raise ValueError(msg)
        return self
