"""What proposers look at: the episodes that the job as it is played on its search items."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from agentrft.optimise.arena import Played
from agentrft.types import Episode, Item, ToolSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class CallSeen:
    """One call that was made, and what came of it."""

    tool: str
    arguments: Mapping[str, Any]
    """Empty where they could not be read."""
    output: str
    is_error: bool
    is_cut: bool
    """Part of the output was left out for its length."""
    earlier: frozenset[str]
    """Tools that had answered without an error in earlier turns of the episode."""
    episode: Episode
    passed: bool
    """The episode reached the pass threshold."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Episodes, and the agent that played them."""

    document: Mapping[str, Any]
    items: Sequence[Item]
    played: Sequence[Played]
    tools: Sequence[ToolSpec]
    """As the model was told about them."""
    pass_threshold: float

    @cached_property
    def calls(self) -> list[CallSeen]:
        """Every call of every episode."""
        return [call for one in self.played for call in self._calls_of(one)]

    def calls_of(self, tool: str) -> list[CallSeen]:
        """Those of one tool."""
        return [call for call in self.calls if call.tool == tool]

    def passed(self, one: Played) -> bool:
        """Whether the episode reached the pass threshold."""
        return one.tally.reward is not None and one.tally.reward >= self.pass_threshold

    def _calls_of(self, one: Played) -> Iterator[CallSeen]:
        answered: set[str] = set()
        for turn in one.episode.turns:
            if turn.malformed is not None:
                continue  # nothing of it was executed; its results are the harness's own words
            earlier = frozenset(answered)
            for call, result in zip(turn.reply.tool_calls, turn.results, strict=False):
                yield CallSeen(
                    tool=call.name,
                    arguments=_arguments(call.arguments),
                    output=result.output,
                    is_error=result.is_error or looks_like_error(result.output),
                    is_cut=any(s.name in ("truncate", "page") and s.bytes_out < s.bytes_in for s in result.shaping),
                    earlier=earlier,
                    episode=one.episode,
                    passed=self.passed(one),
                )
                if not result.is_error and not looks_like_error(result.output):
                    answered.add(call.name)


def looks_like_error(output: str) -> bool:
    """Whether a tool that did not raise says that the call failed: most tell their errors as ordinary output."""
    start = output.lstrip().lower()[:200]
    if start.startswith(("error", "failed", "failure", "invalid", "exception", "traceback", "cannot ", "could not ")):
        return True
    try:
        document = json.loads(output)
    except (ValueError, RecursionError):
        return False
    if not isinstance(document, Mapping):
        return False
    return bool(document.get("error")) or document.get("ok") is False or document.get("success") is False


def told(specs: Sequence[ToolSpec], tool: str, parameter: str | None = None) -> str:
    """What the model is told about a tool, or about one of its arguments; empty where nothing."""
    spec = next((spec for spec in specs if spec.name == tool), None)
    if spec is None:
        return ""
    if parameter is None:
        return spec.description
    schema = spec.parameters.get("properties", {}).get(parameter)
    return str(schema.get("description") or "") if isinstance(schema, Mapping) else ""


def episodes_of(calls: Sequence[CallSeen]) -> tuple[str, ...]:
    """Ids of the episodes that the calls are from."""
    return tuple(dict.fromkeys(call.episode.id for call in calls))


def _arguments(text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, Mapping) else {}
