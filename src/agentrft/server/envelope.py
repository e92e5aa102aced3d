"""What every answer has in common: a request id, how long it took, headers that tell browsers to keep out, a log line,
and OpenAI's error body when something was raised.

The outermost middleware of ours, so that a refusal by any other looks like every other error.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agentrft.report.text import one_line
from agentrft.server.errors import as_api_error, server_error
from agentrft.server.request_metrics import RequestMetrics

LOG = logging.getLogger("agentrft.server")

SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}
"""Of every answer that does not set them itself."""


class Envelope:
    """The middleware."""

    def __init__(self, app: ASGIApp, metrics: RequestMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(scope, receive, send)
        try:
            with self._metrics.in_flight():
                await answer.run(self._app)
        finally:
            self._metrics.count(route_of(scope), scope["method"], answer.status, answer.seconds)
            _log(scope, answer)


class _Answer:
    """One request on its way through."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.id = f"req_{secrets.token_hex(16)}"
        self.status = 0
        """0 until the answer begins, and for good when the client left before."""
        self._scope, self._receive, self._send = scope, receive, send
        self._began = time.perf_counter()
        scope.setdefault("state", {})["request_id"] = self.id

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._began

    async def run(self, app: ASGIApp) -> None:
        try:
            await app(self._scope, self._receive, self.send)
        except ClientDisconnect:
            """Nobody is there to be told anything; the log line says that they left."""
        except Exception as error:
            known = as_api_error(error)
            if known is None:
                LOG.exception("request %s failed", self.id)
            elif known.status == 503:
                LOG.warning("request %s: %s", self.id, one_line(str(error), 500))
            if self.status:  # too late for another answer: breaking off tells the client that this one is not whole
                raise
            answer = known or server_error(self.id)
            await send_json(self.send, answer.status, answer.body(), answer.headers)

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self.id
            headers["openai-processing-ms"] = str(round(1000 * self.seconds))
            headers["openai-version"] = "2020-10-01"
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
        await self._send(message)


def route_of(scope: Scope) -> str:
    """The route that answered, as its path template; one word for all addresses that are none."""
    route = scope.get("route")
    return getattr(route, "path_format", None) or getattr(route, "path", None) or "unknown"


async def send_json(send: Send, status: int, body: Any, headers: Mapping[str, str]) -> None:
    """Answer with a JSON document."""
    content = json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    sent = {**headers, "content-type": "application/json", "content-length": str(len(content))}
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in sent.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": content})


def _log(scope: Scope, answer: _Answer) -> None:
    caller = scope["state"].get("caller")
    who = f"{caller.project}/{caller.key_id or 'local'}" if caller else "-"
    # Never the query or a header: either may hold what nobody should read.
    line = f"{scope['method']} {scope['path']}"
    milliseconds = round(1000 * answer.seconds)
    LOG.info("%s %s %s %s ms %s", answer.id, one_line(line, 200), answer.status or "left", milliseconds, who)
