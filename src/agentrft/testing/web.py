"""A real HTTP server on loopback that misbehaves on order, for whoever has to live with such servers.

Each request is handled by the next behaviour of the script, the last one again and again.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the server was asked."""

    path: str
    headers: Mapping[str, str]
    """Names in small letters."""
    body: bytes

    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)


Behaviour = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]
"""Writes the answer. The connection is kept when it returns, and closed when it raises ConnectionError."""


def answers(
    body: Any = b"", *, status: int = 200, headers: Mapping[str, str] | None = None, after_s: float = 0.0
) -> Behaviour:
    """Answer: bytes as they are, anything else as JSON."""

    async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(after_s)
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        writer.write(_head(status, {"Content-Length": str(len(content)), **(headers or {})}) + content)
        await writer.drain()

    return behave


async def tool_output(request: Request, writer: asyncio.StreamWriter) -> None:
    """Answer a tool call with its own arguments as output."""
    asked = request.json()
    ids = {"call_id": asked["call_id"], "id": asked["id"]}
    await answers({"type": "function_call_output", **ids, "output": asked["arguments"]})(request, writer)


async def hangs(request: Request, writer: asyncio.StreamWriter) -> None:
    """Never answer."""
    await asyncio.Event().wait()


async def drops(request: Request, writer: asyncio.StreamWriter) -> None:
    """Close the connection without a word."""
    raise ConnectionError


def drips(pause_s: float = 1.0) -> Behaviour:
    """Answer without end, a byte at a time."""

    async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(_head(200, {"Content-Length": "1000000"}))
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(pause_s)

    return behave


def floods(n_bytes: int) -> Behaviour:
    """Answer with that many bytes, in pieces."""

    async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(_head(200, {"Content-Length": str(n_bytes)}))
        for _ in range(0, n_bytes, 65536):
            writer.write(b"x" * 65536)
            await writer.drain()
        raise ConnectionError

    return behave


def gzip_bomb(n_bytes: int) -> Behaviour:
    """Answer with so many zeros, packed to a thousandth."""
    return answers(gzip.compress(b"0" * n_bytes), headers={"Content-Encoding": "gzip"})


def redirects(to: str) -> Behaviour:
    """Send the client elsewhere."""
    return answers(status=307, headers={"Location": to})


class FaultyServer:
    """Serves `http://127.0.0.1:PORT` on the running loop; an async context manager.

    `stop` and `start` make it die and come back at the same address. `requests` holds what it was asked, `connections`
    counts those that were opened, `n_open` those that still are.
    """

    def __init__(self, *script: Behaviour) -> None:
        self.script = list(script)
        self.requests: list[Request] = []
        self.connections = 0
        self.port = 0
        self._open: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._changed = asyncio.Event()

    @property
    def url(self) -> str:
        """Without a path."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def n_open(self) -> int:
        """Connections that are open now."""
        return len(self._open)

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait until it is so; looks whenever a request arrives, or a connection opens or closes."""
        while not is_so():
            self._changed.clear()
            await self._changed.wait()

    async def start(self) -> None:
        """Listen, at the same port as before."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Die: nobody listens, and open connections break."""
        assert self._server
        self._server.close()
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        await self._server.wait_closed()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._open.add(task)

        def gone(task: asyncio.Task[None]) -> None:
            writer.transport.abort()  # here, because a task that is cancelled before its first step runs no `finally`
            self._open.discard(task)
            self._changed.set()

        task.add_done_callback(gone)
        self._changed.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                request = await _read(reader)
                self.requests.append(request)
                self._changed.set()
                behave = self.script.pop(0) if len(self.script) > 1 else self.script[0]
                await self._until_gone(behave(request, writer), reader)
        except (ConnectionError, asyncio.IncompleteReadError):
            """One side has had enough."""

    async def _until_gone(self, behaving: Awaitable[None], reader: asyncio.StreamReader) -> None:
        """Give up when the client leaves, so that `n_open` tells what clients hold."""
        doing = asyncio.ensure_future(behaving)
        try:
            while not (doing.done() or reader.at_eof() or reader.exception()):
                await asyncio.wait({doing}, timeout=0.01)
            if not doing.done():
                raise ConnectionError
            doing.result()
        finally:
            doing.cancel()
            await asyncio.wait({doing})


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(path=first.split()[1], headers=headers, body=body)


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
