"""From a host name to addresses that may be connected: looked up once, every answer checked."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence

from agentrft.net.addresses import Address, parse, plain
from agentrft.net.policy import NetworkPolicy, Server

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""(host, port) → IP addresses; raises OSError or UnicodeError when there are none."""


async def look_up(host: str, port: int) -> Sequence[str]:
    """The system's addresses of a name, in the order to try. Given up, the look-up itself ends in its thread."""
    name = host.encode("idna")  # raises UnicodeError for names that cannot be, before anybody is asked
    found = await asyncio.get_running_loop().getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


async def allowed_addresses(server: Server, policy: NetworkPolicy, resolve: Resolve = look_up) -> list[Address]:
    """Where to connect for `server`, in the order to try, and nowhere else: a second look-up may say otherwise.

    Raises OSError when the name has no address, Forbidden when one of its addresses is not allowed.
    """
    try:
        texts = await resolve(server.host, server.port)
    except (OSError, UnicodeError) as error:
        raise OSError(f"no address for this name: {error}") from error
    addresses = [address for text in texts if (address := parse(text))]
    if not addresses or len(addresses) < len(texts):
        raise OSError("no address for this name")
    policy.check(server, addresses)
    return [plain(address) for address in addresses]
