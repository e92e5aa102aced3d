"""What a response is made from: the conversation that its request goes on from, and the request's own input.

Both together are what a request could have sent as `input`, to the token: the same items are read in the same way, and
held to the same limits.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from anyio import to_thread
from fastapi import Request

from agentrft.server.auth import Caller
from agentrft.server.chat_wire import MOST_MESSAGES, PastMessage
from agentrft.server.errors import ApiError
from agentrft.server.responses_wire import InputItem, ResponseBody, messages_of
from agentrft.server.state import ServerState, state_of
from agentrft.store.responses import Item

Keep = Callable[[dict[str, Any]], Awaitable[None]]
"""Called with a response that has ended, before its client learns of the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The conversation that a reply is asked for."""

    before: Sequence[Item]
    """Items of the previous response and of those before it, as they are kept."""
    messages: Sequence[PastMessage]
    """All of it, the request's own input included."""


async def context_of(request: Request, caller: Caller, body: ResponseBody) -> Context:
    """The conversation; UserError (`previous_response_not_found`) where it would go on from what is not kept.

    Raises ApiError where both parts together are longer than a request may be, or leave a call without its output.
    """
    if body.previous_response_id is None:
        return Context(before=(), messages=messages_of(body.input))
    sent: bytes = request.state.body
    return await to_thread.run_sync(_continued, state_of(request), caller, body, body.previous_response_id, len(sent))


def _continued(state: ServerState, caller: Caller, body: ResponseBody, previous_id: str, n_sent_bytes: int) -> Context:
    before = state.responses.conversation(caller.project, previous_id)
    n_items = len(before) + len(body.input)
    if n_items > MOST_MESSAGES:
        raise ApiError(400, _too_long(f"{n_items} items", str(MOST_MESSAGES)), param="input", code="invalid_value")
    most = state.config.limits.json_bytes
    n_bytes = len(json.dumps(before, ensure_ascii=False).encode()) + n_sent_bytes
    if n_bytes > most:
        message = f"{_too_long(f'{n_bytes} bytes', str(most))}, or ask the operator (`limits.json_bytes`)"
        raise ApiError(413, message, param="input", code="request_too_large")
    past = [InputItem.model_validate(item) for item in before]
    try:
        messages = messages_of([*past, *body.input])
    except ValueError as error:
        raise ApiError(400, f"`input`: {error}", param="input", code="invalid_value") from None
    return Context(before=before, messages=messages)


def _too_long(got: str, most: str) -> str:
    return (
        f"the conversation of `previous_response_id` and `input` are {got} together, expected {most} at most; begin "
        "another conversation"
    )


def keeping(request: Request, caller: Caller, body: ResponseBody, context: Context) -> Keep:
    """What keeps the request's response, unless it says `store: false`. StoreFault where it cannot be kept."""
    responses = state_of(request).responses

    def add(response: dict[str, Any]) -> None:
        responses.add(caller.project, response, kept_items(body.input), before=context.before)

    async def keep(response: dict[str, Any]) -> None:
        if body.store is not False:
            await to_thread.run_sync(add, response)

    return keep


def kept_items(items: Sequence[InputItem]) -> list[Item]:
    """Input items as the API shows them, each with an id of its own; reasoning, which is passed over, is not kept."""
    return [_kept(item) for item in items if item.type != "reasoning"]


def _kept(item: InputItem) -> Item:
    if item.type == "message":
        kind = "output_text" if item.role == "assistant" else "input_text"
        part = {"type": kind, "text": item.content or "", **({"annotations": []} if kind == "output_text" else {})}
        return {**_head("msg", item), "role": item.role, "content": [part]}
    if item.type == "function_call":
        return {**_head("fc", item), "call_id": item.call_id, "name": item.name, "arguments": item.arguments}
    return {**_head("fco", item), "call_id": item.call_id, "output": item.output}


def _head(prefix: str, item: InputItem) -> Item:
    return {"id": f"{prefix}_{secrets.token_hex(24)}", "type": item.type, "status": "completed"}
