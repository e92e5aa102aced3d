"""`/responses`: the same replies as chat completions, in the items of the Responses API."""

from __future__ import annotations

import time
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from agentrft.errors import UserError
from agentrft.runtime.serving.wire import ChatRequest
from agentrft.server.auth import Caller, allow
from agentrft.server.chat_answer import STREAMED, AskersBundle, bundle_header
from agentrft.server.engine import Engine
from agentrft.server.generation import choice_seed, drawn_seed, engine_of, in_openais_words, served_model, unless_gone
from agentrft.server.models import Served
from agentrft.server.response_answer import Assembly, ResponseObject
from agentrft.server.response_context import Context, context_of, keeping
from agentrft.server.responses_stream import stream_response
from agentrft.server.responses_wire import LOGPROBS, AllowedToolsChoice, NamedChoice, ResponseBody, chosen_tools

router = APIRouter(tags=["Responses"])
Asker = Annotated[Caller, Depends(allow("models:read"))]


@router.post("/responses", response_model=ResponseObject, response_model_exclude_unset=True, responses=STREAMED)
async def create_response(
    request: Request,
    response: Response,
    body: ResponseBody,
    caller: Asker,
    x_agentrft_bundle: AskersBundle = None,
) -> Any:
    """A reply to a conversation, which may be that of an earlier response; with `stream` as server-sent events.

    It is kept when it has ended, so that others can go on from it, unless `store` is false.
    """
    engine = engine_of(request)
    try:
        served = await unless_gone(request, served_model(request, caller, body.model))
        context = await unless_gone(request, context_of(request, caller, body))
        keep = keeping(request, caller, body, context)
        asked = request_of(body, context, served, body.bundle or x_agentrft_bundle)
        assembly = Assembly(body, time.time())
        headers = bundle_header(served.weights)
        if body.stream:
            return await stream_response(request, engine, asked, assembly, keep, headers)
        await unless_gone(request, _play(engine, asked, assembly))
        await keep(assembly.response)
    except UserError as error:
        raise in_openais_words(error, messages="input") from None
    response.headers.update(headers)
    return assembly.response


async def _play(engine: Engine, asked: ChatRequest, assembly: Assembly) -> None:
    async with aclosing(engine.chat(asked)) as events:
        async for event in events:
            for _ in assembly.take(event, time.time()):
                """Only a stream says each step."""


def request_of(body: ResponseBody, context: Context, served: Served, bundle: str | None) -> ChatRequest:
    """What the engine is asked."""
    choice, tools = body.tool_choice, body.tools or []
    wanted: str | dict[str, Any] = choice if isinstance(choice, str) else "auto"
    if isinstance(choice, AllowedToolsChoice):
        tools = [tool for tool in tools if tool.name in chosen_tools(choice)]
        wanted = choice.mode
    elif isinstance(choice, NamedChoice):
        wanted = {"type": "function", "function": {"name": choice.name}}
    instructions = [] if body.instructions is None else [{"role": "system", "content": body.instructions}]
    form = None if body.text is None or body.text.format is None else body.text.format.wire()
    return ChatRequest(
        weights=served.weights,
        format=served.format,
        messages=[*instructions, *(message.wire() for message in context.messages)],
        tools=[tool.wire() for tool in tools],
        tool_choice=wanted,
        parallel_tool_calls=body.parallel_tool_calls is not False,
        response_format=form,
        max_tokens=body.max_output_tokens,
        temperature=1.0 if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        seed=choice_seed(drawn_seed(body.seed), 0),
        logprobs=LOGPROBS in (body.include or ()),
        top_logprobs=body.top_logprobs or 0,
        bundle=bundle,
        force=body.force_bundle,
    )
