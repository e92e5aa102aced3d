"""Untrusted Python functions, each call in a fresh process: the parent's side of the sandbox.

One warm interpreter (`worker.py`, started with a clean environment and no user site) forks one child per call, or one
for a group of calls. A child has its own session, a wall-clock limit enforced by SIGKILL, limits on processor time,
memory, open files and file size, no descriptors but its own, and answers in frames with a random nonce. What one model
output does to its interpreter is gone with the child, so it cannot touch the next grade. Everything that comes back is
data: JSON of bounded size and expected shape, or a fault.

`isolation="jail"` (Linux, the default) adds what `jail` and `child` switch on: namespaces, a read-only root with
nothing of the user's in it, Landlock, a system-call filter. With `isolation="monty"` the child hands the code to an
interpreter of a part of Python that cannot reach the machine. In both the worker tries forbidden things when it starts,
and `call` raises SandboxFault when too little holds. `isolation="process"` has none of that: such code may do whatever
the user running agentrft may do, so it is for trusted code only. docs/sandbox.md says what none of them stops. There is
no Windows version (no fork).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import secrets
import signal
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agentrft.errors import SandboxFault
from agentrft.sandbox import start
from agentrft.sandbox.layers import Isolation, Report, read_report
from agentrft.sandbox.start import LENGTH, MAX_FRAME_BYTES, START_S, start_process

MAX_GROUP = 16
"""Calls that may share one child: the samples of one prompt."""

_GRACE_S = 10.0  # beyond a call's own limit, before the worker itself counts as stuck (importing numpy takes 0.2 s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one call gave."""

    value: Any
    """As decoded from JSON; None when the call raised or its value has no JSON form."""
    kind: str | None
    """Exact type of the value, such as `builtins.float` or `numpy.float64`; None when the call raised."""
    error: str | None
    """`ZeroDivisionError: division by zero`, when the call raised."""
    traceback: str | None
    output: str
    """What the call printed, 64 kB at most; for a call of a group, what the whole group printed."""
    wall_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """Source text and the function in it to call."""

    source: str
    function: str
    filename: str
    """As tracebacks show it."""
    imports: Sequence[str] = ()
    """Modules that the source imports; well-known ones are imported once, before forking."""


