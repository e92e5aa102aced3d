"""Which ways of solving items were used: counted from recorded episodes, and compared with the demonstrations.

A strategy counts as new only when no demonstration uses as few calls; "quicker" alone is what demonstrations may show.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from agentrft.data.rows import Demonstration
from agentrft.protocols import EpisodeRecord
from agentrft.types import Episode, StopReason


@dataclass(slots=True, kw_only=True)
class Counts:
    """Episodes of one stage or step."""

    episodes: int = 0
    solved: int = 0
    """With a grade at or above the pass threshold."""
    one_call: int = 0
    """Answered after exactly one call, right or wrong."""
    one_call_solved: int = 0
    shorter_than_shown: int = 0
    """Solved with fewer calls than any demonstration makes."""
    names_answer_key: int = 0
    """Whose first call already names both what `direct_key` says: in filenav `service.key`, which nobody showed."""


def fewest_calls(demonstrations: Sequence[Demonstration]) -> int:
    """Calls of the shortest demonstration."""
    return min(sum(len(m.tool_calls) for m in demonstration.messages) for demonstration in demonstrations)


def direct_key(fields: Mapping[str, Any]) -> str | None:
    """What the first call must contain to go straight at the answer; None for tasks without such a shortcut."""
    if {"service", "key"} <= fields.keys():
        return f"{fields['service']}.{fields['key']}"
    return None


def count(
    records: Sequence[EpisodeRecord],
    *,
    fewest_shown: int,
    pass_threshold: float,
    fields_by_item: Mapping[str, Mapping[str, Any]],
) -> dict[str, int]:
    """Counts over the records as a plain mapping; faults are left out."""
    counts = Counts()
    for record in records:
        episode = record.episode
        if episode.stop_reason is StopReason.FAULT:
            continue
        solved = record.grade.value is not None and record.grade.value >= pass_threshold
        one_call = episode.stop_reason is StopReason.ANSWERED and episode.n_calls == 1
        key = direct_key(fields_by_item.get(episode.item_id, {}))
        counts.episodes += 1
        counts.solved += solved
        counts.one_call += one_call
        counts.one_call_solved += one_call and solved
        counts.shorter_than_shown += solved and episode.n_calls < fewest_shown
        counts.names_answer_key += key is not None and key in first_call(episode)
    return asdict(counts)


def first_call(episode: Episode) -> str:
    """The arguments of the episode's first call as one text; empty when it made none."""
    for turn in episode.turns:
        for call in turn.reply.tool_calls:
            return " ".join(str(value) for value in json.loads(call.arguments).values())
    return ""
