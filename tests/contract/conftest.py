"""What the store's contract suite runs over: every database that a store can lie in."""

from __future__ import annotations

import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentrft.protocols import EpisodeRecord
from agentrft.store import SqlStore, open_store
from agentrft.testing import FakeClock

WORKER = Path(__file__).parent / "store_worker.py"


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty database, once of each kind."""
    if request.param == "postgres":
        return request.getfixturevalue("postgres_url")
    return f"sqlite:///{tmp_path / 'store.db'}"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(store_url: str, clock: FakeClock) -> Iterator[SqlStore]:
    """An open store with the job `ftjob-a` in it."""
    store = open_store(store_url, clock=clock)
    store.create_job({"id": "ftjob-a", "model": "m"})
    yield store
    store.close()


@pytest.fixture(scope="session")
def make_record() -> Callable[..., EpisodeRecord]:
    return runpy.run_path(str(WORKER))["make_record"]


@pytest.fixture
def start_worker(store_url: str) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `store_worker.py` on the store; what still runs at the test's end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(name: str, mode: str, count: int) -> subprocess.Popen[str]:
        command: list[Any] = [sys.executable, "-W", "error", WORKER, store_url, "ftjob-a", name, mode, str(count)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()
