"""Models behind an API: text in, text out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from agentrft.types import GradeError, Message, TokenUsage, ToolSpec


class ChatModel(Protocol):
    """Text in, text out. Can judge, be diagnosed and prompt-optimised; cannot be handed to a trainer."""

    async def reply(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> Message:
        """One assistant message; raises EngineFault after retries."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatEndpoint:
    """A model behind an OpenAI-compatible API, as a document names it. Holds the name of a key, never a key."""

    model: str
    base_url: str | None = None
    """`https://host/v1`; None for the environment's `OPENAI_BASE_URL`, else OpenAI's own."""
    api_key_env: str | None = None
    """Environment variable with the key; None for `OPENAI_API_KEY`, which goes to the default address only."""
    timeout_s: float = 120.0
    """Of one request, retries not included."""
    max_concurrency: int = 16
    """Requests in flight at once."""
    temperature: float | None = None
    """This and the following are sent only where they are set; the provider's own default holds elsewhere."""
    top_p: float | None = None
    seed: int | None = None
    max_completion_tokens: int | None = None
    """Longest reply, reasoning included."""
    reasoning_effort: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeReply:
    """What a judge gave back: a document, or none and why. Never both, never neither."""

    document: str | None
    """The form as the judge filled it in, unread: whoever asked checks it."""
    reason: str | None = None
    """Why there is none: it declined, was cut off, or its server refused this request."""
    error: GradeError | None = None
    """The kind of failure; set exactly when `reason` is."""
    usage: TokenUsage | None = None
    """None when the server counts no tokens."""
    is_constrained: bool = True
    """False when the server has no structured output, so that the form was asked for in words only."""


class Judge(Protocol):
    """A model that fills in a form. What it is shown is data to it as far as its training holds; say so in words."""

    async def fill_in(self, messages: Sequence[Message], form: Mapping[str, Any], *, attempt: int = 0) -> JudgeReply:
        """One JSON document in the shape of the JSON Schema `form`; a request's seed is raised by `attempt`.

        Raises EngineFault, after retries, when the model cannot be reached: an outage, not a verdict.
        """
        ...

    async def close(self) -> None:
        """Stop; requests in flight and later ones end with EngineFault. Safe to call twice."""
        ...


OpenJudge = Callable[[ChatEndpoint, str], Judge]
"""(endpoint, the field to blame) → judge; raises UserError when the environment lacks what the endpoint needs."""
