"""A connection of the server: answers leave at once, whatever asyncio thinks of its socket."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from agentrft.server.config import Limits
from agentrft.server.connection import BoundedConnection


async def _app(scope: Any, receive: Any, send: Any) -> None:
    """Never asked."""


async def test_nagles_algorithm_is_off_on_sockets_that_asyncio_leaves_alone() -> None:
    config = uvicorn.Config(_app, lifespan="off", log_config=None)
    config.load()
    accepted: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    class Told(BoundedConnection):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            accepted.set_result(transport.get_extra_info("socket"))

    def connection() -> Told:
        return Told(Limits(), config=config, server_state=ServerState(), app_state={})

    listening = socket.create_server(("127.0.0.1", 0))
    assert listening.proto != socket.IPPROTO_TCP  # which is why asyncio does not
    server = await asyncio.get_running_loop().create_server(connection, sock=listening)
    _, writer = await asyncio.open_connection(*listening.getsockname())
    assert (await accepted).getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    writer.close()
    server.close()
