"""Stopping a loop: between steps, or at once without losing what is done.

A loop waits for what may take long through `Stop.cut` (rollouts: given up at once) or `Stop.finish` (gradients: allowed
to end, within reason), and asks `Stop()` between steps.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from agentrft.errors import BoundaryError, StoreFault

T = TypeVar("T")

ShouldStop = Callable[[], str | None]
"""Asked between steps: the reason to stop there, or None."""

FINISH_S = 15.0
"""How long a gradient may go on after a stop was asked for. With a save it stays under the 30 s of a SIGTERM."""
_CLEAN_UP_S = 10.0
"""What is given up may take this long to close its sessions."""


class Stopped(Exception):
    """A loop was stopped in the middle of a step. Whole steps are saved where `keeps` and the engine was free."""

    def __init__(self, reason: str, *, keeps: bool = True) -> None:
        super().__init__(reason)
        self.reason = reason
        self.keeps = keeps
        """False: the job belongs to someone else, or to nobody, by now; nothing more is written."""


class Stop:
    """A wish to stop that may come at any moment; also a `ShouldStop`."""

    def __init__(self, between_steps: ShouldStop = lambda: None, *, finish_s: float = FINISH_S) -> None:
        self._between_steps = between_steps
        self._finish_s = finish_s
        self._asked = asyncio.Event()
        self._reason: str | None = None
        self._keeps = True

    def ask(self, reason: str, *, keeps: bool = True) -> None:
        """Stop at once. The first reason stays; `keeps` may turn false later."""
        self._reason = self._reason or reason
        self._keeps = self._keeps and keeps
        self._asked.set()

    @property
    def asked(self) -> bool:
        """Whether to stop at once."""
        return self._asked.is_set()

    def __call__(self) -> str | None:
        """The reason to stop, or None."""
        return self._reason or self._between_steps()

    async def cut(self, work: Awaitable[T]) -> T:
        """What `work` returns; it is cancelled, and Stopped raised, as soon as a stop is asked for."""
        return await self._until_asked(work, grace_s=0.0)

    async def finish(self, work: Awaitable[T]) -> T:
        """As `cut`, but what has begun gets `finish_s` seconds to end by itself."""
        return await self._until_asked(work, grace_s=self._finish_s)

    async def _until_asked(self, work: Awaitable[T], *, grace_s: float) -> T:
        if self.asked:
            if asyncio.iscoroutine(work):
                work.close()
            raise self._stopped()
        task, asked = asyncio.ensure_future(work), asyncio.ensure_future(self._asked.wait())
        try:
            await asyncio.wait({task, asked}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done() and grace_s:
                await asyncio.wait({task}, timeout=grace_s)
            if task.done():
                return task.result()
            raise self._stopped()
        finally:
            asked.cancel()
            if not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=_CLEAN_UP_S)

    def _stopped(self) -> Stopped:
        return Stopped(self._reason or "asked to", keeps=self._keeps)


async def saving(played: Awaitable[T], save: Callable[[], Awaitable[None]]) -> T:
    """What `played` gives; where that is stopped, or something outside fails, `save` comes first."""
    try:
        return await played
    except (Stopped, BoundaryError) as end:
        # A full disk and a lost job refuse this too.
        is_lost = isinstance(end, StoreFault) or (isinstance(end, Stopped) and not end.keeps)
        if not is_lost:
            with suppress(StoreFault):
                await save()
        raise


def as_stop(should_stop: ShouldStop) -> Stop:
    """`should_stop` itself where it is a Stop, else one that is only asked between steps."""
    return should_stop if isinstance(should_stop, Stop) else Stop(should_stop)
