"""How much, how fast and how many: rate of a key, requests at once, size and pace of bodies."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable

from anyio import to_thread
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agentrft.server.config import Limits
from agentrft.server.errors import ApiError
from agentrft.server.json_body import check_json
from agentrft.server.request_metrics import RequestMetrics

_TAKES_FORMS = re.compile(r"/v1/(files|uploads/[^/]+/parts)")
_IN_A_THREAD_FROM_BYTES = 65_536
"""Shorter bodies are read in less time than it takes to change threads."""


class RateLimit:
    """Middleware: 429 for a key that asks too often, 503 where too much is going on. After `Authenticate`."""

    def __init__(
        self, app: ASGIApp, limits: Limits, metrics: RequestMetrics, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._app = app
        self._limits = limits
        self._metrics = metrics
        self._now = now
        self._left: dict[str, tuple[float, float]] = {}
        """Key → requests left, and when that was so."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller = scope.get("state", {}).get("caller")
        if caller is None:
            await self._app(scope, receive, send)
            return
        left = self._take(caller.key_id or "")
        if self._metrics.n_in_flight > self._limits.concurrent_requests:
            message = f"the server answers {self._limits.concurrent_requests} requests already; try again in a second"
            raise ApiError(503, message, code="server_busy", type="server_error", headers={"retry-after": "1"})

        async def send_with_limits(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["x-ratelimit-limit-requests"] = str(self._limits.requests_per_minute)
                headers["x-ratelimit-remaining-requests"] = str(int(left))
            await send(message)

        await self._app(scope, receive, send_with_limits)

    def _take(self, key: str) -> float:
        """Requests left after this one; raises 429 when there is none."""
        most, now = self._limits.requests_per_minute, self._now()
        left, at = self._left.get(key, (float(most), now))
        left = min(left + (now - at) * most / 60.0, float(most))
        if left < 1.0:
            wait_s = (1.0 - left) * 60.0 / most
            message = f"Rate limit reached: {most} requests a minute. Try again in {wait_s:.1f} s"
            headers = {"retry-after": str(int(wait_s) + 1), "x-ratelimit-limit-requests": str(most)}
            self._left[key] = (left, now)
            raise ApiError(429, message, code="rate_limit_exceeded", type="requests", headers=headers)
        self._left[key] = (left - 1.0, now)
        return left - 1.0


class Bodies:
    """Middleware: JSON bodies are whole, small and unambiguous before anyone sees them; forms keep their pace."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if headers.get("content-encoding", "identity").lower() != "identity":
            message = "the body is compressed, expected it as it is; leave Content-Encoding out"
            raise ApiError(415, message, code="unsupported_media_type")
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "multipart/form-data" and _TAKES_FORMS.fullmatch(scope["path"]):
            await self._app(scope, _paced(receive, self._limits), send)
            return
        body = await self._read(headers, receive)
        if body:
            _check_is_json(kind)
            if len(body) < _IN_A_THREAD_FROM_BYTES:
                check_json(body)
            else:
                await to_thread.run_sync(check_json, body)
        scope.setdefault("state", {})["body"] = body
        await self._app(scope, _replayed(body, receive), send)

    async def _read(self, headers: Headers, receive: Receive) -> bytes:
        most = self._limits.json_bytes
        if headers.get("content-length", "0").isdigit() and int(headers.get("content-length", "0")) > most:
            raise too_large(most, "limits.json_bytes")
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.json_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientLeft
                    body += message.get("body", b"")
                    if len(body) > most:
                        raise too_large(most, "limits.json_bytes")
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            raise _too_slow(f"the body did not arrive within {self._limits.json_s:g} s") from None


class ClientLeft(ApiError):
    """Nobody is there to read an answer."""

    def __init__(self) -> None:
        super().__init__(400, "the client closed the connection before its request was whole", code="invalid_request")


def too_large(most: int, option: str) -> ApiError:
    """413."""
    message = f"the body is too large, expected {most} bytes at most; send less, or ask the operator (`{option}`)"
    return ApiError(413, message, code="request_too_large")


def _too_slow(what: str) -> ApiError:
    # The client's retry would be as slow: OpenAI's SDK sends 408 again unless told not to.
    headers = {"connection": "close", "x-should-retry": "false"}
    return ApiError(408, f"{what}; send it faster", code="request_timeout", headers=headers)


def _check_is_json(kind: str) -> None:
    if kind != "application/json" and not re.fullmatch(r"application/[\w.-]+\+json", kind):
        got = f"{kind[:100]!r}" if kind else "none"
        message = f"the content type is {got}, expected application/json; set the header Content-Type"
        raise ApiError(415, message, code="unsupported_media_type")


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Gives the body once, and then what the client does."""
    is_given = False

    async def replay() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _paced(receive: Receive, limits: Limits) -> Receive:
    """Raises 408 when less than `progress_bytes` arrive within `progress_s`."""
    missing, since = limits.progress_bytes, time.monotonic()

    async def paced() -> Message:
        nonlocal missing, since
        try:
            async with asyncio.timeout(limits.progress_s - (time.monotonic() - since)):
                message = await receive()
        except TimeoutError:
            what = f"less than {limits.progress_bytes} bytes arrived in {limits.progress_s:g} s"
            raise _too_slow(what) from None
        missing -= len(message.get("body", b""))
        if missing <= 0:
            missing, since = limits.progress_bytes, time.monotonic()
        return message

    return paced
