"""Whether a service can be reached at all: a connection through the guard, closed at once. Nothing is asked."""

from __future__ import annotations

import httpcore

from agentrft.net.exchange import UNREACHABLE, Lost
from agentrft.net.guard import GuardedBackend
from agentrft.net.policy import Forbidden, NetworkPolicy, Server
from agentrft.net.resolve import Resolve, look_up


async def reach(url: str, policy: NetworkPolicy, *, within_s: float, resolve: Resolve = look_up) -> None:
    """Raises Lost when nobody takes a connection to the URL's server within the time; `url` has passed `web_address`.

    Under a public policy an address that may not be asked looks like one that is not there; under a local one it raises
    Forbidden.
    """
    server = Server.of(url)
    try:
        stream = await GuardedBackend(policy, server.scheme, resolve).connect_tcp(server.host, server.port, within_s)
    except Forbidden as refused:
        if policy.is_local:
            raise
        raise Lost(UNREACHABLE) from refused
    except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
        raise Lost(f"{UNREACHABLE} ({error})" if policy.is_local else UNREACHABLE) from error
    await stream.aclose()
