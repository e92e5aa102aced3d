"""A chat completion in chunks, as OpenAI's clients put them together.

Role first, choice by choice; then text, and calls in two parts (id and name, then arguments); each choice ends with its
`finish_reason`. With `include_usage` one chunk without choices follows; `[DONE]` ends the stream. What fails after the
first chunk is sent as an error object, which clients raise.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any

from fastapi import Request, Response
from sse_starlette import ServerSentEvent

from agentrft.runtime.serving.wire import CallMade, ChatEvent, ChatRequest, Ended, TextDelta
from agentrft.server.chat_answer import Identity, logprobs_object, usage_object
from agentrft.server.engine import Engine
from agentrft.server.generation import error_in_stream, merged, total
from agentrft.server.sse import data_event, done_event, events_response
from agentrft.types import TokenUsage


async def stream_completion(
    request: Request,
    engine: Engine,
    requests: Sequence[ChatRequest],
    identity: Identity,
    *,
    with_usage: bool,
    headers: dict[str, str],
) -> Response:
    """The streamed answer; what fails before the engine has begun is raised, so that it has a status of its own."""
    chunks = Chunks(identity, requests, with_usage=with_usage).of(merged(engine, requests), request)
    return await events_response(request, chunks, headers)


class Chunks:
    """Turns engine events into chunks."""

    def __init__(self, identity: Identity, requests: Sequence[ChatRequest], *, with_usage: bool) -> None:
        self._identity = identity
        self._requests = requests
        self._with_usage = with_usage

    async def of(
        self, events: AsyncGenerator[tuple[int, ChatEvent]], request: Request
    ) -> AsyncGenerator[ServerSentEvent]:
        """Chunks of the replies, the first one not before the engine has begun; errors before that are raised."""
        usages: list[TokenUsage] = []
        begun = False
        try:
            async for place, event in events:
                if not begun:
                    begun = True
                    for each in range(len(self._requests)):
                        yield self._chunk(each, self._opening())
                for chunk in self._of_event(place, event):
                    yield chunk
                if isinstance(event, Ended):
                    usages.append(event.usage)
            if self._with_usage:
                yield data_event({**self._head(), "choices": [], "usage": usage_object(total(usages))})
            yield done_event()
        except Exception as error:  # too late for a status: clients raise what an error object says
            if not begun:
                raise
            yield data_event(error_in_stream(error, request, messages="messages"))
        finally:
            await events.aclose()

    def _opening(self) -> dict[str, Any]:
        # Calls have null for a text, and nobody knows yet whether there will be calls.
        return {"role": "assistant", "content": None if self._requests[0].tools else "", "refusal": None}

    def _of_event(self, place: int, event: ChatEvent) -> list[ServerSentEvent]:
        if isinstance(event, TextDelta):
            logprobs = logprobs_object(event.tokens) if self._requests[place].logprobs else None
            return [self._chunk(place, {"content": event.text}, logprobs=logprobs)]
        if isinstance(event, CallMade):
            function = {"name": event.name, "arguments": ""}
            named = {"index": event.index, "id": event.id, "type": "function", "function": function}
            filled = {"index": event.index, "function": {"arguments": event.arguments}}
            return [self._chunk(place, {"tool_calls": [part]}) for part in (named, filled)]
        if isinstance(event, Ended):
            return [self._chunk(place, {}, finish_reason=event.finish_reason)]
        return []

    def _chunk(
        self, place: int, delta: dict[str, Any], *, logprobs: Any = None, finish_reason: str | None = None
    ) -> ServerSentEvent:
        choice = {"index": place, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        usage = {"usage": None} if self._with_usage else {}
        return data_event({**self._head(), "choices": [choice], **usage})

    def _head(self) -> dict[str, Any]:
        return {
            "id": self._identity.id,
            "object": "chat.completion.chunk",
            "created": self._identity.created,
            "model": self._identity.model,
            "service_tier": "default",
            "system_fingerprint": self._identity.fingerprint,
        }
