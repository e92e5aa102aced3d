"""What each tool was asked and how it answered: calls, mistakes, faults, time and size."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from agentrft.stats import Interval, clustered_wilson
from agentrft.types import Episode, Group, StopReason, ToolResult

UNREADABLE = "(unreadable call)"
"""The row of replies that stood where a call belongs and could not be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolFigures:
    """One tool over all episodes."""

    name: str
    is_known: bool
    """False for a name that the job does not bind, and for calls that could not be read."""
    calls: int
    episodes: int
    """In which it was called."""
    error: Interval
    """Share of calls that told the model of a mistake of its own; Wilson's interval over items."""
    faults: int
    """Calls that broke the episode."""
    refused: int
    """Calls that a guardrail or the schema kept from the tool."""
    retried: int
    p50_s: float | None
    """Median wall time of a call that was made; None when none was."""
    p95_s: float | None
    bytes_in: float
    """Mean size of what the tool gave, before shaping."""
    chars_shown: float
    """Mean size of what the model saw."""
    tokens_shown: float | None
    """Mean tokens of what the model saw, with its framing; None where the model's tokens are not known."""

    def to_json(self) -> dict[str, Any]:
        """Every field; `error` as an interval."""
        return {**asdict(self), "error": self.error.to_json()}


@dataclass(frozen=True, slots=True)
class _Use:
    """One call and its result; a call that broke the episode has none."""

    episode: Episode
    name: str
    result: ToolResult | None
    tokens: float | None


@dataclass(slots=True)
class _Uses:
    by_item: defaultdict[int, list[_Use]] = field(default_factory=lambda: defaultdict(list))

    def all(self) -> list[_Use]:
        return [use for uses in self.by_item.values() for use in uses]


def tool_figures(groups: Sequence[Group], names: Sequence[str]) -> list[ToolFigures]:
    """Tools that were called, most calls first, then those in `names` that never were."""
    found: defaultdict[str, _Uses] = defaultdict(_Uses)
    for index, group in enumerate(groups):
        for episode in group.episodes:
            for use in _uses(episode):
                found[use.name].by_item[index].append(use)
    called = [_figures(name, uses, name in names) for name, uses in found.items()]
    idle = [_figures(name, _Uses(), True) for name in names if name not in found]
    return [*sorted(called, key=lambda one: (-one.calls, one.name)), *idle]


def _uses(episode: Episode) -> Iterator[_Use]:
    for number, turn in enumerate(episode.turns):
        tokens = _result_tokens(episode, number)
        if turn.malformed is not None:
            for result in turn.results:
                yield _Use(episode, UNREADABLE, result, None)
            continue
        for place, call in enumerate(turn.reply.tool_calls):
            result = turn.results[place] if place < len(turn.results) else None
            if result is None and not _broke(episode, number, call.name):
                continue  # a limit came before the call could be made
            share = _share(result, turn.results) if result is not None else 0.0
            yield _Use(episode, call.name, result, None if tokens is None or result is None else tokens * share)


def _broke(episode: Episode, turn: int, name: str) -> bool:
    """Whether the episode broke on this unanswered call: calls of one reply are told apart by the fault's words."""
    if episode.stop_reason is not StopReason.FAULT or turn != len(episode.turns) - 1:
        return False
    fault = episode.fault or ""
    if not fault.startswith("tool:"):
        return False
    asked = {call.name for call in episode.turns[turn].reply.tool_calls}
    return len(asked) == 1 or f"tool {name} " in fault or fault.endswith(f" in {name}")


def _result_tokens(episode: Episode, number: int) -> int | None:
    """Tokens between this reply and the next; None where there is no next one, or tokens are not known."""
    if episode.tokens is None or number + 1 >= len(episode.turns):
        return None
    return episode.turns[number + 1].start - episode.turns[number].end


def _share(result: ToolResult, results: Sequence[ToolResult]) -> float:
    """Of a turn's result tokens, by characters."""
    whole = sum(len(one.output) + 1 for one in results)
    return (len(result.output) + 1) / whole


def _figures(name: str, uses: _Uses, is_known: bool) -> ToolFigures:
    every = uses.all()
    results = [use.result for use in every if use.result is not None]
    made = sorted(result.wall_s for result in results if result.tries)
    tokens = [use.tokens for use in every if use.tokens is not None]
    errors_I_K = [[float(u.result.is_error) for u in one if u.result is not None] for one in uses.by_item.values()]
    nothing = Interval(mean=0.0, low=0.0, high=1.0, n_items=0, n_episodes=0)
    return ToolFigures(
        name=name,
        is_known=is_known,
        calls=len(every),
        episodes=len({use.episode.id for use in every}),
        error=clustered_wilson(errors_I_K) if results else nothing,
        faults=sum(use.result is None for use in every),
        refused=sum(result.tries == 0 for result in results),
        retried=sum(result.tries > 1 for result in results),
        p50_s=_quantile(made, 0.5),
        p95_s=_quantile(made, 0.95),
        bytes_in=_mean([result.bytes_in for result in results]),
        chars_shown=_mean([len(result.output) for result in results]),
        tokens_shown=_mean(tokens) if tokens else None,
    )


def _quantile(ordered: Sequence[float], q: float) -> float | None:
    """The smallest value that a share q does not exceed."""
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)] if ordered else None


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0
