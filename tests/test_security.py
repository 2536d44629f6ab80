"""Laws of the server check: beyond this machine, only a server that asks who calls is spoken to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from catalog.errors import BadInput
from flows import security
from flows.security import ALLOW, check_server, is_loopback


@contextmanager
def answering(status: int, seen: list[dict[str, str]] | None = None) -> Iterator[str]:
    """A server on this machine that answers every POST alike; yields the URL of its API."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            if seen is not None:
                seen.append({key.lower(): value for key, value in self.headers.items()})
            self.send_response(status)
            self.send_header("Location", "http://127.0.0.1:1/")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/api"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every host for another machine."""
    monkeypatch.setattr(security, "is_loopback", lambda _: False)
    monkeypatch.delenv(ALLOW, raising=False)


@pytest.mark.parametrize("status", [200, 201, 404, 422, 500])
@pytest.mark.usefixtures("elsewhere")
def test_a_server_that_answers_anybody_is_refused(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever an anonymous call gets but a question who it is: refused, unless told otherwise."""
    with answering(status) as url:
        with pytest.raises(BadInput, match=r"without a key.*PREFECT_SERVER_API_AUTH_STRING"):
            check_server(url)
        check_server(url, allowed=True)
        monkeypatch.setenv(ALLOW, "1")
        check_server(url)


@pytest.mark.parametrize("status", [401, 403, 407, 302, 307])
@pytest.mark.usefixtures("elsewhere")
def test_a_server_that_asks_is_accepted(status: int) -> None:
    """401, 403, 407 or a redirect to a login page: it wants to know who calls."""
    with answering(status) as url:
        check_server(url)


@pytest.mark.usefixtures("elsewhere")
def test_the_call_is_anonymous(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check itself carries no key, whatever the environment holds."""
    monkeypatch.setenv("PREFECT_API_KEY", "canary")
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "canary:canary")
    seen: list[dict[str, str]] = []
    with answering(401, seen) as url:
        check_server(url)
    assert len(seen) == 1
    assert "authorization" not in seen[0]
    assert "canary" not in str(seen)


@pytest.mark.usefixtures("elsewhere")
def test_a_server_that_does_not_answer_is_not_trusted() -> None:
    """Of a server that cannot be reached nothing is known: the run ends."""
    with answering(401) as url:
        pass
    with pytest.raises(OSError, match="does not answer"):
        check_server(url)


def test_this_machine_is_accepted() -> None:
    """Prefect's own server in this process, and one on loopback, need no key."""
    check_server(None)
    check_server("")
    with answering(200) as url:
        check_server(url)


def test_a_credential_in_the_url_is_refused() -> None:
    """A URL is shown and logged: a key does not belong there."""
    with pytest.raises(BadInput, match="carries a credential"):
        check_server("http://user:word@127.0.0.1:4200/api")


@pytest.mark.parametrize(("host", "own"), [
    ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0x7f000001", True),
    ("192.0.2.1", False), ("192.0.2.255", False), ("::ffff:192.0.2.1", False), ("no-such-host.invalid", False),
])  # fmt: skip
def test_loopback_is_known(host: str, own: bool) -> None:  # noqa: FBT001 - a table
    """Only addresses of this machine's own loopback are local; an unknown name is not."""
    assert is_loopback(host) is own
