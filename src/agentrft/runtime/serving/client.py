"""The engine process as its parent sees it: started when it is needed, started again after a crash. Needs no torch."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import IO

from agentrft.errors import EngineFault, UserError
from agentrft.net.last_words import end_of, without_secrets
from agentrft.runtime.machine import INSTALL_TORCH, missing_torch_packages
from agentrft.runtime.serving.wire import (
    MAX_LINE_BYTES,
    ChatEvent,
    ChatRequest,
    Ended,
    check_bundle,
    read_event,
    request_line,
)

_LOOK_S = 0.02
_MAX_BACKOFF_S = 30.0
"""How often to look whether a process that was started listens."""
_STOP_S = 10.0
_MOMENT_S = 1.0
_SHOWN_LOG_BYTES = 800


class EngineClient:
    """Plays chat requests in an engine process of its own.

    After a crash the process is started again with the next request: at once the first time, then after a wait that
    doubles until a request succeeds. Requests that a crash hits end with EngineFault; they are not tried again, since
    one of them may be its cause.
    """

    def __init__(
        self,
        *,
        max_models: int = 2,
        max_adapters: int = 32,
        threads: int | None = None,
        nice: int = 0,
        cache_mb: int | None = None,
        dtype: str = "auto",
        start_timeout_s: float = 60.0,
        backoff_s: float = 1.0,
    ) -> None:
        self._options = ["--max-models", str(max_models), "--max-adapters", str(max_adapters)]
        self._options += ["--dtype", dtype, "--nice", str(nice)]
        if cache_mb is not None:
            self._options += ["--cache-mb", str(cache_mb)]
        if threads is not None:
            self._options += ["--threads", str(threads)]
        self._start_timeout_s = start_timeout_s
        self._backoff_s = backoff_s
        self._starting = asyncio.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self._log: IO[bytes] | None = None
        """What the process says on stdout and stderr."""
        self._crashes = 0
        """Since a request succeeded."""
        self._not_before = 0.0
        """The event loop's time before which the process is not started again."""
        self._closed = False
        self.starts = 0
        """How often the process was started."""

    @property
    def pid(self) -> int | None:
        """Of the process, or None when it does not run."""
        return self._process.pid if self._is_alive() and self._process is not None else None

    async def start(self) -> None:
        """Have the process running and listening.

        Raises UserError (`torch_missing`) without torch, EngineFault when it cannot be started.
        """
        async with self._starting:
            if self._closed:
                raise EngineFault("the engine client is closed")
            if self._is_alive():
                return
            if missing := missing_torch_packages():
                raise UserError(
                    f"playing a model needs an engine, and {', '.join(missing)} is not installed. Install it: "
                    f"{INSTALL_TORCH}",
                    param="model",
                    code="torch_missing",
                )
            self._note_crash()
            await asyncio.sleep(max(0.0, self._not_before - asyncio.get_running_loop().time()))
            await self._spawn()

    async def chat(self, request: ChatRequest) -> AsyncGenerator[ChatEvent, None]:
        """The events of one reply, `Ended` last; closing the iterator early cancels it.

        Raises UserError for a request that cannot be played, also when the caller's bundle is not the model's, and
        EngineFault when the engine failed.
        """
        check_bundle(request)
        line = request_line(request)
        if len(line) > MAX_LINE_BYTES:
            raise UserError(f"the request has {len(line)} bytes, expected at most {MAX_LINE_BYTES}", param="messages")
        reader, writer = await self._connect()
        try:
            writer.write(line)
            await writer.drain()
            while True:
                event = read_event(await self._line(reader))
                self._crashes = 0
                yield event
                if isinstance(event, Ended):
                    return
        except ConnectionError as error:
            raise await self._died() from error
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def close(self) -> None:
        """End the process; requests under way end with EngineFault. Safe to call twice."""
        self._closed = True
        async with self._starting:
            if self._process is not None:
                self._process.send_signal(signal.SIGTERM)
                await asyncio.to_thread(_wait, self._process)
                self._process = None
            if self._log is not None:
                self._log.close()
                self._log = None
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)

    def _is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _note_crash(self) -> None:
        """Count a process that has ended by itself."""
        if self._process is None:
            return
        self._process = None
        self._crashes += 1
        wait_s = 0.0 if self._crashes == 1 else min(self._backoff_s * 2 ** (self._crashes - 2), _MAX_BACKOFF_S)
        self._not_before = asyncio.get_running_loop().time() + wait_s

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        for attempt in (1, 2):
            await self.start()
            try:
                return await asyncio.open_unix_connection(self._socket(), limit=MAX_LINE_BYTES)
            except OSError as error:
                # It died since it was looked at; nothing was sent, so the request may have a second process.
                if attempt == 2 or not await asyncio.to_thread(_has_ended, self._process):
                    raise await self._died() from error
        raise AssertionError("unreachable")

    async def _line(self, reader: asyncio.StreamReader) -> bytes:
        line = await reader.readline()
        if not line.endswith(b"\n"):
            raise await self._died()
        return line

    async def _died(self) -> EngineFault:
        process = self._process
        ended = process is not None and await asyncio.to_thread(_has_ended, process)
        how = f"ended with exit code {process.returncode}" if process and ended else "closed the connection"
        return EngineFault(f"the engine process {how}{self._last_words()}; it is started again with the next request")

    def _last_words(self) -> str:
        if self._log is None:
            return ""
        # Read at a place of its own: the process writes where the file stands.
        size = os.fstat(self._log.fileno()).st_size
        begin = max(0, size - _SHOWN_LOG_BYTES)
        tail = os.pread(self._log.fileno(), _SHOWN_LOG_BYTES, begin)
        text = without_secrets(end_of(tail, is_cut=begin > 0), {})
        return f" (it last said: {text})" if text else ""

    def _socket(self) -> Path:
        assert self._folder is not None
        return self._folder / f"{self.starts}.sock"

    async def _spawn(self) -> None:
        if self._folder is None:
            # In the system's folder, because a socket's path may not be long; mkdtemp lets nobody else in.
            self._folder = Path(tempfile.mkdtemp(prefix="agentrft-engine-"))
        self.starts += 1
        process = self._process = self._launch()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._start_timeout_s
        while not await self._listens():
            if process.poll() is not None:
                raise EngineFault(f"the engine process did not start: code {process.returncode}{self._last_words()}")
            if loop.time() > deadline:
                process.kill()
                raise EngineFault(f"the engine process did not listen within {self._start_timeout_s:g} s")
            await asyncio.sleep(_LOOK_S)

    def _launch(self) -> subprocess.Popen[bytes]:
        where = ["--socket", str(self._socket()), "--parent", str(os.getpid())]
        command = [sys.executable, "-m", "agentrft.runtime.serving", *where, *self._options]
        if self._log is not None:
            self._log.close()
        # Without a name, so that nothing of it is left whoever dies first.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (open as long as the process)
        # A session of its own: Ctrl-C is for the parent, which ends it in order.
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, start_new_session=True
        )

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_unix_connection(self._socket())
        except OSError:
            return False
        writer.close()
        return True


def _has_ended(process: subprocess.Popen[bytes] | None) -> bool:
    """Whether it ends within a moment: its sockets go before it does."""
    if process is None:
        return True
    try:
        process.wait(_MOMENT_S)
    except subprocess.TimeoutExpired:
        return False
    return True


def _wait(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
