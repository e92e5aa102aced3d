"""What the tools did in some episodes: the four figures of Agent RFT's charts, for each tool."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentrft.protocols import EpisodeRecord
from agentrft.types import Episode, StopReason, ToolResult, Turn


@dataclass(slots=True)
class _Called:
    """The calls of one tool."""

    calls: int = 0
    errors: int = 0
    seconds: list[float] = field(default_factory=list)
    tokens: list[float] = field(default_factory=list)


def tool_figures(sides: Mapping[str, Sequence[EpisodeRecord]]) -> list[dict[str, Any]]:
    """By tool, for every side (`train`, `valid`): calls per rollout, tokens per call, latency in seconds, errors.

    Faulty episodes are left out. Tokens are those that a result added to the conversation, chat markup included; the
    results of one reply share them equally. Errors are results that told the model of a mistake.
    """
    sound = {
        side: [record.episode for record in records if record.episode.stop_reason is not StopReason.FAULT]
        for side, records in sides.items()
    }
    called = {side: _called(episodes) for side, episodes in sound.items()}
    figures: list[dict[str, Any]] = []
    for name in sorted({name for by_name in called.values() for name in by_name}):
        entry: dict[str, Any] = {"name": name}
        for side, by_name in called.items():
            one, rollouts = by_name.get(name, _Called()), len(sound[side])
            entry |= {
                f"{side}_calls_per_rollout_mean": one.calls / rollouts if rollouts else None,
                f"{side}_tokens_per_call_mean": _mean(one.tokens),
                f"{side}_execution_latency_mean": _mean(one.seconds),
                f"{side}_error_count": one.errors,
            }
        figures.append(entry)
    return figures


def _called(episodes: Sequence[Episode]) -> dict[str, _Called]:
    by_name: dict[str, _Called] = {}
    for episode in episodes:
        for place, turn in enumerate(episode.turns):
            shares = _added_tokens(episode, place) / max(len(turn.results), 1)
            for name, result in _answered(turn):
                one = by_name.setdefault(name, _Called())
                one.calls += 1
                one.errors += result.is_error
                if result.tries:
                    one.seconds.append(result.wall_s)
                if shares:
                    one.tokens.append(shares)
    return by_name


def _answered(turn: Turn) -> Iterator[tuple[str, ToolResult]]:
    names = {call.id: call.name for call in turn.reply.tool_calls}
    return ((names[result.call_id], result) for result in turn.results if result.call_id in names)


def _added_tokens(episode: Episode, place: int) -> int:
    """Tokens between a reply and the next one; 0 where there are no tokens, or no next reply."""
    if episode.tokens is None or place + 1 >= len(episode.turns):
        return 0
    return max(0, episode.turns[place + 1].start - episode.turns[place].end)


def _mean(values: Iterable[float]) -> float | None:
    listed = list(values)
    return math.fsum(listed) / len(listed) if listed else None
