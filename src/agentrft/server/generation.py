"""Replies from the engine for one HTTP request: asked for, merged, collected, and given up when the client leaves."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar

from anyio import to_thread
from fastapi import Request

from agentrft.errors import UserError
from agentrft.home import home
from agentrft.runtime.serving.wire import CallMade, ChatEvent, ChatRequest, DrawnToken, Ended, TextDelta
from agentrft.server.auth import Caller
from agentrft.server.engine import Engine
from agentrft.server.errors import ApiError, as_api_error, server_error
from agentrft.server.models import Served, needs_unpacking, served_by
from agentrft.server.state import state_of
from agentrft.types import TokenUsage

T = TypeVar("T")

CLIENT_LEFT = 499
"""What the log says of a request whose client did not wait; nobody is there to get it."""
_STATUS = {"bundle_changed": 409, "model_not_found": 404}
_EVENTS_AHEAD = 64
"""How many events of a reply may wait for a slow client before its generation does."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """One whole reply."""

    text: str
    calls: tuple[CallMade, ...]
    tokens: tuple[DrawnToken, ...]
    """Those of the text, when log-probs were asked for."""
    ended: Ended


def engine_of(request: Request) -> Engine:
    """The engine of the server that got the request."""
    engine = state_of(request).engine
    assert engine is not None, "it is made when the application starts"
    return engine


async def served_model(request: Request, caller: Caller, name: str) -> Served:
    """What answers to a name, ready to be played; ApiError 404 for one that is unknown, or not the caller's to use."""
    state = state_of(request)
    if await to_thread.run_sync(needs_unpacking, state.config, name):
        await engine_of(request).unpack()
    return await to_thread.run_sync(served_by, state, caller, name)


def drawn_seed(seed: int | None) -> int:
    """The seed of a request, drawn where it names none."""
    return random.SystemRandom().getrandbits(63) if seed is None else seed


def choice_seed(seed: int, choice: int) -> int:
    """The seed of one of several replies to a request: they differ, and are the same for the same `seed`."""
    digest = hashlib.blake2b(f"{seed}/{choice}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


async def collect(engine: Engine, request: ChatRequest) -> Played:
    """A reply, when it has ended."""
    text: list[str] = []
    calls: list[CallMade] = []
    tokens: list[DrawnToken] = []
    async with aclosing(engine.chat(request)) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                text.append(event.text)
                tokens += event.tokens
            elif isinstance(event, CallMade):
                calls.append(event)
            elif isinstance(event, Ended):
                return Played(text="".join(text), calls=tuple(calls), tokens=tuple(tokens), ended=event)
    raise AssertionError("the engine's reply has no end")


async def merged(engine: Engine, requests: Sequence[ChatRequest]) -> AsyncGenerator[tuple[int, ChatEvent]]:
    """Events of several replies as they happen, each with its request's place; closing it ends them all."""
    queue: asyncio.Queue[tuple[int, ChatEvent | Exception]] = asyncio.Queue(maxsize=_EVENTS_AHEAD)

    async def play(place: int, request: ChatRequest) -> None:
        try:
            async with aclosing(engine.chat(request)) as events:
                async for event in events:
                    await queue.put((place, event))
        except Exception as error:  # handed on, whatever it is, to whoever reads
            await queue.put((place, error))

    playing = [asyncio.create_task(play(place, request)) for place, request in enumerate(requests)]
    n_open = len(playing)
    try:
        while n_open:
            place, event = await queue.get()
            if isinstance(event, Exception):
                raise event
            n_open -= isinstance(event, Ended)
            yield place, event
    finally:
        for task in playing:
            task.cancel()
        await asyncio.wait(playing)


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What `work` gives; it is cancelled when the client leaves, and ApiError raised, which nobody will read.

    To be called when the request's body has been read: what arrives after it is the end of the connection.
    """
    doing = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({doing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise ApiError(CLIENT_LEFT, "the client left")
        return doing.result()
    finally:
        for task in (doing, leaving):
            task.cancel()
        await asyncio.wait({doing, leaving})


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        """More of a body that nobody reads."""


def in_openais_words(error: UserError, *, messages: str) -> ApiError:
    """An error as clients of OpenAI's API know it; `messages` is what the conversation is called in the request."""
    param = messages if error.param == "messages" else error.param
    # Where a model lies on the server's disk is nobody else's business.
    message = error.message.replace(str(home()), "AGENTRFT_HOME")
    return ApiError(_STATUS.get(error.code, 400), message, param=param, code=error.code)


def error_in_stream(error: Exception, request: Request, *, messages: str) -> dict[str, Any]:
    """The error body for a reply whose answer has begun already; bugs are logged."""
    known = in_openais_words(error, messages=messages) if isinstance(error, UserError) else as_api_error(error)
    request_id = getattr(request.state, "request_id", "")
    if known is None:
        _log.error("request %s failed in its stream", request_id, exc_info=error)
    return (known or server_error(request_id)).body()


def total(usages: Sequence[TokenUsage]) -> TokenUsage:
    """Of several replies to one prompt, which counts once."""
    return TokenUsage(
        prompt_tokens=usages[0].prompt_tokens,
        completion_tokens=sum(usage.completion_tokens for usage in usages),
        cached_tokens=min(usage.cached_tokens for usage in usages),
    )
