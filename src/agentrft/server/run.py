"""The server in this process, from the socket to the end: one signal lets requests finish, a second one does not."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any, cast

import uvicorn

from agentrft.errors import UserError
from agentrft.server.app import create_app
from agentrft.server.connection import BoundedConnection
from agentrft.server.origin import bracketed
from agentrft.server.state import ServerState
from agentrft.store.keys import Keys

GRACE_S = 10
"""What open requests get to finish; jobs save their work at the same time."""
_KEEP_ALIVE_S = 75


MAKE_KEY = "agentrft keys create --project NAME"


def listen(host: str, port: int, keys: Keys, *, make_key: str = MAKE_KEY) -> socket.socket:
    """The socket to serve on. Raises UserError for an address that is taken, or open to others without any key.

    `make_key` is the command that makes one in this server's store.
    """
    if not _is_loopback(host) and not keys.exist():
        raise UserError(
            f"the server would listen on {host}, where others can reach it, and has no API keys; expected one at "
            f"least. Run `{make_key}`, or listen on 127.0.0.1",
            param="host",
            code="keys_missing",
        )
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=2048)
    except OSError as error:
        message = (
            f"cannot listen on {bracketed(host)}:{port}: {error.strerror or error}; choose another --host or --port"
        )
        raise UserError(message, param="port", code="address_unavailable") from None


def serve(state: ServerState, sock: socket.socket, on_ready: Callable[[str], None]) -> None:
    """Serve until a signal says otherwise; `on_ready` gets the URL once requests are taken."""
    host, port = sock.getsockname()[:2]
    server = _Server(config_of(state), state, lambda: on_ready(f"http://{bracketed(host)}:{port}"))
    # uvicorn raises the signal again when it has ended: a polite kill is no failure.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(server.serve(sockets=[sock]))
    finally:
        signal.signal(signal.SIGTERM, before)


def config_of(state: ServerState) -> uvicorn.Config:
    """How uvicorn serves that state."""
    return uvicorn.Config(
        create_app(state),
        http=cast(Any, partial(BoundedConnection, state.config.limits)),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # who asks decides what is shown: a header must not
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
    )


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, state: ServerState, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._state = state
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            # What has been imported lives as long as the process: 150,000 objects, through which every full collection
            # would go for 0.1 to 0.2 s, with nobody answered meanwhile.
            gc.collect()
            gc.freeze()
            self._on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._state.is_stopping = True
        super().handle_exit(sig, frame)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
