"""How an item was solved: how many ways, how alike, and what its episodes could be trained on. For `decide`.

Sources: rejection sampling, arXiv:2308.01825, for at most four solutions an item; pairs of comparable length, so that
length is not what is learnt.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import fmean
from typing import Any

from rapidfuzz.distance import Levenshtein

from agentrft.data.recorded import call_sequence, is_whole, prompt_of, size_of
from agentrft.protocols import EpisodeRecord

MOST_DEMOS = 4
"""Own solutions of an item that count as demonstrations."""
LENGTH_RATIO = 2.0
"""Neither side of a pair has more than this many times the other's tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """The episodes of one item as material."""

    calls_passed: Sequence[int]
    """Tool calls of each episode that passed."""
    calls_failed: Sequence[int]
    demos: int
    """Passed, whole, with different calls; at most four."""
    pairs: int
    """Failures that a success of about the same length stands against."""
    likeness: float | None
    """Mean likeness of two passed episodes: of their tools' names in order, of their answers where none was called."""
    copied: float | None
    """Share of argument values in passed episodes that stand in the prompt; None without arguments."""

    def to_json(self) -> dict[str, Any]:
        """Every field."""
        return {**asdict(self), "calls_passed": list(self.calls_passed), "calls_failed": list(self.calls_failed)}


def paths_of(records: Sequence[EpisodeRecord], pass_threshold: float) -> Paths:
    """Of the records of one item; those without a grade are left out."""
    graded = [record for record in records if record.grade.value is not None and record.reward is not None]
    passed = [record for record in graded if _value(record) >= pass_threshold]
    failed = [record for record in graded if _value(record) < pass_threshold]
    whole = [record for record in passed if is_whole(record)]
    copied = [share for record in passed if (share := _copied(record)) is not None]
    return Paths(
        calls_passed=[record.episode.n_calls for record in passed],
        calls_failed=[record.episode.n_calls for record in failed],
        demos=min(MOST_DEMOS, len({(call_sequence(record), record.episode.answer) for record in whole})),
        pairs=sum(any(_comparable(bad, good) for good in whole) for bad in failed if is_whole(bad)),
        likeness=_likeness(passed),
        copied=fmean(copied) if copied else None,
    )


def _value(record: EpisodeRecord) -> float:
    assert record.grade.value is not None
    return record.grade.value


def _comparable(one: EpisodeRecord, other: EpisodeRecord) -> bool:
    smaller, larger = sorted((size_of(one), size_of(other)))
    return larger <= LENGTH_RATIO * smaller


def _likeness(passed: Sequence[EpisodeRecord]) -> float | None:
    """None with fewer than two episodes."""
    if len(passed) < 2:
        return None
    names = [[call.name for turn in record.episode.turns for call in turn.reply.tool_calls] for record in passed]
    if not any(names):
        names = [(record.episode.answer or "").split() for record in passed]
    return fmean(Levenshtein.normalized_similarity(one, other) for one, other in combinations(names, 2))


def _copied(record: EpisodeRecord) -> float | None:
    prompt = "\n".join(message.content or "" for message in prompt_of(record)).casefold()
    values = [value for _, arguments in call_sequence(record) for value in _scalars(arguments)]
    return fmean(value.casefold() in prompt for value in values) if values else None


def _scalars(arguments: str) -> Iterator[str]:
    """Every text, number or truth value in the JSON text, as text."""
    try:
        open_values: list[Any] = [json.loads(arguments)]
    except (ValueError, RecursionError):
        return
    while open_values:
        value = open_values.pop()
        if isinstance(value, dict):
            open_values += value.values()
        elif isinstance(value, list):
            open_values += value
        elif value is not None:
            yield value if isinstance(value, str) else json.dumps(value)
