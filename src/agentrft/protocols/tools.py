"""Tools: one of them, those of an episode, those of a job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from agentrft.types import Item, ToolCall, ToolResult, ToolSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolContext:
    """What a tool may know about the call and the episode that makes it."""

    trace_id: str
    """Of the episode: the same for all its calls, and for its grader."""
    call_id: str
    """Of this call: unique among all episodes, the same each time it is tried."""
    item: Item
    deadline_s: float
    """Seconds this call may take."""


class Tool(Protocol):
    """One tool, open for one episode."""

    @property
    def spec(self) -> ToolSpec: ...

    @property
    def turn(self) -> AbstractAsyncContextManager[object]:
        """Held during a call, `contextlib.nullcontext()` for tools that run side by side without end.

        The call's time begins when it is held: waiting for other calls is not this one's fault.
        """
        ...

    async def call(self, arguments: Mapping[str, object], context: ToolContext) -> str | bytes:
        """The raw output; bytes are text of an encoding that may be broken.

        Arguments are already validated against `spec.parameters`. Raises ValueError (message shown to the model) for
        arguments the tool itself rejects, ToolOutage when trying again may help, ToolFault when the tool is broken.
        Cancelling ends the call; nothing of it may stay behind.
        """
        ...


class ToolSession(Protocol):
    """All tools of one episode; what state they keep lives and dies with it."""

    @property
    def specs(self) -> Sequence[ToolSpec]: ...

    async def run(self, calls: Sequence[ToolCall]) -> list[ToolResult]:
        """Run the calls of one reply side by side; results in the order of the calls.

        The one path every call takes: the model's mistakes come back as results, ToolFault is raised.
        """
        ...

    async def state_hash(self) -> str | None:
        """A text that is equal for equal states of the tools; None when they cannot tell."""
        ...

    async def close(self) -> None:
        """End the episode's tools; safe to call twice. Never raises for what a tool does."""
        ...


@runtime_checkable
class RestorableSession(ToolSession, Protocol):
    """The tools of an episode, which other episodes of the item may go on from."""

    @property
    def can_snapshot(self) -> bool:
        """Whether all of them can tell their state and go back to it."""
        ...

    async def snapshot(self) -> object:
        """The state of the tools, with what guards know of the calls so far. Raises ToolFault."""
        ...

    async def restore(self, snapshot: object) -> None:
        """Go on from where another session of the same tools and item was. Raises ToolFault."""
        ...


class ToolSet(Protocol):
    """The tools of a job."""

    async def open(self, item: Item, trace_id: str) -> ToolSession:
        """Fresh tools for one episode; raises ToolFault when they cannot start."""
        ...

    async def close(self) -> None: ...