class ForkServer:
    """Runs programs, at most `max_children` at once. Starts its worker at the first call, and anew when it died.

    May serve one event loop after another, not two at once. `close()` may be called twice.
    """

    def __init__(
        self, *, isolation: Isolation = "jail", max_children: int | None = None, memory_bytes: int = 2_000_000_000
    ) -> None:
        self.isolation: Isolation = isolation
        self._max_children = max_children or max(2, os.cpu_count() or 2)
        self._slots = asyncio.Semaphore(self._max_children)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._memory_bytes = memory_bytes
        self._worker: _Worker | None = None
        self._starting = asyncio.Lock()
        self._ids = itertools.count()
        self._closed = False

    async def report(self) -> Report:
        """What confines the worker, which is started for it. Raises SandboxFault where that is too little."""
        return (await self._started_worker()).report

    async def call(self, program: Program, arguments: Sequence[Any], *, timeout_s: float) -> Outcome:
        """`program.function(*arguments)` in a fresh process; what the code itself raises is in the outcome.

        Arguments must be JSON-able (else TypeError or ValueError). Raises SandboxFault for a timeout, a death, a broken
        protocol, a closed server or a machine without a jail; the message starts with "it" or names the part.
        """
        (found,) = await self.call_group(program, [arguments], timeout_s=timeout_s)
        if isinstance(found, SandboxFault):
            raise found
        return found

    async def call_group(
        self, program: Program, arguments_G: Sequence[Sequence[Any]], *, timeout_s: float
    ) -> list[Outcome | SandboxFault]:
        """One call after another in one fresh process, which runs the source once: several times as fast as `call`.

        Up to MAX_GROUP calls that may see each other's traces: samples of one prompt, never of two. `timeout_s` is for
        each. A death costs the calls that had not answered. Raises as `call` does when nothing could be started.
        """
        if not 1 <= len(arguments_G) <= MAX_GROUP:
            raise ValueError(f"got {len(arguments_G)} calls for one process, expected 1 to {MAX_GROUP}")
        calls = [(program.function, list(arguments)) for arguments in arguments_G]
        return await self._request(program, calls, timeout_s)

    async def gaps(self, program: Program, *, timeout_s: float) -> list[str]:
        """What the program needs and Monty lacks, for people; empty when it can be run. With `isolation="monty"` only.

        The source is run once for it. Raises SandboxFault as `call` does.
        """
        (found,) = await self._request(program, None, timeout_s)
        if isinstance(found, SandboxFault):
            raise found
        return found.value if found.error is None else [found.error]

    async def _request(
        self, program: Program, calls: list[tuple[str, list[Any]]] | None, timeout_s: float
    ) -> list[Outcome | SandboxFault]:
        request = {"source": program.source, "filename": program.filename, "calls": calls}
        payload = json.dumps(request).encode()
        if self._loop is not asyncio.get_running_loop():
            self._loop = asyncio.get_running_loop()
            self._slots = asyncio.Semaphore(self._max_children)
            self._starting = asyncio.Lock()
        async with self._slots:
            worker = await self._started_worker()
            header = {
                "op": "call",
                "id": next(self._ids),
                "nonce": secrets.token_hex(8),
                "n_calls": 1 if calls is None else len(calls),
                "timeout_s": timeout_s,
                "memory_bytes": self._memory_bytes,
                "imports": [] if self.isolation == "monty" else list(program.imports),
            }
            return await worker.call(header, payload)

    async def close(self) -> None:
        """Stop the worker and every call in it; these end with SandboxFault."""
        self._closed = True
        await self._drop_worker()

    async def _started_worker(self) -> _Worker:
        async with self._starting:
            if self._closed:
                raise SandboxFault("the sandbox is closed")
            if self._worker is None or not self._worker.alive:
                await self._drop_worker()
                self._worker = await _Worker.start(self.isolation)
                if self._closed:
                    await self._drop_worker()
                    raise SandboxFault("the sandbox is closed")
            return self._worker

    async def _drop_worker(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.stop()


class _Worker:
    """One worker process and the calls in flight in it."""

    def __init__(self, process: subprocess.Popen[bytes], ours: socket.socket) -> None:
        self._process = process
        self._socket = ours
        self._waiting: dict[int, asyncio.Future[tuple[dict[str, Any], bytes, list[bytes]]]] = {}
        self._sizes: dict[int, int] = {}
        self._sending = asyncio.Lock()
        self.alive = True
        self.report = Report(isolation="process")
        self._reader: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, isolation: Isolation) -> _Worker:
        """A worker that has said what confines it. Raises SandboxFault when that is not enough."""
        if (refusal := start.refusal(isolation)) is not None:
            raise SandboxFault(f"the sandbox refuses to run: {refusal}")
        worker = cls(*start_process(isolation))
        try:
            async with asyncio.timeout(START_S):
                worker.report = read_report(await worker._frame())
        except (OSError, EOFError, ValueError, TypeError, KeyError, AttributeError):
            await worker.stop()
            raise SandboxFault("the sandbox's worker did not start") from None
        except BaseException:
            worker._kill()
            worker._socket.close()
            worker._process.wait()
            raise
        if worker.report.isolation != isolation or worker.report.refusal is not None:
            await worker.stop()
            raise SandboxFault(f"the sandbox refuses to run: {worker.report.refusal or 'it is not the one asked for'}")
        worker._reader = asyncio.get_running_loop().create_task(worker._read())
        return worker

    async def call(self, header: dict[str, Any], payload: bytes) -> list[Outcome | SandboxFault]:
        future = asyncio.get_running_loop().create_future()
        self._waiting[header["id"]] = future
        self._sizes[header["id"]] = header["n_calls"]
        try:
            await self._send(json.dumps(header).encode(), payload)
            async with asyncio.timeout(header["timeout_s"] * header["n_calls"] + _GRACE_S):
                answer, output, bodies = await future
        except TimeoutError:
            self._kill()
            raise SandboxFault("the sandbox's worker stopped answering and was killed") from None
        except asyncio.CancelledError:
            with contextlib.suppress(SandboxFault):
                await self._send(json.dumps({"op": "cancel", "id": header["id"]}).encode())
            raise
        finally:
            self._waiting.pop(header["id"], None)
            self._sizes.pop(header["id"], None)
        missing = header["n_calls"] - len(bodies)
        found = [_outcome(body, output, wall_s) for body, wall_s in zip(bodies, answer["wall_s"], strict=True)]
        return [*found, *(SandboxFault(answer["fault"]) for _ in range(missing))]

    async def stop(self) -> None:
        self.alive = False
        self._kill()
        if self._reader is not None:
            self._reader.cancel()
            if not self._reader.done():
                await asyncio.wait([self._reader])
        self._socket.close()
        await asyncio.to_thread(self._process.wait)

    def _kill(self) -> None:
        """The worker's children die with it (Linux), or when they see their socket closed (elsewhere)."""
        self.alive = False
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGKILL)

    async def _send(self, *frames: bytes) -> None:
        data = b"".join(LENGTH.pack(len(frame)) + frame for frame in frames)
        try:
            async with self._sending:
                await asyncio.get_running_loop().sock_sendall(self._socket, data)
        except OSError as error:
            self.alive = False
            raise SandboxFault(f"the sandbox's worker is gone ({error})") from None

    async def _read(self) -> None:
        try:
            while True:
                header = _response(await self._frame())
                output = await self._frame()
                bodies = [await self._frame() for _ in header["wall_s"]]
                future = self._waiting.get(header["id"])
                if future is None or future.done():
                    continue
                n_calls = self._sizes[header["id"]]
                if len(bodies) > n_calls or (len(bodies) < n_calls) != (header["fault"] is not None):
                    raise ValueError("not as many answers as calls")
                future.set_result((header, output, bodies))
        except (OSError, EOFError):
            pass
        except (ValueError, RecursionError):
            self._kill()
        finally:
            self.alive = False
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(SandboxFault("the sandbox's worker died"))

    async def _frame(self) -> bytes:
        (length,) = LENGTH.unpack(await self._exactly(LENGTH.size))
        if length > MAX_FRAME_BYTES:
            raise ValueError("a frame larger than any answer")
        return await self._exactly(length)

    async def _exactly(self, count: int) -> bytes:
        loop = asyncio.get_running_loop()
        data = b""
        while len(data) < count:
            chunk = await loop.sock_recv(self._socket, count - len(data))
            if not chunk:
                raise EOFError
            data += chunk
        return data


