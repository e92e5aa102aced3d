"""An MCP server over streamable HTTP: the SDK's transport, held to limits.

The SDK's transport loses its session when one connection fails, reads bodies of any size, and tells neither the status
of a refusal nor `Retry-After`. So it is handed a client that answers for the network: what fails comes back as a
JSON-RPC error with our own code, and the session goes on.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import httpx2
from mcp.client.streamable_http import streamable_http_client

from agentrft.clock import retry_after_s
from agentrft.tools.mcp_server import MAX_MESSAGE_BYTES, OVERSIZED, TOO_LONG

UNREACHABLE = -32801
"""Our own error code: no connection, or a status that says "later". `data` is how many seconds to wait, or null."""
REFUSED = -32802
"""Our own error code: a status that trying again will not change."""
SESSION_LOST = -32803
"""Our own error code: the server does not know the session any more."""

OpenHttpClient = Callable[[Mapping[str, str]], httpx2.AsyncClient]
"""From the headers that every request carries to a client; who opens the session closes it."""

CONNECT_S = 10.0
_LATER = frozenset({408, 425, 429})
_MAX_REFUSAL_BYTES = 64_000


def plain_client(headers: Mapping[str, str]) -> httpx2.AsyncClient:
    """A client without a network policy. It waits for an answer as long as the caller does."""
    timeout = httpx2.Timeout(None, connect=CONNECT_S)
    return httpx2.AsyncClient(headers=dict(headers), timeout=timeout, trust_env=False)


@asynccontextmanager
async def connect_http(url: str, headers: Mapping[str, str], open_client: OpenHttpClient) -> AsyncIterator[Any]:
    """What `ClientSession` reads from and writes to. Leaving ends the server's session, if there is one."""
    # A compressed body could grow beyond every limit after it was counted.
    async with open_client({**headers, "accept-encoding": "identity"}) as client:
        steady = cast("httpx2.AsyncClient", _SteadyClient(client))
        async with streamable_http_client(url, http_client=steady, max_sse_event_size=MAX_MESSAGE_BYTES) as streams:
            yield streams


def is_oversized_event(words: str) -> bool:
    """Whether the SDK says that an answer, sent as an event, was too long: it has no code of its own for that."""
    return words.startswith("SSE stream failed") and "byte limit" in words


class _SteadyClient:
    """The part of `httpx2.AsyncClient` that the SDK's transport uses; `send` raises nothing."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client
        self.build_request = client.build_request
        self.max_redirects = client.max_redirects

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        try:
            response = await self._client.send(request, **options)
        except Exception as error:
            # Whatever it is: raised, it would end the session, and every other call with it.
            return _failure(request, UNREACHABLE, f"{type(error).__name__}: {error}")
        if response.headers.get("content-encoding", "identity") != "identity":
            await response.aclose()
            return _failure(request, REFUSED, "the server compresses its answers, although it was asked not to")
        if response.status_code >= 400:
            return await _explained(request, response)
        if response.headers.get("content-type", "").lower().startswith("application/json"):
            return await _bounded(request, response)
        return response


async def _explained(request: httpx2.Request, response: httpx2.Response) -> httpx2.Response:
    """The answer with a JSON-RPC error for a body: the server's own, unless the status says more."""
    status = response.status_code
    words = f"HTTP {status} {response.reason_phrase}".strip()
    if status == 404 and "mcp-session-id" in request.headers:
        code = SESSION_LOST
    else:
        code = UNREACHABLE if status >= 500 or status in _LATER else REFUSED
    body = b""
    with suppress(httpx2.HTTPError):
        body = await _read(response, _MAX_REFUSAL_BYTES) or b""
    wait_s = retry_after_s(response.headers.get("retry-after"), time.time()) if code == UNREACHABLE else None
    if code != REFUSED or not _is_rpc_error(body):
        return _failure(request, code, words, wait_s)
    return httpx2.Response(status, headers={"content-type": "application/json"}, content=body, request=request)


async def _bounded(request: httpx2.Request, response: httpx2.Response) -> httpx2.Response:
    try:
        body = await _read(response, MAX_MESSAGE_BYTES)
    except httpx2.HTTPError as error:
        return _failure(request, UNREACHABLE, f"{type(error).__name__}: {error}")
    if body is None:
        return _failure(request, OVERSIZED, TOO_LONG)
    # Of the headers only these matter to the transport, and the length may have been wrong.
    kept = {name: response.headers[name] for name in ("content-type", "mcp-session-id") if name in response.headers}
    return httpx2.Response(response.status_code, headers=kept, content=body, request=request)


async def _read(response: httpx2.Response, limit: int) -> bytes | None:
    """The body, or None when it is longer; closes the response."""
    body = bytearray()
    try:
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > limit:
                return None
    finally:
        await response.aclose()
    return bytes(body)


def _is_rpc_error(body: bytes) -> bool:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and isinstance(value.get("error"), dict)


def _failure(request: httpx2.Request, code: int, words: str, wait_s: float | None = None) -> httpx2.Response:
    error = {"code": code, "message": words, "data": wait_s}
    # With 500 the transport looks for an error in the body, and gives it to the call that this request was.
    return httpx2.Response(500, json={"jsonrpc": "2.0", "id": None, "error": error}, request=request)
