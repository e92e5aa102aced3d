"""One episode's process, as the job sees it: asked things, and stopped."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from collections.abc import Callable
from typing import Any

from agentrft.errors import ToolFault
from agentrft.net.last_words import without_secrets
from agentrft.tools.process_frames import Frames
from agentrft.tools.process_worker import MAX_FRAME_BYTES

_EOF_GRACE_S = 0.1  # between a closed connection and the news of how its process died
_MAX_LAST_CHARS = 600


class Worker:
    """Answers until it is stopped or dies; after that every question is answered with the reason."""

    def __init__(self, trace_id: str, user: object, kill: Callable[[], None]) -> None:
        self.trace_id = trace_id
        self.users = {user}
        """Sources of the episode that have tools in it."""
        self.pid: int | None = None
        self.cause: str | None = None
        """Why it answers no more, to be read after a tool's name."""
        self.turn = asyncio.Lock()
        """Held during a synchronous call: the process makes one at a time."""
        self.slots = itertools.count()
        self.has_ended = asyncio.Event()
        """Nothing is left of the process."""
        self._kill = kill
        self._frames = Frames(self._take, self._closed)
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._was_cut = False

    async def connect(self, ours: socket.socket) -> None:
        await asyncio.get_running_loop().create_connection(lambda: self._frames, sock=ours)

    async def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to a request (see `process_worker`), `{fault}` when the process died or is stopped.

        Cancelling stops the process. Raises ToolFault when the request cannot be sent.
        """
        number = next(self._numbers)
        try:
            data = json.dumps({**request, "id": number}).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise ToolFault(f"what the tool's process is to be told cannot be written as JSON: {error}") from error
        if len(data) > MAX_FRAME_BYTES:
            raise ToolFault(f"what the tool's process is to be told has {len(data)} bytes, at most {MAX_FRAME_BYTES}")
        if self.cause is not None:
            return {"fault": self.cause}
        answer = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        self._frames.write(data)
        try:
            return await answer
        except asyncio.CancelledError:
            self.stop("was stopped, because a call took too long or was given up")
            raise
        finally:
            self._waiting.pop(number, None)

    def stop(self, cause: str) -> None:
        """Kill the process and all that it started; `has_ended` tells when that is done."""
        if self.cause is None:
            self._give_up(cause)
            self._kill()

    def died(self, cause: str, printed: str) -> None:
        """The process is gone; `cause` is its exit code or signal."""
        if self._was_cut and "SIGKILL" in cause:
            cause = "closed its connection, and was stopped"
        self._give_up(f"lost its process, which {cause}{last_words(printed)}")
        self.has_ended.set()
        self._frames.close()

    def _give_up(self, cause: str) -> None:
        if self.cause is None:
            self.cause = cause
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_result({"fault": self.cause})

    def _take(self, frame: dict[str, Any]) -> None:
        answer = self._waiting.get(frame.get("id", -1))
        if answer is not None and not answer.done():
            answer.set_result(frame)

    def _closed(self) -> None:
        if not self.has_ended.is_set():
            asyncio.get_running_loop().call_later(_EOF_GRACE_S, self._cut)

    def _cut(self) -> None:
        """It closed its connection and lives on, where nothing can be asked of it."""
        if not self.has_ended.is_set():
            self._was_cut = True
            self._kill()


def last_words(printed: str) -> str:
    """`; it last printed: …` in one line, or nothing; without our own frames in the traceback of a crash."""
    lines = (line.strip() for line in printed.splitlines())
    words = " / ".join(line for line in lines if line and "/agentrft/tools/process_" not in line)
    return f"; it last printed: {without_secrets(words, {})[-_MAX_LAST_CHARS:]}" if words else ""
