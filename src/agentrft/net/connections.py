"""Connections that are kept for the next request to the same server.

httpcore's own pool looks at every connection twice for every other one whenever a request starts or ends: 32 requests
side by side took it 8 ms each. Here callers limit how many run, so that a stack of idle connections is all it takes.
"""

from __future__ import annotations

import ssl
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import httpcore

from agentrft.net.guard import GuardedBackend
from agentrft.net.policy import NetworkPolicy, Server
from agentrft.net.resolve import Resolve, look_up

KEEP_S = 5.0
"""Idle connections; uvicorn, for one, closes them after as long."""
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Connections:
    """One a request, opened through the guard. Serves one event loop."""

    def __init__(self, policy: NetworkPolicy, resolve: Resolve | None) -> None:
        self._policy = policy
        self._resolve = resolve or look_up
        self._idle: defaultdict[Server, list[httpcore.AsyncHTTPConnection]] = defaultdict(list)
        self._all: set[httpcore.AsyncHTTPConnection] = set()
        self._ssl: ssl.SSLContext | None = None

    @asynccontextmanager
    async def post(
        self, url: str, body: bytes, headers: Mapping[str, str], connect_s: float
    ) -> AsyncIterator[httpcore.Response]:
        """The head of the answer, its body to be read; raises httpcore's exceptions, and Forbidden."""
        server = Server.of(url)
        connection = await self._kept(server) or self._new(server)
        self._all.add(connection)
        request = httpcore.Request(
            "POST",
            url,
            headers=[("Host", _host(server)), ("Content-Length", str(len(body))), *headers.items()],
            content=body,
            extensions={"timeout": {"connect": connect_s}},
        )
        try:
            response = await connection.handle_async_request(request)
            try:
                yield response
            finally:
                await response.aclose()
        finally:
            if connection.is_available() and connection in self._all:
                self._idle[server].append(connection)
            else:
                self._all.discard(connection)
                await connection.aclose()

    async def close(self) -> None:
        """Drop them all; requests under way end with httpcore's exceptions."""
        connections, self._all = self._all, set()
        self._idle.clear()
        for connection in connections:
            await connection.aclose()

    async def _kept(self, server: Server) -> httpcore.AsyncHTTPConnection | None:
        """The connection used last, unless it has been idle too long or its server has left."""
        idle = self._idle[server]
        while idle:
            connection = idle.pop()
            if not connection.has_expired():
                return connection
            self._all.discard(connection)
            await connection.aclose()
        return None

    def _new(self, server: Server) -> httpcore.AsyncHTTPConnection:
        if server.scheme == "https" and self._ssl is None:
            self._ssl = httpcore.default_ssl_context()  # 20 ms to make, and httpcore would make one a connection
        return httpcore.AsyncHTTPConnection(
            origin=httpcore.Origin(server.scheme.encode(), server.host.encode(), server.port),
            ssl_context=self._ssl,
            keepalive_expiry=KEEP_S,
            network_backend=GuardedBackend(self._policy, server.scheme, self._resolve),
        )


def _host(server: Server) -> str:
    text = str(server)
    return text.removesuffix(f":{server.port}") if server.port == _DEFAULT_PORTS[server.scheme] else text
