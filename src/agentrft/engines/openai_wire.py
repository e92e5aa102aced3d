"""Chat completions on the wire: OpenAI's documents from and to our nouns. Nothing is sent here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from agentrft.protocols import ChatEndpoint
from agentrft.types import Message, TokenUsage, ToolCall, ToolSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One reply and what the server says about it."""

    message: Message
    finish_reason: str | None
    """`stop`, `length`, `tool_calls`, `content_filter`, or the server's own word."""
    refusal: str | None = None
    """What the model said instead of an answer."""
    usage: TokenUsage | None = None
    """None when the server counts no tokens."""


def request_body(
    endpoint: ChatEndpoint,
    messages: Sequence[Message],
    tools: Sequence[ToolSpec],
    form: Mapping[str, Any] | None,
    attempt: int,
) -> bytes:
    """The body of a request, UTF-8; `form` becomes its `response_format`, `attempt` is added to the seed."""
    schema = form and {"name": "form", "strict": True, "schema": form}
    optional = {
        "tools": [_tool(tool) for tool in tools] or None,
        "response_format": schema and {"type": "json_schema", "json_schema": schema},
        "temperature": endpoint.temperature,
        "top_p": endpoint.top_p,
        "seed": None if endpoint.seed is None else endpoint.seed + attempt,
        "max_completion_tokens": endpoint.max_completion_tokens,
        "reasoning_effort": endpoint.reasoning_effort,
    }
    sent = {name: value for name, value in optional.items() if value is not None}
    body = {"model": endpoint.model, "messages": [_message(message) for message in messages], **sent}
    # Lone surrogates are no Unicode: servers refuse the whole request for one.
    return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")


def read_completion(data: bytes) -> Completion:
    """The reply in a response's body; raises ValueError when it is not a chat completion."""
    try:
        answer = _Answer.model_validate_json(data)
    except ValidationError:
        raise ValueError("not a chat completion") from None
    said, usage = answer.choices[0].message, answer.usage
    calls = tuple(
        ToolCall(id=call.id, name=call.function.name, arguments=call.function.arguments)
        for call in said.tool_calls or ()
    )
    return Completion(
        message=Message(role="assistant", content=said.content, tool_calls=calls),
        finish_reason=answer.choices[0].finish_reason,
        refusal=said.refusal or None,
        usage=usage and _usage(usage),
    )


def error_message(data: bytes) -> str:
    """The message of an error body in OpenAI's shape with its code, or the body itself."""
    text = data.decode("utf-8", "replace")
    try:
        error = json.loads(text)["error"]
        code = f" ({error['code']})" if error.get("code") else ""
        return f"{error['message']}{code}"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return text


class _Function(BaseModel):
    name: str
    arguments: str


class _Call(BaseModel):
    id: str
    function: _Function


class _Said(BaseModel):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(BaseModel):
    message: _Said
    finish_reason: str | None = None


class _PromptDetails(BaseModel):
    cached_tokens: int | None = None


class _Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int = 0
    prompt_tokens_details: _PromptDetails | None = None


class _Answer(BaseModel):
    """The parts of a chat completion that matter here; servers send more."""

    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


def _usage(usage: _Usage) -> TokenUsage:
    details = usage.prompt_tokens_details
    return TokenUsage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        cached_tokens=(details.cached_tokens if details else None) or 0,
    )


def _message(message: Message) -> dict[str, Any]:
    shown: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        shown["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    elif message.content is None:
        shown["content"] = ""
    if message.tool_call_id is not None:
        shown["tool_call_id"] = message.tool_call_id
    return shown


def _tool(tool: ToolSpec) -> dict[str, Any]:
    described = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": described}
