"""JSON objects over a connection, each behind its length: what the job and its tools' processes say to each other."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from agentrft.tools.process_worker import LENGTH, MAX_FRAME_BYTES


class Frames(asyncio.Protocol):
    """Reads length-prefixed JSON objects from a connection, and says when it is over."""

    def __init__(self, take: Callable[[dict[str, Any]], None], end: Callable[[], None]) -> None:
        self._take = take
        self._end = end
        self._received = bytearray()
        self._early = bytearray()
        self._transport: asyncio.Transport | None = None
        self._is_over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._early)

    def data_received(self, data: bytes) -> None:
        self._received += data
        try:
            while (frame := self._next()) is not None:
                self._take(frame)
        except (ValueError, TypeError, RecursionError):  # a tool wrote to a descriptor that is not its own
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_over = True
        self._end()

    def write(self, data: bytes) -> None:
        """Send a frame, now or as soon as there is a connection; nothing happens after its end."""
        frame = LENGTH.pack(len(data)) + data
        if self._transport is None:
            self._early += frame
        elif not self._is_over:
            self._transport.write(frame)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _next(self) -> dict[str, Any] | None:
        if len(self._received) < LENGTH.size:
            return None
        (length,) = LENGTH.unpack_from(self._received)
        if length > MAX_FRAME_BYTES:
            raise ValueError("a frame larger than any answer")
        if len(self._received) < LENGTH.size + length:
            return None
        frame = json.loads(self._received[LENGTH.size : LENGTH.size + length])
        del self._received[: LENGTH.size + length]
        if not isinstance(frame, dict):
            raise TypeError("not an object")
        return frame
