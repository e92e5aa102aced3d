"""A thread that runs one episode's synchronous tools, one call after the other.

Not a ThreadPoolExecutor: its threads are joined when Python exits, so a tool that hangs would keep a finished job
alive. One thread an episode, because objects such as sqlite3 connections stay with the thread that made them.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any
from weakref import WeakSet

from agentrft.errors import UserError

MAX_ABANDONED = 8
"""Threads of a job that may hang in calls which were given up; they cannot be killed."""
_Work = tuple[Callable[[], Any], asyncio.Future[Any], asyncio.AbstractEventLoop]


class CallThreads:
    """Starts the threads of one job, and counts those that hang."""

    def __init__(self) -> None:
        self._threads: WeakSet[CallThread] = WeakSet()

    def start(self, name: str) -> CallThread:
        """A new thread. Raises UserError when too many of the earlier ones still hang."""
        hanging = sorted(thread.name for thread in self._threads if thread.is_abandoned)
        if len(hanging) >= MAX_ABANDONED:
            message = (
                f"{len(hanging)} threads hang in tool calls that were given up ({', '.join(dict.fromkeys(hanging))}); "
                "threads cannot be stopped: bind these tools with isolation: process, whose processes can"
            )
            raise UserError(message, param="agent.tools", code="tool_threads_stuck")
        thread = CallThread(name)
        self._threads.add(thread)
        return thread


class CallThread:
    """Runs callables on a daemon thread of its own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._queue: SimpleQueue[_Work | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name=f"tools {name}", daemon=True)
        self._thread.start()
        self.turn = asyncio.Lock()
        """Held by the one who may run something, so that the wait for others does not count as time of a call."""
        self.is_stuck = False
        """A call was given up while it ran: later ones would wait behind it."""

    @property
    def is_abandoned(self) -> bool:
        """It still runs a call that was given up."""
        return self.is_stuck and self._thread.is_alive()

    def start(self, function: Callable[[], Any]) -> asyncio.Future[Any]:
        """The function's result to come, or what it raised; queued now. Cancelling only drops the result."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._queue.put((function, future, loop))
        return future

    async def run(self, function: Callable[[], Any]) -> Any:
        """The function's result, or what it raised. When cancelled the call goes on, its result is dropped."""
        try:
            return await self.start(function)
        except asyncio.CancelledError:
            self.is_stuck = True
            raise

    def stop(self) -> None:
        """End the thread after what it is doing now; does not wait for it."""
        self._queue.put(None)

    def _serve(self) -> None:
        while (work := self._queue.get()) is not None:
            function, future, loop = work
            result, error = None, None
            try:
                result = function()
            except BaseException as caught:
                error = caught
            # A closed loop refuses: nobody waits for this any more, but a `close` may be queued behind it.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_settle, future, result, error)


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.cancelled():
        return
    if isinstance(error, StopIteration):
        # asyncio refuses StopIteration in a future
        error = RuntimeError(f"StopIteration: {error}")
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
