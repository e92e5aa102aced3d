"""The Responses API's answer, put together event by event: the same items whether they are streamed or not."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from pydantic import BaseModel

from agentrft.runtime.serving.wire import CallMade, ChatEvent, DrawnToken, Ended, TextDelta
from agentrft.server.chat_answer import logprobs_object
from agentrft.server.responses_wire import LOGPROBS, ResponseBody
from agentrft.types import TokenUsage

Event = dict[str, Any]
"""One event of a stream, its `type` included, its `sequence_number` not yet."""

ENDS = ("response.completed", "response.incomplete")
"""How a stream ends that does not fail."""


class IncompleteDetails(BaseModel):
    reason: Literal["max_output_tokens"]


class InputTokensDetails(BaseModel):
    cached_tokens: int
    cache_write_tokens: int


class OutputTokensDetails(BaseModel):
    reasoning_tokens: int


class ResponseUsage(BaseModel):
    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class OutputItem(BaseModel):
    """A message or a function call."""

    id: str
    type: Literal["message", "function_call"]
    status: Literal["completed", "incomplete"]
    role: Literal["assistant"] | None = None
    content: list[dict[str, Any]] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None


class ResponseObject(BaseModel):
    """The answer. What the request asked for is said again, defaults filled in."""

    id: str
    object: Literal["response"]
    created_at: float
    completed_at: float | None
    status: Literal["completed", "incomplete"]
    error: None
    incomplete_details: IncompleteDetails | None
    model: str
    output: list[OutputItem]
    usage: ResponseUsage
    background: bool
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: None
    metadata: dict[str, str]
    parallel_tool_calls: bool
    previous_response_id: str | None
    prompt_cache_key: str | None
    reasoning: dict[str, Any]
    safety_identifier: str | None
    service_tier: Literal["default"]
    store: bool
    temperature: float
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float
    truncation: Literal["disabled"]
    user: str | None


def new_response(body: ResponseBody, created_at: float) -> dict[str, Any]:
    """A response that has just begun: what the request asks for, and no output."""
    text = body.text
    form = None if text is None or text.format is None else text.format
    shown = {"type": "text"} if form is None else form.model_dump(by_alias=True, exclude_none=True)
    choice = body.tool_choice or "auto"
    return {
        "id": f"resp_{secrets.token_hex(24)}",
        "object": "response",
        "created_at": created_at,
        "completed_at": None,
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "model": body.model,
        "output": [],
        "usage": None,
        "background": False,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": None,
        "metadata": body.metadata or {},
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": body.previous_response_id,
        "prompt_cache_key": body.prompt_cache_key,
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": body.safety_identifier,
        "service_tier": "default",
        "store": body.store is not False,
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "text": {"format": shown, "verbosity": "medium"},
        "tool_choice": choice if isinstance(choice, str) else choice.model_dump(),
        "tools": [tool.model_dump() for tool in body.tools or ()],
        "top_logprobs": body.top_logprobs or 0,
        "top_p": 1.0 if body.top_p is None else body.top_p,
        "truncation": "disabled",
        "user": body.user,
    }


class Assembly:
    """Grows a response from the engine's events, and says what a stream has to say of each."""

    def __init__(self, body: ResponseBody, created_at: float) -> None:
        self.response = new_response(body, created_at)
        self._with_logprobs = LOGPROBS in (body.include or ())
        self._message: dict[str, Any] | None = None
        """The message that is still being written: the last item of the output."""
        self._spoken: list[str] = []
        self._tokens: list[DrawnToken] = []

    def begin(self) -> Iterator[Event]:
        """What a stream begins with."""
        yield {"type": "response.created", "response": self.snapshot()}
        yield {"type": "response.in_progress", "response": self.snapshot()}

    def take(self, event: ChatEvent, now: float) -> Iterator[Event]:
        """What one event of the engine means; the caller reads all of it."""
        if isinstance(event, TextDelta):
            yield from self._text(event)
        elif isinstance(event, CallMade):
            yield from self._close_message("completed")
            yield from self._call(event)
        elif isinstance(event, Ended):
            yield from self._end(event, now)

    def fail(self, message: str, code: str) -> Event:
        """How a stream ends that has to break off."""
        error = {"code": code, "message": message}
        self.response |= {"status": "failed", "completed_at": None, "error": error}
        return {"type": "response.failed", "response": self.snapshot()}

    def snapshot(self) -> dict[str, Any]:
        """The response as it is now."""
        return {**self.response, "output": list(self.response["output"])}

    def _text(self, delta: TextDelta) -> Iterator[Event]:
        if self._message is None:
            yield from self._open_message()
        self._spoken.append(delta.text)
        self._tokens += delta.tokens
        yield {
            "type": "response.output_text.delta",
            **self._place(),
            "content_index": 0,
            "delta": delta.text,
            "logprobs": self._logprobs(delta.tokens),
        }

    def _open_message(self) -> Iterator[Event]:
        self._spoken, self._tokens = [], []
        item = {"id": f"msg_{secrets.token_hex(24)}", "type": "message", "role": "assistant"}
        self._message = {**item, "status": "in_progress", "content": []}
        self.response["output"].append(self._message)
        yield {"type": "response.output_item.added", "output_index": self._last, "item": dict(self._message)}
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        yield {"type": "response.content_part.added", **self._place(), "content_index": 0, "part": part}

    def _close_message(self, status: str) -> Iterator[Event]:
        if self._message is None:
            return
        text, logprobs = "".join(self._spoken), self._logprobs(self._tokens)
        part = {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}
        place = {**self._place(), "content_index": 0}
        yield {"type": "response.output_text.done", **place, "text": text, "logprobs": logprobs}
        yield {"type": "response.content_part.done", **place, "part": part}
        done = {**self._message, "status": status, "content": [part]}
        self.response["output"][-1] = done
        self._message = None
        yield {"type": "response.output_item.done", "output_index": self._last, "item": done}

    def _call(self, call: CallMade) -> Iterator[Event]:
        item = {"id": f"fc_{secrets.token_hex(24)}", "type": "function_call", "call_id": call.id, "name": call.name}
        done = {**item, "status": "completed", "arguments": call.arguments}
        self.response["output"].append(done)
        begun = {**item, "status": "in_progress", "arguments": ""}
        yield {"type": "response.output_item.added", "output_index": self._last, "item": begun}
        kind = "response.function_call_arguments"
        yield {"type": f"{kind}.delta", **self._place(), "delta": call.arguments}
        yield {"type": f"{kind}.done", **self._place(), "name": call.name, "arguments": call.arguments}
        yield {"type": "response.output_item.done", "output_index": self._last, "item": done}

    def _end(self, event: Ended, now: float) -> Iterator[Event]:
        is_cut = event.finish_reason == "length"
        status = "incomplete" if is_cut else "completed"
        if not self.response["output"]:
            yield from self._open_message()
        yield from self._close_message(status)
        self.response |= {
            "status": status,
            "completed_at": None if is_cut else now,
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "usage": _usage(event.usage),
        }
        yield {"type": f"response.{status}", "response": self.snapshot()}

    @property
    def _last(self) -> int:
        return len(self.response["output"]) - 1

    def _place(self) -> dict[str, Any]:
        return {"item_id": self.response["output"][-1]["id"], "output_index": self._last}

    def _logprobs(self, tokens: Sequence[DrawnToken]) -> list[dict[str, Any]]:
        if not self._with_logprobs:
            return []
        return logprobs_object(tokens)["content"]


def _usage(usage: TokenUsage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.total_tokens,
    }
