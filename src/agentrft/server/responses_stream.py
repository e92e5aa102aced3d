"""A response in events, in the order and shape that OpenAI's clients accumulate.

`response.created`, `response.in_progress`; for each item `output_item.added`, its parts and deltas, `output_item.done`;
`response.completed`, or `response.incomplete` where a token limit cut it off. What fails after the first event is sent
as `response.failed`. `sequence_number` counts from 0. A response is kept before its client learns that it has ended.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncGenerator

from fastapi import Request, Response
from sse_starlette import ServerSentEvent

from agentrft.runtime.serving.wire import ChatEvent, ChatRequest
from agentrft.server.engine import Engine
from agentrft.server.generation import error_in_stream, merged
from agentrft.server.response_answer import ENDS, Assembly, Event
from agentrft.server.response_context import Keep
from agentrft.server.sse import data_event, events_response

_SERVER_ERROR, _INVALID_PROMPT = "server_error", "invalid_prompt"
"""What clients know of the ways to fail."""


async def stream_response(
    request: Request, engine: Engine, asked: ChatRequest, assembly: Assembly, keep: Keep, headers: dict[str, str]
) -> Response:
    """The streamed answer; what fails before the engine has begun is raised, so that it has a status of its own."""
    events = _sent(assembly, merged(engine, [asked]), keep, request)
    return await events_response(request, events, headers)


async def _sent(
    assembly: Assembly, played: AsyncGenerator[tuple[int, ChatEvent]], keep: Keep, request: Request
) -> AsyncGenerator[ServerSentEvent]:
    numbers = itertools.count()
    begun = False

    def numbered(event: Event) -> ServerSentEvent:
        return data_event({**event, "sequence_number": next(numbers)}, name=event["type"])

    try:
        async for _, event in played:
            if not begun:
                begun = True
                for said in assembly.begin():
                    yield numbered(said)
            for said in assembly.take(event, time.time()):
                if said["type"] in ENDS:
                    await keep(said["response"])
                yield numbered(said)
    except Exception as error:  # too late for a status
        if not begun:
            raise
        detail = error_in_stream(error, request, messages="input")["error"]
        code = _SERVER_ERROR if detail["type"] == "server_error" else _INVALID_PROMPT
        yield numbered(assembly.fail(detail["message"], code))
    finally:
        await played.aclose()
