"""The server's one engine process: started with the first request for tokens, ended with the server."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from agentrft.engines.models import SMOLLM2
from agentrft.errors import EngineFault
from agentrft.runtime.serving.wire import ChatEvent, ChatRequest

_SHOWN_CHARACTERS = 800
"""Of what a process said before it failed."""


class EngineProcess(Protocol):
    """What plays replies: `runtime.serving.EngineClient`, or a script."""

    @property
    def pid(self) -> int | None:
        """Of the process, or None when it does not run."""
        ...

    @property
    def starts(self) -> int:
        """How often the process was started."""
        ...

    def chat(self, request: ChatRequest) -> AsyncGenerator[ChatEvent]:
        """The events of one reply, `Ended` last; closing it frees its place.

        Raises UserError for what cannot be played, another bundle included, and EngineFault when the engine failed.
        """
        ...

    async def close(self) -> None:
        """End the process. Safe to call twice."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineHealth:
    """How the engine process does."""

    is_running: bool
    """False before the first request for tokens, and after a crash until the next one."""
    starts: int
    """How often it was started; more than once means that it crashed."""


class Engine:
    """Plays chat requests; every handler asks the same one. Serves one event loop."""

    def __init__(self, process: EngineProcess) -> None:
        """Starts nothing yet."""
        self._process = process
        self._unpacking: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Of its process, or None when it does not run."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether its process runs now."""
        return self.pid is not None

    def health(self) -> EngineHealth:
        """For `/healthz` and `/metrics`; asks the process nothing."""
        return EngineHealth(is_running=self.is_running, starts=self._process.starts)

    async def unpack(self) -> None:
        """Have the built-in model on the disk; EngineFault when that fails.

        In a process of its own, because it takes torch and a lot of memory; once, however many ask for it.
        """
        if self._unpacking is None or self._unpacking.done():
            self._unpacking = asyncio.create_task(_unpack())
        # Whoever asked first may leave; the others still wait for it.
        await asyncio.shield(self._unpacking)

    def chat(self, request: ChatRequest) -> AsyncGenerator[ChatEvent]:
        """The events of one reply, `Ended` last; closing it cancels the reply. UserError, EngineFault."""
        return self._process.chat(request)

    async def close(self) -> None:
        """End the process; replies that are being played end with EngineFault. Safe to call twice."""
        if self._unpacking is not None:
            self._unpacking.cancel()
            await asyncio.wait([self._unpacking])
        await self._process.close()


async def _unpack() -> None:
    code = f"from agentrft.engines.models import resolve; resolve({SMOLLM2!r})"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    try:
        _, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        said = errors.decode("utf-8", "replace").strip()[-_SHOWN_CHARACTERS:]
        raise EngineFault(f"{SMOLLM2} could not be unpacked: {said}")
