"""Recorded episodes as training data: which of them can be shown to a model as something an assistant wrote."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from agentrft.protocols import EpisodeRecord
from agentrft.types import Message, StopReason


def is_practice(record: EpisodeRecord) -> bool:
    """True for episodes on training items: others are there to measure, and must not be trained on."""
    return record.phase == "train" or record.extra.get("split") == "train"


def is_whole(record: EpisodeRecord) -> bool:
    """True for an episode that ended in an answer, was graded, and whose every reply could be read."""
    episode = record.episode
    return (
        record.reward is not None
        and episode.stop_reason is StopReason.ANSWERED
        and not any(turn.malformed for turn in episode.turns)
    )


def prompt_of(record: EpisodeRecord) -> tuple[Message, ...]:
    """The messages that the agent started from."""
    episode = record.episode
    played = sum(1 + len(turn.results) for turn in episode.turns)
    return episode.messages[: len(episode.messages) - played]


def turns_of(record: EpisodeRecord) -> list[tuple[Message, ...]]:
    """For each turn its reply and the tool results that follow, as messages."""
    messages, position = record.episode.messages, len(prompt_of(record))
    turns: list[tuple[Message, ...]] = []
    for turn in record.episode.turns:
        end = position + 1 + len(turn.results)
        turns.append(messages[position:end])
        position = end
    return turns


def call_sequence(record: EpisodeRecord) -> tuple[tuple[str, str], ...]:
    """Name and arguments of every call, in order; the same however their JSON was written."""
    return tuple(
        (call.name, canonical(call.arguments)) for turn in record.episode.turns for call in turn.reply.tool_calls
    )


def canonical(arguments: str) -> str:
    """JSON text with its keys sorted; other text as it is."""
    try:
        value: Any = json.loads(arguments)
        return json.dumps(value, sort_keys=True)
    except (ValueError, RecursionError):
        return arguments


def size_of(record: EpisodeRecord) -> int:
    """Tokens that the policy generated; characters of its replies where tokens were not recorded."""
    tokens = record.episode.tokens
    return sum(tokens.trained) if tokens else written(turn.reply for turn in record.episode.turns)


def written(replies: Iterable[Message]) -> int:
    """Characters that the assistant wrote."""
    return sum(
        len(reply.content or "") + sum(len(call.name) + len(call.arguments) for call in reply.tool_calls)
        for reply in replies
    )


def by_item(records: Sequence[EpisodeRecord]) -> dict[str, list[EpisodeRecord]]:
    """Records by item id, in the order of first appearance."""
    found: dict[str, list[EpisodeRecord]] = {}
    for record in records:
        found.setdefault(record.episode.item_id, []).append(record)
    return found
