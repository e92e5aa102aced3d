"""What a detector is told about one episode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from agentrft.protocols import EpisodeRecord
from agentrft.types import Item, ToolSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    """The limits under which an episode was played; the names and defaults of `agent.limits`."""

    max_turns: int = 8
    max_reply_tokens: int = 256
    max_episode_tokens: int | None = None
    max_time_s: float = 600.0
    max_malformed: int = 2
    tool_timeout_s: float = 30.0
    tool_output_tokens: int = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One recorded episode with what it was played under."""

    record: EpisodeRecord
    item: Item
    tools: Sequence[ToolSpec] = ()
    """As they were offered in this episode."""
    limits: InForce = field(default_factory=InForce)
    guardrails: Literal["off", "observe", "enforce"] = "observe"
    effects: Mapping[str, Literal["read", "write"]] = field(default_factory=dict)
    """What the job, or the tool itself, says of its tools; a tool that is absent is judged by its name."""
    polling: frozenset[str] = frozenset()
    """Tools that the job declares to be asked again and again."""
    raw: Mapping[str, str] = field(default_factory=dict)
    """Call id → the whole output as the tool gave it, where whoever played the episode kept it."""
