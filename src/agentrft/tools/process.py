"""Python tools in processes of their own: one worker an episode, forked by one clean process a job, killed when late.

This is the job's side; `process_forker` and `process_worker` are the others. Nothing is confined: tools are the user's
own code with all its rights. What is promised is an end: a worker, with all the processes that its tools started, is
killed when a call is given up, when the episode ends, and when the job dies, however it dies. On Linux that includes
processes that went into a session of their own; elsewhere it does not. There is no Windows version (no fork).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
import signal
import socket
import struct
import subprocess
import sys
from collections import deque
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from agentrft.errors import ToolFault, UserError
from agentrft.tools.process_episode import Worker, last_words
from agentrft.tools.process_frames import Frames

MAX_WORKERS = 256
"""Alive at once; further episodes wait for one to end."""
_FORKER = Path(__file__).with_name("process_forker.py")
_REQUEST = struct.Struct(">cI")
_START_S = 600.0  # files run without a limit where a job is checked; this is for what hangs in a fresh process only
_END_S = 5.0
_MAX_PRINTED_BYTES = 2000
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """A file of tools as it was when the job read it: later edits do not reach the job's workers."""

    module: str
    path: Path
    source: bytes


class Forker:
    """Lends workers to episodes. Its process starts at the first one, and anew when it died.

    The sources of one job share it. May serve one event loop after another, not two at once.
    """

    def __init__(self, *, max_workers: int = MAX_WORKERS) -> None:
        self.max_workers = max_workers
        self._files: dict[str, SourceFile] = {}
        self._users: set[object] = set()
        self._running: _Running | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting = asyncio.Lock()

    def add(self, file: SourceFile, user: object) -> None:
        """Have the file run in the process; `user` is a source whose tools are in it."""
        self._files[file.module] = file
        self._users.add(user)

    async def started(self, user: object) -> None:
        """Start the process if it does not run.

        Raises UserError when a file raises there, ToolFault when the process dies or hangs, or `user` has closed.
        """
        if self._loop is not asyncio.get_running_loop():
            await self._stop()
            self._loop, self._starting = asyncio.get_running_loop(), asyncio.Lock()
        async with self._starting:
            if self._running is not None and not self._running.is_alive:
                await self._stop()
            if self._running is None and user in self._users:
                self._running = await _Running.start(list(self._files.values()), self.max_workers)

    async def lend(self, trace_id: str, user: object) -> Worker:
        """The worker of an episode, which all its sources share. Raises ToolFault when it cannot be forked."""
        if self._running is None or user not in self._users:
            raise ToolFault("tools were opened after their job ended")
        return await self._running.lend(trace_id, user)

    async def give_back(self, worker: Worker, user: object) -> None:
        """The episode needs it no more; with the last of its users it ends, and all that it started."""
        worker.users.discard(user)
        if not worker.users:
            worker.stop("was stopped, because its episode ended")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_END_S):
                    await worker.has_ended.wait()

    async def close(self, user: object) -> None:
        """End the process when no other source uses it; safe to call twice."""
        async with self._starting:
            self._users.discard(user)
            if not self._users:
                await self._stop()

    async def _stop(self) -> None:
        running, self._running = self._running, None
        if running is None:
            return
        if self._loop is asyncio.get_running_loop():
            await running.stop()
        else:
            running.collect()


