"""The network policy for MCP services: the SDK's HTTP client, on connections that `net.guard` opens."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from functools import cache

import httpcore
import httpx2

from agentrft.net.exchange import UNREACHABLE
from agentrft.net.guard import GuardedBackend
from agentrft.net.policy import Forbidden, NetworkPolicy
from agentrft.net.resolve import Resolve, look_up
from agentrft.tools.mcp_http import CONNECT_S, OpenHttpClient


def guarded_client(policy: NetworkPolicy, resolve: Resolve = look_up) -> OpenHttpClient:
    """For `McpSource.load`: clients that reach only what the policy allows, checked for every connection.

    Under a public policy all failures to connect read alike. Nothing of the environment is used.
    """

    def open_client(headers: Mapping[str, str]) -> httpx2.AsyncClient:
        timeout = httpx2.Timeout(None, connect=CONNECT_S)
        transport = _GuardedTransport(policy, resolve)
        return httpx2.AsyncClient(headers=dict(headers), timeout=timeout, transport=transport, trust_env=False)

    return open_client


@cache
def _ssl_context() -> ssl.SSLContext:
    return httpcore.default_ssl_context()  # 20 ms to make, and httpcore would make one a connection


class _GuardedTransport(httpx2.AsyncBaseTransport):
    """httpx2 has no seam for how connections are opened; its older sister's connection pool has."""

    def __init__(self, policy: NetworkPolicy, resolve: Resolve) -> None:
        self._policy = policy
        self._resolve = resolve
        self._pools: dict[str, httpcore.AsyncConnectionPool] = {}

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        assert isinstance(request.stream, httpx2.AsyncByteStream)
        url = request.url
        asked = httpcore.Request(
            request.method,
            httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=request.headers.raw,
            content=request.stream,
            extensions={"timeout": request.extensions.get("timeout", {})},
        )
        try:
            self._policy.check_url(str(url))
            answer = await self._pool(url.scheme).handle_async_request(asked)
        except Forbidden as error:
            if self._policy.is_local:
                raise
            raise httpx2.ConnectError(UNREACHABLE) from error
        except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
            why = f"{UNREACHABLE} ({error})" if self._policy.is_local else UNREACHABLE
            raise httpx2.ConnectError(why) from error
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
            raise httpx2.ReadError(f"broke off ({type(error).__name__}: {error})") from error
        return httpx2.Response(answer.status, headers=answer.headers, stream=_Body(answer))

    def _pool(self, scheme: str) -> httpcore.AsyncConnectionPool:
        if scheme not in self._pools:
            self._pools[scheme] = httpcore.AsyncConnectionPool(
                ssl_context=_ssl_context() if scheme == "https" else None,
                max_connections=None,  # one call that hangs must not hold up the others
                keepalive_expiry=5.0,
                network_backend=GuardedBackend(self._policy, scheme, self._resolve),
            )
        return self._pools[scheme]

    async def aclose(self) -> None:
        for pool in self._pools.values():
            await pool.aclose()


class _Body(httpx2.AsyncByteStream):
    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._answer.aiter_stream():
                yield piece
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
            raise httpx2.ReadError(f"broke off ({type(error).__name__}: {error})") from error

    async def aclose(self) -> None:
        await self._answer.aclose()
