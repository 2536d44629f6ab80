"""Refuse a Prefect server that others can reach and that answers whoever asks.

Prefect's own server asks for nothing by default: whoever reaches it can start runs, read their parameters, and read
secret blocks in clear. On this machine alone that is convenient; elsewhere it must ask for a key.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from urllib.parse import urlsplit

import httpx

from catalog.errors import BadInput

#: Set to `1` by whoever has decided that an open server is protected in another way.
ALLOW = "FLEETPLAN_ALLOW_ANONYMOUS_SERVER"
WAIT_S = 10.0
#: What a server answers that wants to know who asks; a redirect leads to its login page.
_ASKS = {401, 403, 407}


def check_server(url: str | None, *, allowed: bool = False) -> None:
    """Refuse a server beyond this machine that answers an anonymous call; None is Prefect's own, in this process.

    Raises:
        BadInput: it answers anybody, or the URL carries a credential.
        OSError: it cannot be reached, so that nothing is known of it.
    """
    if not url:
        return
    parts = urlsplit(url)
    if parts.username or parts.password:
        what = "the URL of Prefect's server carries a credential"
        raise BadInput(what, place="PREFECT_API_URL", mend="put it into PREFECT_API_AUTH_STRING or PREFECT_API_KEY")
    if allowed or os.environ.get(ALLOW) == "1" or is_loopback(parts.hostname or ""):
        return
    if answers_anybody(url):
        what = f"Prefect's server at {parts.hostname} answers calls without a key"
        mend = "set PREFECT_SERVER_API_AUTH_STRING there, or say --allow-anonymous if it is protected in another way"
        raise BadInput(what, place="PREFECT_API_URL", mend=mend)


def is_loopback(host: str) -> bool:
    """Whether every address of a host is this machine's own; a name that is not known is not."""
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return bool(found) and all(ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in found)


def answers_anybody(url: str) -> bool:
    """Whether a call that says nothing of who asks is answered; OSError where nothing answers at all."""
    try:
        # trust_env=False: no key of a .netrc, no proxy
        with httpx.Client(follow_redirects=False, trust_env=False, timeout=WAIT_S) as client:
            answer = client.post(f"{url.rstrip('/')}/flows/filter", json={"limit": 1})
    except httpx.HTTPError as error:
        msg = f"Prefect's server at {urlsplit(url).hostname} does not answer ({type(error).__name__})"
        raise OSError(msg) from error
    return answer.status_code not in _ASKS and not answer.is_redirect
