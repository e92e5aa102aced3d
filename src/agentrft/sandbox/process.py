"""Untrusted Python functions, each call in a fresh process: reward integrity at about two milliseconds a call.

One warm interpreter (`worker.py`, started with a clean environment and no user site) forks one child per call. A child
has its own session, a wall-clock limit enforced by SIGKILL to its process group, limits on processor time, memory, open
files and file size, no core dumps, no descriptors but its own, and answers once, in a frame with a random nonce. What
one model output does to its interpreter is gone with the child, so it cannot touch the next grade.

What this does NOT stop (that is the confined sandbox's job, not this module's): reading and writing files that the user
running agentrft may read and write, the network, starting processes that detach themselves from the group, reading the
nonce out of the child's own memory to forge its own grade, kernel exploits. So: graders are trusted code here, and
model output is data to them. macOS does not enforce every limit. There is no Windows version (no fork).
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
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentrft.errors import SandboxFault

_WORKER = Path(__file__).with_name("worker.py")
_LENGTH = struct.Struct(">I")
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
    """What the call printed, 64 kB at most."""
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

    def __init__(self, *, max_children: int | None = None, memory_bytes: int = 2_000_000_000) -> None:
        self._max_children = max_children or max(2, os.cpu_count() or 2)
        self._slots = asyncio.Semaphore(self._max_children)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._memory_bytes = memory_bytes
        self._worker: _Worker | None = None
        self._ids = itertools.count()
        self._closed = False

    async def call(self, program: Program, arguments: Sequence[Any], *, timeout_s: float) -> Outcome:
        """`program.function(*arguments)` in a fresh process; what the code itself raises is in the outcome.

        Arguments must be JSON-able (else TypeError or ValueError). Raises SandboxFault for a timeout, a death, a broken
        protocol or a closed server; the message starts with "it" or names the part.
        """
        request = {
            "source": program.source,
            "function": program.function,
            "filename": program.filename,
            "arguments": list(arguments),
        }
        payload = json.dumps(request).encode()
        if self._loop is not asyncio.get_running_loop():
            self._loop = asyncio.get_running_loop()
            self._slots = asyncio.Semaphore(self._max_children)
        async with self._slots:
            if self._closed:
                raise SandboxFault("the sandbox is closed")
            if self._worker is None or not self._worker.alive:
                await self._drop_worker()
                self._worker = _Worker()
            header = {
                "op": "call",
                "id": next(self._ids),
                "nonce": secrets.token_hex(8),
                "timeout_s": timeout_s,
                "memory_bytes": self._memory_bytes,
                "imports": list(program.imports),
            }
            return await self._worker.call(header, payload)

    async def close(self) -> None:
        """Stop the worker and every call in it; these end with SandboxFault."""
        self._closed = True
        await self._drop_worker()

    async def _drop_worker(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.stop()


class _Worker:
    """One worker process and the calls in flight in it."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-s", "-P", str(_WORKER), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=_clean_environment(),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        ours.setblocking(False)
        self._socket = ours
        self._waiting: dict[int, asyncio.Future[tuple[dict[str, Any], bytes, bytes]]] = {}
        self._sending = asyncio.Lock()
        self.alive = True
        self._reader = asyncio.get_running_loop().create_task(self._read())

    async def call(self, header: dict[str, Any], payload: bytes) -> Outcome:
        future = asyncio.get_running_loop().create_future()
        self._waiting[header["id"]] = future
        try:
            await self._send(json.dumps(header).encode(), payload)
            async with asyncio.timeout(header["timeout_s"] + _GRACE_S):
                answer, body, output = await future
        except TimeoutError:
            self._kill()
            raise SandboxFault("the sandbox's worker stopped answering and was killed") from None
        except asyncio.CancelledError:
            with contextlib.suppress(SandboxFault):
                await self._send(json.dumps({"op": "cancel", "id": header["id"]}).encode())
            raise
        finally:
            self._waiting.pop(header["id"], None)
        if answer["fault"] is not None:
            raise SandboxFault(answer["fault"])
        return _outcome(body, output, answer["wall_s"])

    async def stop(self) -> None:
        self.alive = False
        self._kill()
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
        data = b"".join(_LENGTH.pack(len(frame)) + frame for frame in frames)
        try:
            async with self._sending:
                await asyncio.get_running_loop().sock_sendall(self._socket, data)
        except OSError as error:
            self.alive = False
            raise SandboxFault(f"the sandbox's worker is gone ({error})") from None

    async def _read(self) -> None:
        try:
            while True:
                header = json.loads(await self._frame())
                body, output = await self._frame(), await self._frame()
                future = self._waiting.get(header["id"])
                if future is not None and not future.done():
                    future.set_result((header, body, output))
        except (OSError, EOFError):
            pass
        finally:
            self.alive = False
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(SandboxFault("the sandbox's worker died"))

    async def _frame(self) -> bytes:
        (length,) = _LENGTH.unpack(await self._exactly(_LENGTH.size))
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


def _outcome(body: bytes, output: bytes, wall_s: float) -> Outcome:
    """The child's answer, which is untrusted: anything but the expected shape is a fault."""
    try:
        found = json.loads(body)
        kind, error = found.get("type"), found.get("error")
        trace = found.get("traceback")
        is_sound = all(entry is None or isinstance(entry, str) for entry in (kind, error, trace))
        if not is_sound or (kind is None) == (error is None):
            raise ValueError
    except (ValueError, AttributeError, RecursionError):
        raise SandboxFault("it answered with something that is not a result") from None
    return Outcome(
        value=found.get("value"),
        kind=kind,
        error=error,
        traceback=trace,
        output=output.decode("utf-8", "replace"),
        wall_s=wall_s,
    )


def _clean_environment() -> dict[str, str]:
    """Nothing of ours: no keys, no PYTHONPATH.

    One thread for BLAS, because children share the cores; a fixed hash seed, because graders that walk over sets should
    give the same grade after a restart (which is why the worker runs with `-s -P` instead of `-I`, that ignores it).
    """
    one_thread = {f"{name}_NUM_THREADS": "1" for name in ("OPENBLAS", "OMP", "MKL")}
    return {"PATH": os.defpath, "LANG": "C.UTF-8", "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", **one_thread}
