"""The engine process: answers chat requests on a Unix socket until its parent is gone or it gets SIGTERM.

    python -m agentrft.runtime.serving --socket PATH

Whoever can open the socket can ask, so it lies in a folder that only its owner may enter. A request that fails costs
only itself. Closing a connection cancels its request. At the end requests under way get an error event, nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import stat
import sys
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

import psutil

from agentrft.errors import BoundaryError, EngineFault, UserError
from agentrft.runtime.processes import be_nice_as_a_session
from agentrft.runtime.serving.models import Bounds, Models
from agentrft.runtime.serving.reply import play
from agentrft.runtime.serving.wire import MAX_LINE_BYTES, error_line, event_line, read_request

_LOG = logging.getLogger(__name__)
_LONGEST_SOCKET_PATH = 100
"""Bytes; the kernel takes 107 on Linux, 103 on macOS."""
_LOOK_FOR_PARENT_S = 0.5
_GOODBYE_S = 2.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until the end; returns the exit code."""
    options = _parser().parse_args(arguments)
    # Before anything loads torch. Threads that spin while they wait take the cores from a training job beside this
    # process, and wait for each other's turn: on a busy machine a pass then takes minutes.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if options.threads:
        os.environ["OMP_NUM_THREADS"] = str(options.threads)
    os.nice(options.nice)
    be_nice_as_a_session()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    bounds = Bounds(
        max_models=options.max_models,
        max_adapters=options.max_adapters,
        max_cache_bytes=options.cache_mb << 20,
        max_sequences=options.max_sequences,
        dtype=options.dtype,
    )
    try:
        asyncio.run(serve(options.socket, bounds, parent=options.parent or os.getppid()))
    except UserError as error:
        sys.stderr.write(f"{error.message}\n")
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m agentrft.runtime.serving", description="Serve models for chat.")
    parser.add_argument("--socket", type=Path, required=True, help="Unix socket to listen on")
    parser.add_argument("--parent", type=_positive, help="process to end with; default: whoever started this one")
    parser.add_argument("--max-models", type=_positive, default=2, help="models in memory at once")
    parser.add_argument("--max-adapters", type=_positive, default=32, help="adapters in memory at once, a model")
    parser.add_argument("--max-sequences", type=_positive, default=128, help="requests that decode together, a model")
    eighth = psutil.virtual_memory().total // 8 >> 20
    parser.add_argument("--cache-mb", type=_positive, default=eighth, help="keys and values, all models together")
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16"), default="auto", help="of weights")
    parser.add_argument("--nice", type=int, default=0, help="added to its niceness")
    parser.add_argument("--threads", type=_positive, help="that compute; default: what torch takes")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"got {text}, expected 1 or more")
    return value


async def serve(socket: Path, bounds: Bounds, *, parent: int) -> None:
    """Answer on `socket` until SIGTERM, SIGINT or the death of `parent`; raises UserError for a path of no use."""
    _check_path(socket)
    server = _Server(Models(bounds))
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    watching = asyncio.create_task(_watch(parent, stopping))
    former = os.umask(0o177)
    try:
        listening = await asyncio.start_unix_server(server.answer, socket, limit=MAX_LINE_BYTES)
    finally:
        os.umask(former)
    try:
        await stopping.wait()
    finally:
        watching.cancel()
        listening.close()
        await server.stop()
        await asyncio.to_thread(_remove, socket)


async def _watch(parent: int, stopping: asyncio.Event) -> None:
    while os.getppid() == parent:  # noqa: ASYNC110  (nobody tells an orphan that it is one)
        await asyncio.sleep(_LOOK_FOR_PARENT_S)
    stopping.set()


def _remove(socket: Path) -> None:
    """The socket, and its folder where nothing else is in it."""
    socket.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        socket.parent.rmdir()


def _check_path(socket: Path) -> None:
    if len(os.fsencode(socket)) > _LONGEST_SOCKET_PATH:
        raise UserError(f"--socket {socket} is longer than {_LONGEST_SOCKET_PATH} bytes; give a shorter path")
    socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = socket.parent.stat()
    if status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise UserError(
            f"others may enter {socket.parent} (mode {stat.S_IMODE(status.st_mode):o}), and whoever reaches the socket "
            "may ask; expected a folder of yours with mode 700: chmod 700 it, or give another"
        )
    if socket.exists():
        raise UserError(f"{socket} exists; expected a new path: another process may be serving there")


class _Server:
    """Connections, one request each."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._playing: set[asyncio.Task[None]] = set()
        self._is_stopping = False

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        playing = asyncio.create_task(self._play(reader, writer))
        self._playing.add(playing)
        try:
            await playing
        except asyncio.CancelledError:
            if not playing.cancelled():
                raise
        finally:
            self._playing.discard(playing)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def stop(self) -> None:
        """End every request with an error event, then the engines."""
        self._is_stopping = True
        playing = list(self._playing)
        for task in playing:
            task.cancel()
        if playing:
            await asyncio.wait(playing, timeout=_GOODBYE_S)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._models.close(), _GOODBYE_S)

    async def _play(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await reader.readline()
            if not line:
                return
            events = asyncio.create_task(self._write_events(line, writer))
            leaving = asyncio.create_task(reader.read(1))
            try:
                await asyncio.wait({events, leaving}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await _end(events, leaving)
            events.result()
        except (ConnectionError, asyncio.CancelledError):
            if self._is_stopping:
                await _say(writer, EngineFault("the engine process is stopping"))
        except (UserError, BoundaryError) as error:
            await _say(writer, error)
        except ValueError as error:  # what a line without an end comes as
            await _say(writer, UserError(f"the request cannot be read: {error}"))
        except Exception as error:
            _LOG.exception("a request failed")
            await _say(writer, error)

    async def _write_events(self, line: bytes, writer: asyncio.StreamWriter) -> None:
        async with aclosing(play(self._models, read_request(line))) as events:
            async for event in events:
                writer.write(event_line(event))
                await writer.drain()


async def _end(*tasks: asyncio.Task[object]) -> None:
    """Cancel what still runs, and wait for it."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def _say(writer: asyncio.StreamWriter, error: Exception) -> None:
    with contextlib.suppress(OSError, TimeoutError):
        writer.write(error_line(error))
        await asyncio.wait_for(writer.drain(), _GOODBYE_S)
