"""Chat completions as OpenAI's clients read them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import Header
from pydantic import BaseModel, Field

import agentrft
from agentrft.jobs.models import Weights
from agentrft.runtime.serving.wire import DrawnToken, LikelyToken
from agentrft.server.generation import Played, total
from agentrft.types import TokenUsage

BUNDLE_HEADER = "x-agentrft-bundle"

AskersBundle = Annotated[
    str | None, Header(alias=BUNDLE_HEADER, max_length=200, description="Hash of the agent that asks.")
]
"""The bundle as a header, for clients that cannot add it to the body."""

STREAMED: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
        "headers": {BUNDLE_HEADER: {"description": "The agent it was trained with.", "schema": {"type": "string"}}},
    }
}
"""What OpenAPI has to know of answers that may be streams."""


class TopLogprob(BaseModel):
    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class ChoiceLogprobs(BaseModel):
    content: list[TokenLogprob] | None
    refusal: None = None


class MadeFunction(BaseModel):
    name: str
    arguments: str = Field(description="JSON text of an object.")


class MadeCall(BaseModel):
    id: str
    type: Literal["function"]
    function: MadeFunction


class ChatMessage(BaseModel):
    role: Literal["assistant"]
    content: str | None
    refusal: None
    annotations: list[Any]
    tool_calls: list[MadeCall] | None = None


class ChatChoice(BaseModel):
    index: int
    message: ChatMessage
    logprobs: ChoiceLogprobs | None
    finish_reason: Literal["stop", "length", "tool_calls"]


class PromptTokensDetails(BaseModel):
    cached_tokens: int
    audio_tokens: int


class CompletionTokensDetails(BaseModel):
    reasoning_tokens: int
    audio_tokens: int
    accepted_prediction_tokens: int
    rejected_prediction_tokens: int


class ChatUsage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


class ChatCompletion(BaseModel):
    """The answer."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: ChatUsage
    service_tier: Literal["default"]
    system_fingerprint: str


# ----------------------------------------------------------------------------------------------------- making one


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What is the same in every part of an answer."""

    id: str
    created: int
    model: str
    """As the request named it."""
    fingerprint: str
    """Changes with the weights and with the version of agentrft."""


def fingerprint(weights: Weights) -> str:
    """What answers with the same seed depend on, as one short word."""
    parts = (agentrft.__version__, weights.folder.name, str(weights.trained or ""), weights.bundle or "")
    return f"fp_{hashlib.sha256('/'.join(parts).encode()).hexdigest()[:10]}"


def bundle_header(weights: Weights) -> dict[str, str]:
    """The header that says which agent the model was trained with, where that is known."""
    return {} if weights.bundle is None else {BUNDLE_HEADER: weights.bundle}


def completion(identity: Identity, replies: Sequence[Played], *, with_logprobs: bool) -> dict[str, Any]:
    """A whole answer."""
    return {
        "id": identity.id,
        "object": "chat.completion",
        "created": identity.created,
        "model": identity.model,
        "choices": [_choice(place, reply, with_logprobs) for place, reply in enumerate(replies)],
        "usage": usage_object(total([reply.ended.usage for reply in replies])),
        "service_tier": "default",
        "system_fingerprint": identity.fingerprint,
    }


def _choice(place: int, reply: Played, with_logprobs: bool) -> dict[str, Any]:
    content = reply.text if reply.text or not reply.calls else None
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None, "annotations": []}
    if reply.calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in reply.calls
        ]
    return {
        "index": place,
        "message": message,
        "logprobs": logprobs_object(reply.tokens) if with_logprobs else None,
        "finish_reason": reply.ended.finish_reason,
    }


def logprobs_object(tokens: Sequence[DrawnToken]) -> dict[str, Any]:
    """Log-probs of a text's tokens (nats)."""
    content = [{**_likely(token), "top_logprobs": [_likely(other) for other in token.top]} for token in tokens]
    return {"content": content, "refusal": None}


def _likely(token: LikelyToken) -> dict[str, Any]:
    return {"token": token.token, "logprob": token.log_prob, "bytes": list(token.bytes)}


def usage_object(usage: TokenUsage) -> dict[str, Any]:
    """Tokens that a request took."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
