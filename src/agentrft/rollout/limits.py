"""How far one episode may go."""

from __future__ import annotations

from dataclasses import dataclass, fields

from agentrft.errors import UserError
from agentrft.types import StopReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Ends of an episode. What bounds a single tool call (time, size) belongs to the tools."""

    max_turns: int = 8
    """Replies. The last must be the answer: a call in it is not executed, since no reply could read its result."""
    max_reply_tokens: int = 512
    """Tokens of one reply, the stop token included."""
    max_episode_tokens: int | None = None
    """Prompt, replies and tool results together; the model's context where absent or longer than that."""
    max_time_s: float = 600.0
    """Wall time of the conversation, waiting for the engine and for tools included."""
    max_malformed: int = 2
    """Unreadable calls in a row that are answered with the reason; one more ends the episode."""

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = getattr(self, limit.name)
            may_be_zero = limit.name == "max_malformed"
            if value is None or value > 0 or (value == 0 and may_be_zero):
                continue
            expected = "0 or more" if may_be_zero else "more than 0"
            raise UserError(f"{limit.name} is {value}; expected {expected}.", param=f"agent.limits.{limit.name}")

    def cut_by(self, reply_tokens: int) -> StopReason:
        """Which limit cut a reply of that length off."""
        own_limit = reply_tokens >= self.max_reply_tokens
        return StopReason.MAX_REPLY_TOKENS if own_limit else StopReason.MAX_EPISODE_TOKENS
