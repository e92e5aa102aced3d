"""Preference pairs from recorded episodes: the best of an item against worse ones that went apart as late as can be."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agentrft.data.export import message_object, tool_objects
from agentrft.data.recorded import by_item, call_sequence, is_practice, is_whole, prompt_of, size_of, turns_of
from agentrft.protocols import EpisodeRecord
from agentrft.types import ToolSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class PairRules:
    """Which pairs are worth training on. Defaults: reference on preference optimisation from rollouts."""

    margin: float = 0.3
    """The preferred reward exceeds the rejected one by at least this."""
    length_ratio: float = 2.0
    """Neither side has more than this many times the other's tokens: otherwise length is what is learnt."""
    per_item: int = 2
    """Pairs of one item at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedPair:
    """Two episodes of one item, and where they part."""

    preferred: EpisodeRecord
    rejected: EpisodeRecord
    margin: float
    """Preferred minus rejected reward."""
    shared_turns: int
    """Whole turns, results included, that both begin with; the next reply is the decision that is compared."""

    @property
    def item_id(self) -> str:
        return self.preferred.episode.item_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairing:
    """The pairs, and what became of everything else."""

    pairs: Sequence[RecordedPair]
    episodes: int
    """On training items."""
    whole: int
    """Of these, ended in an answer, graded and readable."""
    items: int
    items_without_margin: int
    """Items whose episodes are all about as good as each other."""
    items_without_likeness: int
    """Items with a margin, but only between episodes of too different lengths."""


def pair_up(records: Sequence[EpisodeRecord], rules: PairRules) -> Pairing:
    """At most `per_item` pairs of each item: an episode of its highest reward, against one that is worse by `margin`.

    Of those, the pairs that share most turns come first, then the larger margin; no episode is rejected twice, and two
    pairs never have the same calls and answers on both sides. The same records give the same pairs in any order.
    """
    practice = [record for record in records if is_practice(record)]
    whole = [record for record in practice if is_whole(record)]
    pairs: list[RecordedPair] = []
    without_margin = without_likeness = 0
    items = by_item(whole)
    for item_id in sorted(items):
        candidates = _candidates(items[item_id], rules.margin)
        alike = [pair for pair in candidates if _is_alike(pair, rules.length_ratio)]
        without_margin += not candidates
        without_likeness += bool(candidates) and not alike
        pairs += _chosen(alike, rules.per_item)
    return Pairing(
        pairs=pairs,
        episodes=len(practice),
        whole=len(whole),
        items=len(items),
        items_without_margin=without_margin,
        items_without_likeness=without_likeness,
    )


def pair_row(pair: RecordedPair, tools: Sequence[ToolSpec]) -> dict[str, Any]:
    """The pair in OpenAI's preference format: the outputs begin where the episodes part.

    Shared turns go into `input`. Beside OpenAI's keys: `id`, the episodes, their rewards and the shared turns.
    """
    sides = [
        [message_object(message) for turn in turns_of(record)[pair.shared_turns :] for message in turn]
        for record in (pair.preferred, pair.rejected)
    ]
    shared = [message for turn in turns_of(pair.preferred)[: pair.shared_turns] for message in turn]
    messages = [message_object(message) for message in (*prompt_of(pair.preferred), *shared)]
    return {
        "id": _key(pair),
        "input": {"messages": messages, **({"tools": tool_objects(tools)} if tools else {})},
        "preferred_output": sides[0],
        "non_preferred_output": sides[1],
        "item_id": pair.item_id,
        "shared_turns": pair.shared_turns,
        "rewards": [pair.preferred.reward, pair.rejected.reward],
        "episodes": [pair.preferred.episode.id, pair.rejected.episode.id],
    }


def is_held_out(item_id: str, share: float) -> bool:
    """Whether an item's pairs are for validation: a function of its id, so that all of an item stay on one side."""
    draw = int.from_bytes(hashlib.sha256(f"held out/{item_id}".encode()).digest()[:8], "big") / 2**64
    return draw < share


def _candidates(records: Sequence[EpisodeRecord], margin: float) -> list[RecordedPair]:
    """The best against all that are worse enough, once for each pair of different trajectories."""
    distinct = {(prompt_of(record), _trajectory(record)): record for record in sorted(records, key=_order)}
    best = max((_reward(record) for record in distinct.values()), default=0.0)
    return [
        RecordedPair(
            preferred=good,
            rejected=bad,
            margin=best - _reward(bad),
            shared_turns=_shared_turns(good, bad),
        )
        for good in distinct.values()
        if _reward(good) == best
        for bad in distinct.values()
        if best - _reward(bad) >= margin and prompt_of(good) == prompt_of(bad)
    ]


def _is_alike(pair: RecordedPair, most: float) -> bool:
    sizes = sorted((size_of(pair.preferred), size_of(pair.rejected)))
    return sizes[1] <= most * sizes[0]


def _chosen(pairs: Sequence[RecordedPair], most: int) -> list[RecordedPair]:
    taken: set[str] = set()
    chosen: list[RecordedPair] = []
    for pair in sorted(pairs, key=lambda pair: (-pair.shared_turns, -pair.margin, _key(pair))):
        if len(chosen) < most and pair.rejected.episode.id not in taken:
            chosen.append(pair)
            taken.add(pair.rejected.episode.id)
    return chosen


def _shared_turns(a: EpisodeRecord, b: EpisodeRecord) -> int:
    """Turns that are the same at the start of both; never all of either, so that there is something to compare."""
    turns = list(zip(turns_of(a), turns_of(b), strict=False))
    shared = next((k for k, (one, other) in enumerate(turns) if one != other), len(turns))
    return min(shared, len(turns) - 1)


def _trajectory(record: EpisodeRecord) -> tuple[Any, ...]:
    return (call_sequence(record), record.episode.answer)


def _order(record: EpisodeRecord) -> tuple[float, str]:
    """Last wins where trajectories are the same: the highest reward, then the id."""
    return (_reward(record), record.episode.id)


def _reward(record: EpisodeRecord) -> float:
    return 0.0 if record.reward is None else record.reward


def _key(pair: RecordedPair) -> str:
    return f"{pair.preferred.episode.id}>{pair.rejected.episode.id}"
