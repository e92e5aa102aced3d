"""Connections that the policy holds for: a name is looked up once, every answer checked, a checked address connected.

httpcore opens each connection through this backend, so the check comes again with each: a name that has moved since
the last one gains nothing. The request keeps its host name (`Host` header, TLS server name, certificate check).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import cast

import httpcore

from agentrft.net.addresses import Address
from agentrft.net.policy import NetworkPolicy, Server
from agentrft.net.resolve import Resolve, allowed_addresses


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Opens TCP connections to allowed addresses only; `Forbidden` otherwise, before a packet is sent."""

    def __init__(self, policy: NetworkPolicy, scheme: str, resolve: Resolve) -> None:
        self._policy = policy
        self._scheme = scheme
        self._resolve = resolve
        # httpcore's own annotations make it an object for the case that anyio is missing
        self._sockets = cast(httpcore.AsyncNetworkBackend, httpcore.AnyIOBackend())

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 the signature is httpcore's
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """A connection within `timeout`, look-up included; several addresses share that time."""
        try:
            async with asyncio.timeout(timeout) as limit:
                server = Server(scheme=self._scheme, host=host.lower().removesuffix("."), port=port)
                addresses = await allowed_addresses(server, self._policy, self._resolve)
                return await self._first(addresses, port, limit.when(), local_address, socket_options)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(f"no connection within {timeout:g} s") from error
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error

    async def _first(
        self,
        addresses: Sequence[Address],
        port: int,
        until: float | None,
        local_address: str | None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None,
    ) -> httpcore.AsyncNetworkStream:
        now = asyncio.get_running_loop().time
        last: Exception | None = None
        for position, address in enumerate(addresses):
            share_s = None if until is None else max(until - now(), 0.0) / (len(addresses) - position)
            try:
                return await self._sockets.connect_tcp(str(address), port, share_s, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                last = error
        assert last is not None
        raise last
