"""Demonstrations from recorded episodes: rejection sampling, without saying the same thing twice.

Source: rejection-sampling fine-tuning, arXiv:2308.01825 (at most a few solutions an item, deduplicated).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentrft.data.export import message_object, tool_objects
from agentrft.data.recorded import by_item, call_sequence, is_practice, is_whole, size_of
from agentrft.protocols import EpisodeRecord
from agentrft.types import ToolSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What was kept, and out of how much."""

    records: Sequence[EpisodeRecord]
    """By item, in the order of the first episode of each."""
    episodes: int
    """On training items."""
    good: int
    """Of these, whole and of a wanted reward."""
    items: int
    """Items with at least one such episode."""


def collect_good(records: Sequence[EpisodeRecord], *, min_reward: float, per_item: int) -> Collected:
    """Episodes of at least `min_reward`: of each item the shortest `per_item`, no two with the same calls in order.

    Short is few calls, then few tokens; of several with the same calls the best stays. The same records give the same
    choice in any order.
    """
    return _collected(records, lambda reward: reward >= min_reward, per_item)


def collect_bad(records: Sequence[EpisodeRecord], *, max_reward: float, per_item: int) -> Collected:
    """Episodes of less than `max_reward`, chosen as `collect_good` chooses."""
    return _collected(records, lambda reward: reward < max_reward, per_item)


def demonstration_rows(
    records: Sequence[EpisodeRecord], tools_by_item: Mapping[str, Sequence[ToolSpec]]
) -> list[dict[str, Any]]:
    """The episodes as rows of `data.demonstrations`; the `id` is the item's, numbered from its second row on."""
    rows: list[dict[str, Any]] = []
    seen: Counter[str] = Counter()
    for record in records:
        item_id = record.episode.item_id
        seen[item_id] += 1
        tools = tools_by_item.get(item_id, ())
        rows.append(
            {
                "id": item_id if seen[item_id] == 1 else f"{item_id}#{seen[item_id]}",
                "messages": [message_object(message) for message in record.episode.messages],
                **({"tools": tool_objects(tools)} if tools else {}),
                "reward": record.reward,
                "episode": record.episode.id,
            }
        )
    return rows


def rated_rows(
    good: Sequence[EpisodeRecord], bad: Sequence[EpisodeRecord], tools_by_item: Mapping[str, Sequence[ToolSpec]]
) -> list[dict[str, Any]]:
    """The episodes as rated conversations, for KTO: the good ones desirable, the bad ones not."""
    rows = demonstration_rows([*good, *bad], tools_by_item)
    return [row | {"desirable": place < len(good)} for place, row in enumerate(rows)]


def _collected(records: Sequence[EpisodeRecord], is_wanted: Callable[[float], bool], per_item: int) -> Collected:
    practice = [record for record in records if is_practice(record)]
    good = [one for one in practice if is_whole(one) and one.reward is not None and is_wanted(one.reward)]
    items = by_item(sorted(good, key=lambda record: (record.episode.step, record.episode.item_id)))
    kept = [record for found in items.values() for record in _shortest(found)[:per_item]]
    return Collected(records=kept, episodes=len(practice), good=len(good), items=len(items))


def _shortest(records: Sequence[EpisodeRecord]) -> list[EpisodeRecord]:
    """One episode for each sequence of calls, the best of them; shortest sequences first."""
    best_first = sorted(records, key=lambda one: (-(one.reward or 0.0), size_of(one), one.episode.id))
    by_calls: dict[Any, EpisodeRecord] = {}
    for record in best_first:
        by_calls.setdefault(call_sequence(record), record)
    return sorted(by_calls.values(), key=lambda one: (one.episode.n_calls, size_of(one), one.episode.id))
