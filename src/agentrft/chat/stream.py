"""One walk over a conversation for all formats, which is what makes prompts append-only.

A prompt is built from the same parts that the agent loop appends one by one, each encoded on its own, cut only at
stop tokens: head, reply, what follows it, reply … So for any conversation
`prompt(m) + reply(a) + results(r) == prompt(m + [a, r])`, id for id.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from agentrft.chat.tokens import Piece, Tokenizer, encode_pieces
from agentrft.types import Message, ToolSpec


class Grammar(Protocol):
    """What differs between families. Pieces end with the opening of the next assistant reply."""

    tokenizer: Tokenizer

    def head(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> list[Piece]:
        """Everything before the first reply: system, tools, questions."""
        ...

    def after(self, messages: Sequence[Message]) -> list[Piece]:
        """What stands between a reply's stop token and the next reply: tool results, questions."""
        ...

    def reply(self, message: Message, tools: Sequence[ToolSpec]) -> list[int]: ...


def render_prompt(grammar: Grammar, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> list[int]:
    """Ids of `messages` up to and including the opening of the next reply."""
    start = _next_reply(messages, 0)
    ids = encode_pieces(grammar.tokenizer, grammar.head(messages[:start], tools))
    while start < len(messages):
        ids += grammar.reply(messages[start], tools)
        end = _next_reply(messages, start + 1)
        following = in_call_order(messages[start], messages[start + 1 : end])
        ids += encode_pieces(grammar.tokenizer, grammar.after(following))
        start = end
    return ids


def _next_reply(messages: Sequence[Message], start: int) -> int:
    return next((k for k in range(start, len(messages)) if messages[k].role == "assistant"), len(messages))


def in_call_order(reply: Message, following: Sequence[Message]) -> list[Message]:
    """The messages after a reply, its results in the order of its calls, as an episode appends them.

    Rows may hold them in any order, since each names its call; families show no names, so there the place is all.
    """
    places = {call.id: place for place, call in enumerate(reply.tool_calls)}
    return sorted(following, key=lambda message: places.get(message.tool_call_id or "", len(places)))


def without_stop(ids: Sequence[int], stop_ids: frozenset[int]) -> list[int]:
    """A generated reply without its stop token (a truncated one has none)."""
    return list(ids[:-1]) if ids and ids[-1] in stop_ids else list(ids)


def split_system(messages: Sequence[Message]) -> tuple[str | None, Sequence[Message]]:
    """The leading system text, if there is one, and the other messages."""
    if messages and messages[0].role == "system":
        return messages[0].content or "", messages[1:]
    return None, messages
