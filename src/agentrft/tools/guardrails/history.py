"""What an episode's calls have done so far: all that a guard looks at beside the call itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from agentrft.tools.guardrails.spec import ToolRules


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One call that asks to be let through."""

    number: int
    """Calls of the episode are numbered from 1."""
    tool: str
    arguments: Mapping[str, Any]
    canonical: str
    """The arguments as JSON with sorted keys."""
    rules: ToolRules
    writes: bool

    @property
    def is_polling(self) -> bool:
        return bool(self.rules.polling)


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """One call and what came of it."""

    request: Request
    output: str
    """As the model saw it."""
    raw: str
    """As the tool gave it; the same as `output` where only that was kept."""
    is_error: bool
    wall_s: float
    tokens: int
    """Of `output`."""
    refused_by: str | None = None
    """The rule that kept the tool from being asked."""

    @property
    def answered(self) -> bool:
        """The tool was asked and did not refuse."""
        return self.refused_by is None and not self.is_error


@dataclass(slots=True)
class History:
    """Calls by number. A call counts from the moment it is let through, its result from the end of its turn."""

    prompt: str = ""
    """Text of the item's own messages."""
    let_through: list[Request] = field(default_factory=list)
    past: list[Past] = field(default_factory=list)
    numbered: int = 0

    def copy(self) -> History:
        """The same as it stands now."""
        return replace(self, let_through=list(self.let_through), past=list(self.past))

    def next_number(self) -> int:
        """The number of the next call."""
        self.numbered += 1
        return self.numbered

    def same(self, request: Request) -> list[Past]:
        """Earlier calls of the same tool with the same arguments, in order."""
        return [past for past in self.past if is_same(past.request, request)]

    def since_last_write(self, past: list[Past]) -> list[Past]:
        """Those of `past` after the latest successful write by another call: before it the world was another."""
        writes = [p.request.number for p in self.past if p.answered and p.request.writes and p not in past]
        return [p for p in past if p.request.number > max(writes, default=0)]


def is_same(one: Request, other: Request) -> bool:
    """Whether they ask the same tool for the same."""
    return one.tool == other.tool and one.canonical == other.canonical
