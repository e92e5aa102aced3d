"""Demonstrations as rows: what a perfect policy would have generated, in the tokens of a real episode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from agentrft.chat.stream import in_call_order
from agentrft.data.rows import Demonstration
from agentrft.errors import UserError
from agentrft.protocols import ChatFormat
from agentrft.types import Message, Row, ToolResult, ToolSpec


def demonstration_row(
    demonstration: Demonstration, tools: Sequence[ToolSpec], chat_format: ChatFormat, *, max_tokens: int
) -> Row:
    """One conversation as a row, with credit 1 on every token of the assistant's replies, stop tokens included.

    System and user messages, tool results and replies of weight 0 are context only, and lie exactly where an episode
    would have them. `tools` are those of the agent, as an episode's prompt describes them. Raises UserError when the
    conversation is not prompt, calls with their results, answer or last calls, or is longer than `max_tokens`.
    """
    messages = demonstration.messages
    learnt = _learnt(demonstration)
    start = _start(messages, learnt)
    _check(demonstration, start)
    ids = chat_format.prompt(messages[:start], tools)
    more, trained = rendered_replies(messages[start:], tools, chat_format, learnt=learnt[start:])
    trained = [False] * len(ids) + trained
    ids += more
    if len(ids) > max_tokens:
        raise too_long(f"Demonstration {demonstration.id!r}", len(ids), max_tokens, param="data.demonstrations")
    credit = [1.0 if is_trained else 0.0 for is_trained in trained]
    # All demonstrations share the system prompt, so the learner may keep them side by side and compute it once.
    return Row(
        ids=ids,
        trained=trained,
        log_probs=[0.0] * len(ids),
        credit=credit,
        unit=demonstration.id,
        group="demonstrations",
    )


def rendered_replies(
    messages: Sequence[Message],
    tools: Sequence[ToolSpec],
    chat_format: ChatFormat,
    *,
    learnt: Sequence[bool] | None = None,
) -> tuple[list[int], list[bool]]:
    """Ids of replies and their tool results as an episode would have appended them, and which of them are trained.

    `messages` begin with a reply; `learnt`, aligned with them, says which replies are trained (None: all).
    """
    ids: list[int] = []
    trained: list[bool] = []
    position = 0
    while position < len(messages):
        reply = chat_format.reply(messages[position], tools)
        end = _end_of_results(messages, position + 1)
        results = [_result(message) for message in in_call_order(messages[position], messages[position + 1 : end])]
        suffix = chat_format.results(results) if results else []
        ids += [*reply, *suffix]
        trained += [learnt is None or learnt[position]] * len(reply) + [False] * len(suffix)
        position = end
    return ids, trained


def normalised(rows: Sequence[Row]) -> list[Row]:
    """The rows of one optimiser step with credit divided by its number of trained tokens: a mean, once summed."""
    tokens = sum(sum(row.trained) for row in rows)
    return [replace(row, credit=[credit / tokens for credit in row.credit]) for row in rows]


def too_long(what: str, tokens: int, max_tokens: int, *, param: str) -> UserError:
    """The error for a conversation that no episode could be."""
    return UserError(
        f"{what} has {tokens} tokens; expected at most {max_tokens}. "
        "Shorten its tool results, or raise agent.limits.max_episode_tokens.",
        param=param,
        code="context_overflow",
    )


def _learnt(demonstration: Demonstration) -> list[bool]:
    """For each message, whether it is a reply to learn."""
    by_reply = iter(demonstration.learnt)
    return [message.role == "assistant" and next(by_reply, True) for message in demonstration.messages]


def _start(messages: Sequence[Message], learnt: Sequence[bool]) -> int:
    """Where the episode begins: at the first reply, or after the last question that only unlearnt replies precede."""
    first = next((i for i, is_learnt in enumerate(learnt) if is_learnt), len(messages))
    asked = max((i for i in range(first) if messages[i].role in ("system", "user")), default=-1)
    return next((i for i in range(asked + 1, len(messages)) if messages[i].role == "assistant"), len(messages))


def _check(demonstration: Demonstration, start: int) -> None:
    messages = demonstration.messages
    # What a call is followed by has been checked on reading; here it must be a conversation that an episode can be.
    odd = next((i for i in range(start, len(messages)) if not _fits(messages, i)), None)
    if 0 < start < len(messages) and odd is None:
        return
    got = f"message {odd + 1} is from {messages[odd].role!r}" if odd else f"it begins with {messages[0].role!r}"
    raise UserError(
        f"Demonstration {demonstration.id!r} is no single episode: {got}. Expected: system and user messages, then "
        "assistant calls with their tool results, then the assistant's answer. Split it at each user message, or give "
        "the replies before the last one `weight: 0`.",
        param="data.demonstrations",
        code="bad_demonstration",
    )


def _fits(messages: Sequence[Message], i: int) -> bool:
    """True when message i may stand after the first reply: results after calls, an answer at the end only."""
    message, is_last = messages[i], i == len(messages) - 1
    return message.role == "tool" or (message.role == "assistant" and (is_last or bool(message.tool_calls)))


def _end_of_results(messages: Sequence[Message], start: int) -> int:
    return next((i for i in range(start, len(messages)) if messages[i].role != "tool"), len(messages))


def _result(message: Message) -> ToolResult:
    return ToolResult(call_id=message.tool_call_id or "", output=message.content or "")
