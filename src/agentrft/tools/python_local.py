"""Python tools of one episode in this process: on the event loop (`isolation: inline`), or in a thread of their own.

A thread keeps slow code off the event loop and makes the time limit real for the episode; it confines nothing, and a
call that hangs keeps it.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from typing import Any

from agentrft.errors import ToolFault
from agentrft.protocols import ToolContext
from agentrft.tools.attempt import describe_crash
from agentrft.tools.limits import to_text
from agentrft.tools.schema import with_integers
from agentrft.tools.thread import CallThread
from agentrft.types import ToolSpec

_log = logging.getLogger(__name__)


class LocalTool:
    """One Python function, open for one episode."""

    def __init__(self, spec: ToolSpec, function: Callable[..., Any], thread: CallThread | None) -> None:
        self._spec = spec
        self._function = function
        self._thread = thread

    @property
    def spec(self) -> ToolSpec:
        return self._spec

    @property
    def turn(self) -> AbstractAsyncContextManager[object]:
        return nullcontext() if self._thread is None else self._thread.turn

    async def call(self, arguments: Mapping[str, Any], context: ToolContext) -> str:
        """What the function returns, as text (JSON unless it is a string).

        Raises whatever the function raises; ToolFault when it returns what JSON cannot hold.
        """
        schemas = self._spec.parameters["properties"]
        given = {name: with_integers(value, schemas.get(name, {})) for name, value in arguments.items()}
        value = await run(self._function, self._thread, **given)
        try:
            return to_text(value)
        except (TypeError, ValueError) as error:
            message = f"tool {self._spec.name} returned {type(value).__name__}, expected a string or JSON: {error}"
            raise ToolFault(message) from error


class LocalSession:
    """The tools of one binding in one episode."""

    def __init__(
        self, target: str, tools: tuple[LocalTool, ...], owner: Any, thread: CallThread | None, timeout_s: float
    ) -> None:
        """`owner` is the object that the tools are methods of, None for a function."""
        self.tools = tools
        self._target = target
        self._owner = owner
        self._thread = thread
        self._timeout_s = timeout_s
        self._closing: asyncio.Task[None] | None = None
        self._is_closed = False

    async def state_hash(self) -> str | None:
        if getattr(self._owner, "state_hash", None) is None:
            return None
        return await self._run("state_hash", lambda value: None if value is None else str(value))

    async def snapshot(self) -> object:
        """A copy of what the class's `snapshot` gives."""
        return await self._run("snapshot", copy.deepcopy)

    async def restore(self, snapshot: object) -> None:
        await self._run("restore", lambda _: None, copy.deepcopy(snapshot))

    async def close(self) -> None:
        """Call the class's `close` if it has one; what that raises is logged, because the episode is over.

        Behind a call that was given up it is queued, not waited for: it runs when the thread comes free.
        """
        if self._is_closed:
            return
        self._is_closed = True
        close, thread = getattr(self._owner, "close", None), self._thread
        try:
            if close is not None and thread is not None and thread.is_stuck:
                # Queued here, not in the task, because the loop may end before the task begins.
                self._closing = asyncio.create_task(_end(thread.start(close), None))
            elif close is not None:
                await _end(run(close, thread), self._timeout_s)
        finally:
            if thread is not None:
                thread.stop()

    async def _run(self, method: str, then: Callable[[Any], Any], *arguments: Any) -> Any:
        """What a method of the class gives, after `then`, which runs where the method did."""
        try:
            async with asyncio.timeout(self._timeout_s):
                value = await run(getattr(self._owner, method), self._thread, *arguments)
                return await run(then, self._thread, value)
        except (Exception, SystemExit) as error:
            raise ToolFault(describe_crash(f"{self._target}.{method}", error)) from error


async def run(function: Callable[..., Any], thread: CallThread | None, /, *args: Any, **kwargs: Any) -> Any:
    """What the function gives, called here or in the thread, awaited (on the event loop) when it is one that waits."""
    call = partial(function, *args, **kwargs)
    return await _settled(call() if thread is None else await thread.run(call))


async def _end(closing: Awaitable[Any], timeout_s: float | None) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await _settled(await closing)
    except (Exception, SystemExit) as error:
        _log.warning("%s", describe_crash("close", error))


async def _settled(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value
