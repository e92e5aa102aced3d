"""Worked examples from the agent's own successes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from agentrft.optimise.arena import Played
from agentrft.optimise.edit import Edit
from agentrft.optimise.propose.evidence import Evidence
from agentrft.types import Message, StopReason

SIZES = (1, 2, 3)
_LONGEST_CHARACTERS = 4_000
"""Of one example; longer ones crowd the task out of a small context."""


def demos(evidence: Evidence) -> Iterator[Edit]:
    """One, two and three of the shortest flawless successes, each with other tools where there are such."""
    if evidence.document.get("agent", {}).get("demos"):
        return
    pool = _pool(evidence)
    for size in SIZES:
        if len(pool) >= size:
            chosen = pool[:size]
            text = "".join(json.dumps(_row(one), ensure_ascii=False) + "\n" for one in chosen)
            name = f"demos-{size}.jsonl"
            yield Edit(
                kind="demos",
                component="demos",
                sets=((("agent", "demos"), name),),
                why=f"{size} of {len(pool)} flawless successes of different kinds",
                evidence=tuple(one.episode.id for one in chosen),
                files={name: text},
            )


def _pool(evidence: Evidence) -> list[Played]:
    """The shortest success of each sequence of tools, the commonest sequence first."""
    best: dict[tuple[str, ...], list[Played]] = {}
    for one in evidence.played:
        if evidence.passed(one) and _is_flawless(one):
            best.setdefault(_signature(one), []).append(one)
    ranked = sorted(best.values(), key=lambda alike: -len(alike))
    return [min(alike, key=_length) for alike in ranked]


def _is_flawless(one: Played) -> bool:
    turns = one.episode.turns
    results = [result for turn in turns for result in turn.results]
    return (
        one.episode.stop_reason is StopReason.ANSWERED
        and not any(turn.malformed for turn in turns)
        and not any(result.is_error or result.interventions for result in results)
        and _length(one) <= _LONGEST_CHARACTERS
    )


def _signature(one: Played) -> tuple[str, ...]:
    names = [call.name for turn in one.episode.turns for call in turn.reply.tool_calls]
    return tuple(name for name, _ in groupby(names))


def _length(one: Played) -> int:
    return len(json.dumps(_row(one), ensure_ascii=False))


def _row(one: Played) -> dict[str, Any]:
    return {"messages": [_message(message) for message in _own(one.episode.messages)]}


def _own(messages: Sequence[Message]) -> list[Message]:
    return [message for message in messages if message.role != "system"]


def _message(message: Message) -> dict[str, Any]:
    document: dict[str, Any] = {"role": message.role}
    if message.content is not None or not message.tool_calls:
        document["content"] = message.content or ""
    if message.tool_calls:
        document["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        document["tool_call_id"] = message.tool_call_id
    return document