def _response(frame: bytes) -> dict[str, Any]:
    """A response's header; raises ValueError for anything else, though the worker is ours: its children are not."""
    found = json.loads(frame)
    if not isinstance(found, dict) or set(found) != {"id", "fault", "wall_s"} or type(found["id"]) is not int:
        raise ValueError("not a response")
    is_sound = found["fault"] is None or isinstance(found["fault"], str)
    walls = found["wall_s"]
    if not is_sound or type(walls) is not list or len(walls) > MAX_GROUP or any(type(w) is not float for w in walls):
        raise ValueError("not a response")
    return found


def _outcome(body: bytes, output: bytes, wall_s: float) -> Outcome | SandboxFault:
    """The child's answer, which is untrusted: anything but the expected shape is a fault."""
    try:
        found = json.loads(body)
        kind, error = found.get("type"), found.get("error")
        trace = found.get("traceback")
        is_sound = all(entry is None or isinstance(entry, str) for entry in (kind, error, trace))
        if not is_sound or (kind is None) == (error is None):
            raise ValueError
    except (ValueError, AttributeError, RecursionError):
        return SandboxFault("it answered with something that is not a result")
    return Outcome(
        value=found.get("value"),
        kind=kind,
        error=error,
        traceback=trace,
        output=output.decode("utf-8", "replace"),
        wall_s=wall_s,
    )
