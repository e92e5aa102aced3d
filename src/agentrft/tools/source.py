"""What every kind of tool gives to a job: a source, opened once an episode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from agentrft.protocols import Tool
from agentrft.types import Item, ToolSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Hints:
    """What a tool, or its kind, says about itself. Guardrails may be stricter than this, never laxer because of it."""

    writes: bool | None = None
    """It changes something; None when it does not say."""
    says_it_reads: bool = False
    """It claims to change nothing. The job may confirm that (`effect: read`); until then it counts for nothing."""
    repeatable: bool = False
    """The same call may be sent again when its answer was lost: its server recognises the `call_id`."""


class SourceSession(Protocol):
    """The tools of one binding in one episode."""

    @property
    def tools(self) -> Sequence[Tool]: ...

    async def state_hash(self) -> str | None:
        """See `ToolSession.state_hash`."""
        ...

    async def snapshot(self) -> object:
        """The state of the tools, for `restore`; raises ToolFault when they cannot tell."""
        ...

    async def restore(self, snapshot: object) -> None:
        """Go back to a snapshot of a session of the same source; raises ToolFault when that fails."""
        ...

    async def close(self) -> None:
        """Safe to call twice. Never raises for what a tool does."""
        ...


class ToolSource(Protocol):
    """What one binding of a job offers."""

    @property
    def names(self) -> Sequence[str]:
        """Every tool it binds."""
        ...

    @property
    def specs(self) -> Sequence[ToolSpec]:
        """The tools that describe themselves; the others are described by the rows that list them."""
        ...

    def hints(self, name: str) -> Hints:
        """What is known of one of its tools."""
        ...

    def timeout_s(self, name: str) -> float | None:
        """Limit of one call of that tool, where the binding has one of its own."""
        ...

    @property
    def can_snapshot(self) -> bool:
        """Whether its sessions can be saved and gone back to."""
        ...

    async def open(self, item: Item, trace_id: str, timeout_s: float) -> SourceSession:
        """Fresh tools for one episode, within `timeout_s`; raises ToolFault (ToolOutage) when they cannot start."""
        ...

    async def close(self) -> None:
        """Let go of servers, connections and processes; safe to call twice."""
        ...
