"""Replies as server-sent events: begun only when there is something to send, ended when the client leaves."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from fastapi import Request
from sse_starlette import EventSourceResponse, ServerSentEvent

from agentrft.server.generation import unless_gone

_STALLED_S = 60.0
"""A client that takes nothing for so long has gone."""


async def events_response(
    request: Request, events: AsyncGenerator[ServerSentEvent], headers: Mapping[str, str]
) -> EventSourceResponse:
    """The answer that sends the events, once the first is there; they are closed when the client leaves.

    What fails before the first one is raised, so that it has a status of its own.
    """
    try:
        first = await unless_gone(request, anext(events))
    except BaseException:
        await events.aclose()
        raise
    sent = {"Cache-Control": "no-store", **headers}
    return EventSourceResponse(_chained(first, events), sep="\n", send_timeout=_STALLED_S, headers=sent)


async def _chained(first: ServerSentEvent, rest: AsyncGenerator[ServerSentEvent]) -> AsyncGenerator[ServerSentEvent]:
    try:
        yield first
        async for event in rest:
            yield event
    finally:
        await rest.aclose()


def data_event(document: Mapping[str, Any], *, name: str | None = None) -> ServerSentEvent:
    """An event whose data is JSON."""
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return ServerSentEvent(text, event=name, sep="\n")


DONE = "[DONE]"
"""What the last event of a chat stream says."""


def done_event() -> ServerSentEvent:
    """The last event of a chat stream."""
    return ServerSentEvent(DONE, sep="\n")
