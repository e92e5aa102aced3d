"""`/chat/completions`: replies of any model that the server plays, whole or as they are made."""

from __future__ import annotations

import secrets
import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from agentrft.errors import UserError
from agentrft.runtime.serving.wire import ChatRequest
from agentrft.server.auth import Caller, allow
from agentrft.server.chat_answer import (
    STREAMED,
    AskersBundle,
    ChatCompletion,
    Identity,
    bundle_header,
    completion,
    fingerprint,
)
from agentrft.server.chat_stream import stream_completion
from agentrft.server.chat_wire import AllowedChoice, ChatBody, NamedTool, chosen_names
from agentrft.server.generation import (
    choice_seed,
    collect,
    drawn_seed,
    engine_of,
    in_openais_words,
    served_model,
    unless_gone,
)
from agentrft.server.models import Served
from agentrft.together import together

router = APIRouter(tags=["Chat"])
Asker = Annotated[Caller, Depends(allow("models:read"))]


@router.post("/chat/completions", response_model=ChatCompletion, response_model_exclude_unset=True, responses=STREAMED)
async def create_chat_completion(
    request: Request,
    response: Response,
    body: ChatBody,
    caller: Asker,
    x_agentrft_bundle: AskersBundle = None,
) -> Any:
    """Replies to a conversation; with `stream` as server-sent events."""
    engine = engine_of(request)
    try:
        served = await unless_gone(request, served_model(request, caller, body.model))
        requests = requests_of(body, served, body.bundle or x_agentrft_bundle)
        identity = Identity(
            id=f"chatcmpl-{secrets.token_hex(15)}",
            created=int(time.time()),
            model=body.model,
            fingerprint=fingerprint(served.weights),
        )
        headers = bundle_header(served.weights)
        if body.stream:
            with_usage = bool(body.stream_options and body.stream_options.include_usage)
            return await stream_completion(request, engine, requests, identity, with_usage=with_usage, headers=headers)
        replies = await unless_gone(request, together(collect(engine, asked) for asked in requests))
    except UserError as error:
        raise in_openais_words(error, messages="messages") from None
    response.headers.update(headers)
    return completion(identity, replies, with_logprobs=bool(body.logprobs))


def requests_of(body: ChatBody, served: Served, bundle: str | None) -> list[ChatRequest]:
    """What the engine is asked: one request a choice."""
    choice, tools = body.tool_choice, body.tools or []
    wanted: str | dict[str, Any] = "auto"
    if isinstance(choice, AllowedChoice):
        tools = [tool for tool in tools if tool.function.name in chosen_names(choice)]
        wanted = choice.allowed_tools.mode
    elif isinstance(choice, NamedTool):
        wanted = choice.model_dump()
    elif choice is not None:
        wanted = choice
    seed = drawn_seed(body.seed)
    form = body.response_format
    return [
        ChatRequest(
            weights=served.weights,
            format=served.format,
            messages=[message.wire() for message in body.messages],
            tools=[tool.function.wire() for tool in tools],
            tool_choice=wanted,
            parallel_tool_calls=body.parallel_tool_calls is not False,
            response_format=None if form is None else form.model_dump(by_alias=True, exclude_none=True),
            max_tokens=body.max_completion_tokens or body.max_tokens,
            temperature=1.0 if body.temperature is None else body.temperature,
            top_p=1.0 if body.top_p is None else body.top_p,
            seed=choice_seed(seed, place),
            stop=body.stop or (),
            logprobs=bool(body.logprobs),
            top_logprobs=body.top_logprobs or 0,
            bundle=bundle,
            force=body.force_bundle,
        )
        for place in range(body.n or 1)
    ]
