"""An MCP server as a child process, spoken to over its stdin and stdout, one line of JSON a message.

Not the SDK's `stdio_client`: that one reads lines of any length, in time that grows with the square of it, sends stderr
to a file, and may leave the process behind when its task is cancelled. Here lines are bounded, the end of stderr is
kept for error messages, and the process and whatever it started are killed and reaped on every way out.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import sys
import weakref
from asyncio.subprocess import PIPE, Process, SubprocessStreamProtocol
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import anyio
import mcp_types as types
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage

MAX_MESSAGE_BYTES = 4_000_000
"""Of one message from a server; JSON writes 1 MB of text in up to 6 MB, most of it in little more than 1."""
TOO_LONG = f"the output has more than {MAX_MESSAGE_BYTES / 1e6:g} MB, which is all that can be read; ask for less"
OVERSIZED = -32800
"""Our own error code of an answer that was too long, in the range that JSON-RPC leaves to applications."""

_CHUNK = 64 * 1024
_EDGE = 1024
_EXIT_S, _TERM_S, _KILL_S = 1.0, 0.5, 2.0
_KEPT_STDERR = 8_000
_SHOWN_STDERR = 400
_INHERITED = ("PATH", "HOME", "LANG")
_ID = rb'"id"\s*:\s*(\d+)'
_VERSION = rb'"jsonrpc"\s*:\s*"2\.0"'
_ID_FIRST = re.compile(rb"\{\s*(?:" + _VERSION + rb"\s*,\s*)?" + _ID + rb"\s*,")
_ID_LAST = re.compile(rb",\s*" + _ID + rb"(?:\s*,\s*" + _VERSION + rb")?\s*\}\s*$")
_log = logging.getLogger(__name__)

Inbound = MemoryObjectReceiveStream[SessionMessage | Exception]
Outbound = MemoryObjectSendStream[SessionMessage]


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """How a server is started."""

    words: Sequence[str]
    env: Mapping[str, str]
    cwd: Path

    def environment(self) -> dict[str, str]:
        """Where to find programs and the home folder, and what is declared; no secret of ours.

        `python` is the interpreter that runs agentrft, unless PATH is declared.
        """
        kept = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        kept["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)])
        return {**kept, **self.env}


class ServerNotes:
    """What is known of a server for error messages: how it ended, the end of its stderr, lines that were no message."""

    def __init__(self) -> None:
        self._stderr: deque[bytes] = deque()
        self._stderr_bytes = 0
        self.exit_code: int | None = None
        self.garbage = 0
        """Lines on stdout that were no message."""
        self._last_garbage = b""

    def add_stderr(self, chunk: bytes) -> None:
        self._stderr.append(chunk)
        self._stderr_bytes += len(chunk)
        while self._stderr_bytes - len(self._stderr[0]) >= _KEPT_STDERR:
            self._stderr_bytes -= len(self._stderr.popleft())

    def add_garbage(self, line: bytes) -> None:
        self.garbage += 1
        self._last_garbage = line[:80]

    def __str__(self) -> str:
        """`exit code 3; stderr ends: …; 2 lines on stdout were no MCP messages, the last: …`, or nothing."""
        parts: list[str] = []
        if self.exit_code is not None:
            code = self.exit_code
            parts.append(f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}")
        stderr = " ".join(b"".join(self._stderr).decode("utf-8", "replace").split())
        if stderr:
            parts.append(f"stderr ends: {stderr[-_SHOWN_STDERR:]}")
        if self.garbage:
            last = self._last_garbage.decode("utf-8", "replace")
            parts.append(f"{self.garbage} lines on stdout were no MCP messages, the last: {last}")
        return "; ".join(parts)


@asynccontextmanager
async def run_server(
    command: Command, notes: ServerNotes, on_end: Callable[[], None]
) -> AsyncIterator[tuple[Inbound, Outbound]]:
    """The server's messages and a way to send it some; `on_end` is called when it says nothing more.

    Leaving closes its stdin, then sends SIGTERM, then SIGKILL to its process group: at most 4 s, cancelled or not.
    Raises OSError or ValueError when it cannot be started.
    """
    async with AsyncExitStack() as stack:
        # Calls never wait for a server that does not read: what they send is small.
        send_out, receive_out = anyio.create_memory_object_stream[SessionMessage](float("inf"))
        send_in, receive_in = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        for stream in (send_out, receive_out, send_in, receive_in):
            stack.callback(stream.close)
        process, transport, exited = await _spawn(command)
        # No await between the spawn and the `try`: a cancellation there would leave the process behind.
        reaper = weakref.finalize(process, _kill_group, process.pid)  # for a loop that ends without cancelling us
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_read, process, send_in, notes, on_end)
                tasks.start_soon(_write, process, receive_out, send_in)
                tasks.start_soon(_read_stderr, process, notes)
                try:
                    yield receive_in, send_out
                finally:
                    with anyio.CancelScope(shield=True):
                        receive_in.close()
                        await _stop(process, exited)
                    tasks.cancel_scope.cancel()
        finally:
            _kill_group(process.pid)  # what it started, and itself if the stop was cut short
            with anyio.CancelScope(shield=True):
                await _within(_KILL_S, exited)
            if exited.is_set():
                reaper.detach()
            else:
                _log.warning("process %d of an MCP server survives SIGKILL; it is left behind", process.pid)
            notes.exit_code = process.returncode
            with suppress(PermissionError):
                transport.close()


async def _spawn(command: Command) -> tuple[Process, asyncio.SubprocessTransport, asyncio.Event]:
    """The process, its pipes, and an event of its end.

    `asyncio.create_subprocess_exec` keeps the transport to itself, and its `wait` also waits for the pipes, which a
    grandchild may hold open.
    """
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.subprocess_exec(
        lambda: _Protocol(limit=_CHUNK, loop=loop),
        *command.words,
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        env=command.environment(),
        cwd=command.cwd,
        start_new_session=True,
    )
    return Process(transport, protocol, loop), transport, protocol.exited


class _Protocol(SubprocessStreamProtocol):
    def __init__(self, limit: int, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limit, loop)
        self.exited = asyncio.Event()

    def process_exited(self) -> None:
        super().process_exited()
        self.exited.set()


async def _read(
    process: Process,
    into: MemoryObjectSendStream[SessionMessage | Exception],
    notes: ServerNotes,
    on_end: Callable[[], None],
) -> None:
    assert process.stdout is not None
    lines = _Lines()
    try:
        while chunk := await process.stdout.read(_CHUNK):
            for line in lines.feed(chunk):
                message = _parse(line, notes)
                if message is not None:
                    await into.send(message)
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        # The session is over; a server that is not read from could not come to its end.
        while await process.stdout.read(_CHUNK):
            continue
    finally:
        into.close()
        on_end()


async def _write(
    process: Process,
    messages: MemoryObjectReceiveStream[SessionMessage],
    into: MemoryObjectSendStream[SessionMessage | Exception],
) -> None:
    assert process.stdin is not None
    try:
        async for message in messages:
            text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
            process.stdin.write(text.encode() + b"\n")
            await process.stdin.drain()
    except ConnectionError:
        into.close()  # nobody will answer: let the calls know, the server may live on


async def _read_stderr(process: Process, notes: ServerNotes) -> None:
    assert process.stderr is not None
    while chunk := await process.stderr.read(_CHUNK):
        notes.add_stderr(chunk)


class _Lines:
    """Cuts a byte stream into lines; of a line that is too long only both ends are kept."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._tail = b""

    def feed(self, chunk: bytes) -> list[bytes | _Oversized]:
        *ended, rest = chunk.split(b"\n")
        lines: list[bytes | _Oversized] = []
        for part in ended:
            self._add(part)
            lines.append(self._take())
        self._add(rest)
        return lines

    def _add(self, part: bytes) -> None:
        was_oversized = self._size > MAX_MESSAGE_BYTES
        self._size += len(part)
        if was_oversized:
            self._tail = (self._tail + part)[-_EDGE:]
            return
        self._parts.append(part)
        if self._size > MAX_MESSAGE_BYTES:
            whole = b"".join(self._parts)
            self._parts, self._tail = [whole[:_EDGE]], whole[-_EDGE:]

    def _take(self) -> bytes | _Oversized:
        text = b"".join(self._parts)
        line = text if self._size <= MAX_MESSAGE_BYTES else _Oversized(head=text, tail=self._tail)
        self._parts, self._size, self._tail = [], 0, b""
        return line


@dataclass(frozen=True, slots=True, kw_only=True)
class _Oversized:
    head: bytes
    tail: bytes


def _parse(line: bytes | _Oversized, notes: ServerNotes) -> SessionMessage | None:
    """The message; an error in its place when it is too long, None when the line is no message."""
    if isinstance(line, _Oversized):
        found = _ID_FIRST.match(line.head) or _ID_LAST.search(line.tail)
        if found is None:
            notes.add_garbage(line.head)
            return None
        error = types.ErrorData(code=OVERSIZED, message=TOO_LONG)
        return SessionMessage(types.JSONRPCError(jsonrpc="2.0", id=int(found[1]), error=error))
    if not line.strip():
        return None
    try:
        return SessionMessage(types.jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValueError:
        notes.add_garbage(line)
        return None


async def _stop(process: Process, exited: asyncio.Event) -> None:
    assert process.stdin is not None
    process.stdin.close()
    await _within(_EXIT_S, exited)
    if not exited.is_set():
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGTERM)
        await _within(_TERM_S, exited)


async def _within(seconds: float, event: asyncio.Event) -> None:
    with anyio.move_on_after(seconds):
        await event.wait()


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
