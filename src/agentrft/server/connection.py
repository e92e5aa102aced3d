"""uvicorn's HTTP/1.1 connection with what it leaves out: deadlines for what a client sends, and a most of connections.

Without them a client that sends a byte now and then, or nothing at all, holds a connection for ever.

Answers leave at once: asyncio turns off Nagle's algorithm only on sockets that were made with TCP's protocol number,
which those of `socket.create_server` are not, and a body behind its head would wait 40 ms for the client's delayed ACK.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from agentrft.server.config import Limits

REST_S = 30.0
"""How long the rest of a body that was refused is taken and dropped: clients read the refusal only behind it."""


class BoundedConnection(H11Protocol):
    """One connection; `uvicorn.Config(http=partial(BoundedConnection, limits))`."""

    def __init__(self, limits: Limits, **options: Any) -> None:
        super().__init__(**options)
        self._limits = limits
        self._deadline: asyncio.TimerHandle | None = None
        self._was_rest = False
        """What the deadline is for: the rest of a body, or else the head of a request."""

    def connection_made(self, transport: Any) -> None:
        """See asyncio.Protocol; so are the others."""
        super().connection_made(transport)
        if len(self.connections) > self._limits.connections:
            transport.abort()
        else:
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._close_in(self._limits.header_s)

    def data_received(self, data: bytes) -> None:
        if self._deadline is None and self.conn.their_state is h11.IDLE:
            self._close_in(self._limits.header_s)
        super().data_received(data)

    def handle_events(self) -> None:
        # Also called when an answer is complete, for the request that came behind it.
        before = self.cycle
        super().handle_events()
        if self.cycle is not before or (self._was_rest and self.conn.their_state is h11.IDLE):
            self._forget_deadline()

    def on_response_complete(self) -> None:
        if self.conn.their_state is h11.SEND_BODY:
            self._close_in(REST_S)
            self._was_rest = True
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_deadline()
        super().connection_lost(exc)

    def _close_in(self, seconds: float) -> None:
        self._forget_deadline()
        self._deadline = self.loop.call_later(seconds, self.transport.abort)

    def _forget_deadline(self) -> None:
        self._was_rest = False
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
