"""What the server and the engine process say to each other: one request a connection, then a stream of events.

One JSON object a line, UTF-8. Messages, tools, `tool_choice` and `response_format` stay in the shapes of OpenAI's chat
completions; `n` is the caller's: so many requests with the same messages share their prefix.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from agentrft.errors import EngineFault, UserError
from agentrft.jobs.models import Weights
from agentrft.types import TokenUsage

FinishReason = Literal["stop", "length", "tool_calls"]

MAX_LINE_BYTES = 64 << 20
"""Of a request or an event; longer ones are refused."""
MAX_TOP_LOG_PROBS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """One reply to play."""

    weights: Weights
    """Which model: what `jobs.models.find_weights` gave."""
    messages: Sequence[Mapping[str, Any]]
    """Text only; `developer` is read as `system`."""
    tools: Sequence[Mapping[str, Any]] = ()
    tool_choice: str | Mapping[str, Any] = "auto"
    """`none`, `auto`, `required`, or `{"type": "function", "function": {"name": …}}`."""
    parallel_tool_calls: bool = True
    response_format: Mapping[str, Any] | None = None
    """`text`, `json_object` or `json_schema`, as chat completions name them."""
    max_tokens: int | None = None
    """None, or more than the context has room for: up to the end of the context."""
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    """Same seed, same reply on the same machine and load; None draws one."""
    stop: Sequence[str] = ()
    """The reply's text ends before the first of these."""
    logprobs: bool = False
    top_logprobs: int = 0
    """Alternatives a token, at most 20; needs `logprobs`."""
    format: str = "auto"
    """The chat format, where the model was trained with another than its own (`agent.format` of its job)."""
    bundle: str | None = None
    """Hash of the agent that asks; None where it is not known."""
    force: bool = False
    """Also with another bundle than the model was trained with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LikelyToken:
    """A token and how likely it was."""

    token: str
    """Its text; bytes that are no UTF-8 by themselves become U+FFFD."""
    bytes: tuple[int, ...]
    log_prob: float
    """Nats, under the model's own distribution at the request's temperature; never −inf."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnToken(LikelyToken):
    """A token of the reply."""

    top: tuple[LikelyToken, ...] = ()
    """The likeliest at its place, most likely first; as many as `top_logprobs` asks for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The prompt is read and the model is there."""

    prompt_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TextDelta:
    """More of the reply's text."""

    text: str
    tokens: tuple[DrawnToken, ...] = ()
    """The tokens it came from, when `logprobs` are asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallMade:
    """One whole tool call."""

    index: int
    id: str
    name: str
    arguments: str
    """JSON text of an object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The last event of a reply."""

    finish_reason: FinishReason
    usage: TokenUsage
    policy_version: int
    """Optimiser steps (of weights that train) or loads (of a served adapter) behind the weights."""
    bundle: str | None = None
    """Hash of the agent that the weights were trained with; None where it is not known."""
    malformed: str | None = None
    """Why what looked like a call cannot be read; its text is part of the reply."""


ChatEvent = Started | TextDelta | CallMade | Ended

_EVENTS: dict[str, type[Any]] = {"start": Started, "text": TextDelta, "call": CallMade, "end": Ended}
_NAMES = {kind: name for name, kind in _EVENTS.items()}


def request_line(request: ChatRequest) -> bytes:
    """A request as the process reads it."""
    document = asdict(request)
    weights = document["weights"]
    weights["folder"] = str(weights["folder"])
    weights["trained"] = None if weights["trained"] is None else str(weights["trained"])
    return _line(document)


def read_request(line: bytes) -> ChatRequest:
    """The request in a line; raises UserError for what is no request."""
    try:
        document = json.loads(line)
        weights = document.pop("weights")
        weights["folder"] = Path(weights["folder"])
        weights["trained"] = None if weights["trained"] is None else Path(weights["trained"])
        return ChatRequest(**{**document, "weights": Weights(**weights)})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(
            f"not a chat request: {type(error).__name__}: {error}; expected what `request_line` writes"
        ) from (None)


def event_line(event: ChatEvent) -> bytes:
    """An event as the client reads it."""
    return _line({"type": _NAMES[type(event)], **asdict(event)})


def error_line(error: Exception) -> bytes:
    """The error that ends a reply: the user's with `param` and `code`, anything else as the engine's fault."""
    if isinstance(error, UserError):
        return _line(
            {"type": "error", "kind": "user", "message": error.message, "param": error.param, "code": error.code}
        )
    said = str(error) if isinstance(error, EngineFault) else f"{type(error).__name__}: {error}"
    return _line({"type": "error", "kind": "engine", "message": said})


def read_event(line: bytes) -> ChatEvent:
    """The event in a line; raises what an error line says, and EngineFault for what is no event."""
    try:
        document = json.loads(line)
        kind = document.pop("type")
        if kind == "error":
            raise _error(document)
        if kind == "text":
            document["tokens"] = tuple(map(_drawn, document["tokens"]))
        elif kind == "end":
            document["usage"] = TokenUsage(**document["usage"])
        return _EVENTS[kind](**document)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise EngineFault(f"the engine process wrote no event: {line[:200]!r} ({error})") from None


def check_bundle(request: ChatRequest) -> None:
    """Raise UserError when the agent that asks is not the one that the model was trained with; unknown ones pass."""
    trained_with, asked = request.weights.bundle, request.bundle
    if request.force or None in (trained_with, asked) or trained_with == asked:
        return
    raise UserError(
        f"{request.weights.name} was trained with another agent: prompt, tools, limits or guardrails have changed "
        f"since (bundle {str(trained_with)[:12]}, now {str(asked)[:12]}). Expected the same, because it is only known "
        "to work with those. Set `force_bundle` to go on all the same, or ask with the agent as it was",
        param="model",
        code="bundle_changed",
    )


def _error(document: Mapping[str, Any]) -> Exception:
    if document["kind"] == "user":
        return UserError(document["message"], param=document["param"], code=document["code"])
    return EngineFault(document["message"])


def _drawn(token: dict[str, Any]) -> DrawnToken:
    top = tuple(LikelyToken(**{**one, "bytes": tuple(one["bytes"])}) for one in token["top"])
    return DrawnToken(**{**token, "bytes": tuple(token["bytes"]), "top": top})


def _line(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode() + b"\n"