class _Running:
    """One process that forks, and its workers."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket, max_workers: int) -> None:
        self._process = process
        self._control = control
        self._loop = asyncio.get_running_loop()
        self._frames = Frames(self._take, self._lost)
        self._printed = _Printed()
        self._ready: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._ended = asyncio.Event()
        self._slots = asyncio.Semaphore(max_workers)
        self._numbers = itertools.count()
        self._workers: dict[int, Worker] = {}
        self._outbox: deque[tuple[bytes, socket.socket | None]] = deque()

    @property
    def is_alive(self) -> bool:
        return not self._ended.is_set()

    @classmethod
    async def start(cls, files: list[SourceFile], max_workers: int) -> _Running:
        process, ours = start_process()
        running = cls(process, ours.dup(), max_workers)
        try:
            await running._connect(ours)
            described = [(file.module, str(file.path), file.source.decode("latin-1")) for file in files]
            running._frames.write(json.dumps({"path": list(map(str, sys.path)), "files": described}).encode())
            async with asyncio.timeout(_START_S):
                answer = await running._ready
        except BaseException as error:
            running.collect()
            if isinstance(error, TimeoutError):
                raise ToolFault(f"the process for tools was not ready within {_START_S:g} s") from None
            raise
        names = ", ".join(str(file.path) for file in files)
        if "fault" in answer:
            running.collect()
            message = (
                f"{answer['fault']} in the process for tools, though not where the job was checked; mend that, or bind "
                "the tools with isolation: thread or inline"
            )
            raise UserError(message, param="agent.tools", code="invalid_tool")
        if not answer:
            running.collect()
            printed = last_words(running._printed.text)
            raise ToolFault(f"the process that runs {names} {_death(process.returncode)}{printed}")
        if answer["threads"]:
            started = ", ".join(answer["threads"])
            _log.warning("%s: workers have none of the threads it starts (%s): start them in reset", names, started)
        return running

    async def _connect(self, ours: socket.socket) -> None:
        await self._loop.create_connection(lambda: self._frames, sock=ours)
        assert self._process.stdout is not None
        await self._loop.connect_read_pipe(lambda: self._printed, self._process.stdout)

    async def lend(self, trace_id: str, user: object) -> Worker:
        if (worker := self._shared(trace_id, user)) is None:
            await self._slots.acquire()
            worker = self._shared(trace_id, user)
            if worker is None and self.is_alive:
                return await self._fork(trace_id, user)
            self._slots.release()
        if worker is None:
            raise ToolFault("the process that forks workers for tools died")
        worker.users.add(user)
        return worker

    def _shared(self, trace_id: str, user: object) -> Worker | None:
        mates = (worker for worker in self._workers.values() if worker.trace_id == trace_id and worker.cause is None)
        return next((worker for worker in mates if user not in worker.users), None)

    async def _fork(self, trace_id: str, user: object) -> Worker:
        number = next(self._numbers)
        worker = Worker(trace_id, user, kill=partial(self._request, b"k", number))
        self._workers[number] = worker
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._request(b"f", number, theirs)
        try:
            await worker.connect(ours)
        except BaseException:
            worker.stop("was stopped, because its episode was given up")
            raise
        return worker

    def _request(self, letter: bytes, number: int, channel: socket.socket | None = None) -> None:
        self._outbox.append((_REQUEST.pack(letter, number), channel))
        self._flush()

    def _flush(self) -> None:
        while self._outbox:
            data, channel = self._outbox[0]
            try:
                if channel is None:
                    self._control.send(data)
                else:
                    socket.send_fds(self._control, [data], [channel.fileno()])
            except BlockingIOError:
                self._loop.add_writer(self._control, self._flush_more)
                return
            except OSError:  # it is gone, which all workers will be told
                pass
            self._outbox.popleft()
            if channel is not None:
                channel.close()

    def _flush_more(self) -> None:
        self._loop.remove_writer(self._control)
        self._flush()

    def _take(self, event: dict[str, Any]) -> None:
        if not self._ready.done():
            self._ready.set_result(event)
        elif "pid" in event:
            self._workers[event["worker"]].pid = event["pid"]
        else:
            self._slots.release()
            self._workers.pop(event["worker"]).died(event["cause"], event["printed"])

    def _lost(self) -> None:
        """Its connection closed: it died, and took its workers along, or (not on Linux) left them to us."""
        self._ended.set()
        if not self._ready.done():
            self._ready.set_result({})
        for worker in self._workers.values():
            if worker.pid is not None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(worker.pid, signal.SIGKILL)
            worker.died("ended with the one that forks them", self._printed.text)
            self._slots.release()
        self._workers.clear()

    async def stop(self) -> None:
        for worker in list(self._workers.values()):
            worker.stop("was stopped, because its job ended")
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_WR)
        try:
            async with asyncio.timeout(_END_S):
                await self._ended.wait()
        except TimeoutError:
            self._process.kill()
        finally:
            self.collect()

    def collect(self) -> None:
        """Leave nothing of it; blocks while it ends."""
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for _, channel in self._outbox:
            if channel is not None:
                channel.close()
        self._outbox.clear()
        if not self._loop.is_closed():
            self._loop.remove_writer(self._control)
            self._frames.close()
            self._printed.close()
        self._control.close()


class _Printed(asyncio.Protocol):
    """The end of what the process printed itself, not its workers."""

    def __init__(self) -> None:
        self._text = bytearray()
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._text += data
        del self._text[:-_MAX_PRINTED_BYTES]

    @property
    def text(self) -> str:
        return self._text.decode("utf-8", "replace")

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def _death(status: int) -> str:
    how = f"died of signal {-status}" if status < 0 else f"left with exit code {status}"
    return f"{how} before it was ready"


def start_process() -> tuple[subprocess.Popen[bytes], socket.socket]:
    """The process, and our end of its connection, which is non-blocking.

    Environment, folder and (later) `sys.path` are this process's; only the hash seed is fixed where it is not set, so
    that tools which walk over sets do the same after a restart.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-s", "-P", "-u", str(_FORKER), str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env={"PYTHONHASHSEED": "0", **os.environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the job, which ends it
        )
    ours.setblocking(False)
    return process, ours
