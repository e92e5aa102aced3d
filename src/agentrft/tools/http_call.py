"""One call of an HTTP tool: what is sent, and what each answer means."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from agentrft.clock import retry_after_s
from agentrft.errors import ToolFault, ToolOutage
from agentrft.net.breaker import Breaker, BreakerOpen
from agentrft.net.exchange import Answer, Bounds, Lost, WebClient
from agentrft.net.policy import Forbidden, Server
from agentrft.net.secrets import Hider
from agentrft.protocols import Clock, ToolContext
from agentrft.tools.http_binding import HttpBinding
from agentrft.types import ToolSpec

MAX_REQUEST_BYTES = 1_000_000
MAX_ANSWER_BYTES = 1_000_000

_MAX_WORDS = 300
_NOT_NOW = frozenset({HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})
"""To be sent again, but no sign of a server that is down."""


@dataclass(slots=True, kw_only=True)
class Upstream:
    """What the tools of one server share."""

    server: Server
    slots: asyncio.Semaphore
    breaker: Breaker
    clock: Clock
    tools: list[str] = field(default_factory=list)
    in_flight: int = 0


class HttpTool:
    """One tool in one episode; `Tool`."""

    def __init__(self, spec: ToolSpec, binding: HttpBinding, row: str, client: WebClient, upstream: Upstream) -> None:
        self.spec = spec
        self._binding = binding
        self._headers = {name: value.get_secret_value() for name, value in binding.headers.items()}
        self._hider = Hider(self._headers)
        self.turn: AbstractAsyncContextManager[object] = upstream.slots
        """One of the requests that its server gets at the same time."""
        self._row = row
        self._client = client
        self._upstream = upstream

    async def call(self, arguments: Mapping[str, object], context: ToolContext) -> str:
        """The service's `output`; what is no string as JSON.

        Raises ValueError for what the model should read (4xx, too large), ToolOutage for what may be sent again
        (no answer, 408, 425, 429, 5xx, a server that is left alone), ToolFault for a service that is wrong.
        """
        body = self._body(arguments, context)
        if len(body) > MAX_REQUEST_BYTES:
            raise ValueError(f"413: the call and its task take {len(body)} bytes, at most {MAX_REQUEST_BYTES} are sent")
        try:
            answer = await self._ask(body, context)
        except BreakerOpen as left_alone:
            raise self._outage(str(left_alone), left_alone.wait_s) from left_alone
        except _Down as down:
            asked_s = retry_after_s(down.answer.headers.get("retry-after"), self._upstream.clock.now())
            raise self._outage(self._said(down.answer), asked_s) from None
        except Lost as lost:
            raise self._outage(self._hider.hide(str(lost))) from lost
        except Forbidden as refused:
            raise self._fault(str(refused)) from refused
        if answer.status < 300:
            return self._output(answer, context)
        if answer.status < 400:
            target = self._hider.hide(_target(answer.headers.get("location", "")))
            raise self._fault(f"answered {answer.status}, to be asked at {target}; redirects are not followed")
        raise ValueError(self._refusal(answer))

    def _body(self, arguments: Mapping[str, object], context: ToolContext) -> bytes:
        digest = _digest(context)
        call = {
            "type": "function_call",
            "id": f"fc_{digest[:24]}",
            "call_id": context.call_id,
            "name": self.spec.name,
            "arguments": json.dumps(arguments, ensure_ascii=False),
            "trace_id": context.trace_id,
        }
        # ASCII: lone surrogates in what a model wrote survive as escapes.
        return f'{json.dumps(call)[:-1]}, "item": {self._row}}}'.encode()

    async def _ask(self, body: bytes, context: ToolContext) -> Answer:
        """The answer; raises _Down when it says that the server is not able to give one now."""
        total_s = min(self._binding.timeout_s or math.inf, context.deadline_s)
        # Ours ends before the caller's, which could not tell a server that hangs from a job that is stopped.
        bounds = Bounds(total_s=total_s - min(0.05 * total_s, 0.5), max_bytes=MAX_ANSWER_BYTES)
        headers = {**self._headers, "Idempotency-Key": _digest(context)[:32]}
        upstream = self._upstream
        with upstream.breaker.call(Lost, _Down):
            upstream.in_flight += 1
            try:
                answer = await self._client.post(self._binding.server_url, body, headers, bounds)
            finally:
                upstream.in_flight -= 1
            if answer.status >= 500 or answer.status == HTTPStatus.REQUEST_TIMEOUT:
                raise _Down(answer)
        if answer.status in _NOT_NOW:
            raise _Down(answer)
        return answer

    def _output(self, answer: Answer, context: ToolContext) -> str:
        if answer.was_cut:
            raise ValueError(f"413: the tool's output has more than {MAX_ANSWER_BYTES} bytes; ask for less")
        reply = _object(answer.body)
        if reply is None or "output" not in reply:
            raise self._fault(f"{self._said(answer)}; expected a JSON object with `output`")
        if reply.get("call_id") not in (None, context.call_id):
            got = self._hider.hide(str(reply["call_id"])[:80])
            raise self._fault(f"answered the call {got!r}, expected {context.call_id!r}")
        return self._text(reply["output"], answer)

    def _refusal(self, answer: Answer) -> str:
        """What the model reads of a 4xx."""
        reply = None if answer.was_cut else _object(answer.body)
        if reply is not None and "output" in reply:
            return self._text(reply["output"], answer)
        return f"{answer.status}: {self._words(answer) or _phrase(answer.status)}"

    def _text(self, output: object, answer: Answer) -> str:
        try:
            text = output if isinstance(output, str) else _compact(output)
        except (ValueError, RecursionError):
            raise self._fault(f"{self._said(answer)}; expected an `output` that is JSON") from None
        return self._hider.hide_in_output(text)

    def _words(self, answer: Answer) -> str:
        """What the server says, in one line, as far as an error has room."""
        text = " ".join(self._hider.hide(answer.body.decode("utf-8", "replace")).split())
        return text if len(text) <= _MAX_WORDS else f"{text[:_MAX_WORDS]}…"

    def _said(self, answer: Answer) -> str:
        return f"answered {answer.status}: {self._words(answer) or 'without a word'}"

    def _fault(self, what: str) -> ToolFault:
        return ToolFault(f"tool {self.spec.name!r} at {self._upstream.server}: {what}")

    def _outage(self, what: str, wait_s: float | None = None) -> ToolOutage:
        return ToolOutage(f"tool {self.spec.name!r} at {self._upstream.server}: {what}", wait_s=wait_s)


class _Down(Exception):
    """An answer that says: not now."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def _digest(context: ToolContext) -> str:
    """Of one call: the same whenever it is sent again."""
    return hashlib.sha256(json.dumps([context.trace_id, context.call_id]).encode()).hexdigest()


def _object(body: bytes) -> dict[str, Any] | None:
    """The JSON object that a body is; None for anything else."""
    try:
        read = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return read if isinstance(read, dict) else None


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "without a word"


def _target(location: str) -> str:
    """The host that a `Location` names, and nothing else of it: the rest may hold what is not ours to show."""
    try:
        parts = urlsplit(location)
        host = (parts.hostname or "")[:100]
        return f"{host}:{parts.port}" if parts.port else host or "another path of the same server"
    except ValueError:
        return "an address that cannot be read"
