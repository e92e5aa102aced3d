"""A request that is sent again is answered again, and carried out once.

With an `Idempotency-Key` header, any POST; without one, the retries of OpenAI's SDKs, which say which try they are
(`x-stainless-retry-count`) and send the same body. Each API key has answers of its own. Only successes are kept: after
an error the next try is carried out, after one of the server's own (5xx) under the same token. Streams and forms are
not kept.

A handler that makes something names it after `once_of(request)`; then even a server that is killed, or loses its store,
between making it and answering makes no second one.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

from anyio import to_thread
from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agentrft.errors import StoreFault, UserError
from agentrft.jobs.vault import Vault
from agentrft.server.errors import ApiError, as_api_error
from agentrft.store.idempotency import STALE_S, Answered, Busy, Idempotency, Turn

HEADER = "idempotency-key"
_RETRY_HEADER = "x-stainless-retry-count"
_LONGEST_KEY = 255
_WAITS_S = (*(0.1,) * 20, *(1.0,) * 58)
"""Between looks for the answer that another request is being given: a minute in all."""
_KEPT_HEADERS = ("content-type", "location")
_WITHOUT_EFFECT = ("/v1/chat/", "/v1/responses", "/v1/fine_tuning/alpha/")
"""Asking these twice does no harm, and their answers are long: kept only where a key is given."""


def once_of(request: Request) -> str | None:
    """What a handler names after what it makes: one token for all tries of a request; None where they are not told."""
    return request.scope["state"].get("once")


class Idempotent:
    """The middleware; after `Bodies`, which leaves the body in the request's state."""

    def __init__(self, app: ASGIApp, answers: Idempotency, vault: Vault) -> None:
        self._app = app
        self._answers = answers
        self._vault = vault

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = scope.get("state", {})
        named = _key_of(scope) if scope["type"] == "http" and "body" in state and "caller" in state else None
        if named is None:
            await self._app(scope, receive, send)
            return
        key, is_first = named
        project, digest = state["caller"].project, _digest(scope)
        turn = await self._turn(project, key, digest, anew=is_first)
        if isinstance(turn, Answered):
            await self._replay(project, key, turn, send)
            return
        state["once"] = turn.token
        await _Recording(self, project, key, turn).run(scope, receive, send)

    async def _turn(self, project: str, key: str, digest: str, *, anew: bool) -> Turn | Answered:
        """The right to carry the request out, or its answer; waits for whoever is at it."""
        for wait_s in _WAITS_S:
            try:
                turn = await to_thread.run_sync(lambda: self._answers.begin(project, key, digest, anew=anew))
            except UserError as error:
                headers = {"x-should-retry": "false"}
                raise ApiError(409, error.message, HEADER, "idempotency_key_reused", headers=headers) from None
            if not isinstance(turn, Busy):
                return turn
            await asyncio.sleep(wait_s)
        message = "the same request is still being carried out; ask again in a while for its answer"
        raise ApiError(409, message, param=HEADER, code="request_in_progress", headers={"retry-after": "5"})

    async def _replay(self, project: str, key: str, kept: Answered, send: Send) -> None:
        answer = json.loads(await to_thread.run_sync(self._vault.unseal, kept.answer, _context(project, key)))
        body = answer["body"].encode()
        raw = [(name.encode(), value.encode("latin-1")) for name, value in answer["headers"].items()]
        raw += [(b"content-length", str(len(body)).encode()), (b"idempotent-replayed", b"true")]
        await send({"type": "http.response.start", "status": kept.status, "headers": raw})
        await send({"type": "http.response.body", "body": body})

    async def carry_out(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on to what is inside."""
        await self._app(scope, receive, send)

    async def keep(self, project: str, key: str, turn: Turn, status: int, answer: dict[str, Any]) -> None:
        """Keep the answer; sealed, because it may hold a webhook's secret."""

        def seal_and_keep() -> None:
            sealed = self._vault.seal(json.dumps(answer), _context(project, key))
            self._answers.finish(project, key, turn, status, sealed)

        await to_thread.run_sync(seal_and_keep)

    async def leave(self, project: str, key: str, turn: Turn, *, is_settled: bool) -> None:
        """Let the next try be carried out: as a new request where it `is_settled` that this one made nothing."""
        leave = self._answers.abandon if is_settled else self._answers.give_back
        with contextlib.suppress(StoreFault):  # the turn is stale soon anyway
            await to_thread.run_sync(leave, project, key, turn)

    @contextlib.asynccontextmanager
    async def refreshed(self, project: str, key: str, turn: Turn) -> AsyncIterator[None]:
        """Tells others inside the block that someone is at it."""
        task = asyncio.create_task(self._refresh(project, key, turn))
        try:
            yield
        finally:
            task.cancel()

    async def _refresh(self, project: str, key: str, turn: Turn) -> None:
        while True:
            await asyncio.sleep(STALE_S / 4)
            with contextlib.suppress(StoreFault):  # the next one may come in time
                await to_thread.run_sync(self._answers.refresh, project, key, turn)


class _Recording:
    """One request that is carried out: its answer is kept before the client sees it."""

    def __init__(self, owner: Idempotent, project: str, key: str, turn: Turn) -> None:
        self._owner = owner
        self._place = (project, key, turn)
        self._start: Message | None = None
        self._body = bytearray()
        self._is_kept = False
        self._is_settled = False
        """Whether it is known that the request made nothing that a further try would make twice."""

    async def run(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def record(message: Message) -> None:
            await self._record(message, send)

        try:
            async with self._owner.refreshed(*self._place):
                await self._owner.carry_out(scope, receive, record)
        except Exception as error:
            known = as_api_error(error)
            self._is_settled = self._start is None and known is not None and known.status < 500
            raise
        finally:
            if not self._is_kept:
                await asyncio.shield(self._owner.leave(*self._place, is_settled=self._is_settled))

    async def _record(self, message: Message, send: Send) -> None:
        if message["type"] == "http.response.start":
            is_json = MutableHeaders(scope=message).get("content-type", "").startswith("application/json")
            if is_json and 200 <= message["status"] < 300:
                self._start = message
                return
            self._is_settled = message["status"] < 500
        if self._start is None:
            await send(message)
            return
        self._body += message.get("body", b"")
        if message.get("more_body", False):
            return
        headers = Headers(scope=self._start)
        kept = {name: headers[name] for name in _KEPT_HEADERS if name in headers}
        answer = {"headers": kept, "body": self._body.decode()}
        await self._owner.keep(*self._place, self._start["status"], answer)
        self._is_kept = True
        await send(self._start)
        await send({"type": "http.response.body", "body": bytes(self._body)})


def _key_of(scope: Scope) -> tuple[str, bool] | None:
    """The key of a request, and whether it begins anew whatever was there; None where nothing is kept."""
    headers = Headers(scope=scope)
    if scope["method"] != "POST":
        return None
    # Another key of the project may lack the scope that the first one's answer needed.
    who = scope["state"]["caller"].key_id or "local"
    if (given := headers.get(HEADER)) is not None:
        if not 0 < len(given) <= _LONGEST_KEY or not given.isprintable():
            message = f"the Idempotency-Key has {len(given)} characters, expected 1 to {_LONGEST_KEY} printable ones"
            raise ApiError(400, message, param=HEADER, code="invalid_value")
        return f"key:{who}:{given}", False
    retry = headers.get(_RETRY_HEADER, "")
    if not retry.isdigit() or scope["path"].startswith(_WITHOUT_EFFECT):
        return None
    return f"sdk:{who}:{_digest(scope)}", int(retry) == 0


def _digest(scope: Scope) -> str:
    body: bytes = scope["state"]["body"]
    what = b"\n".join((scope["method"].encode(), scope["path"].encode(), scope["query_string"], body))
    return hashlib.sha256(what).hexdigest()


def _context(project: str, key: str) -> str:
    return f"{project}|idempotency|{key}"
