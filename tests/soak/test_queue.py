"""3,000 jobs through the real service and store, three servers that share it, and kill -9: none lost, none doubled."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentrft.jobs.load import load_job
from agentrft.jobs.service import create_job
from agentrft.store import SqlStore, open_store
from agentrft.testing.worker import final_weights

JOBS = 3000
SERVERS = 3
KILLS = 90
"""One after every so many jobs that have ended."""
SERVER = Path(__file__).with_name("queue_server.py")
EXAMPLE = Path(__file__).parents[2] / "examples" / "filenav" / "job.yaml"

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store."""
    if request.param == "postgresql":
        return request.getfixturevalue("postgres_url")
    return f"sqlite:///{tmp_path / 'store.db'}"


@pytest.fixture
def store(store_url: str) -> Iterator[SqlStore]:
    one = open_store(store_url)
    yield one
    one.close()


def test_no_job_is_lost_or_run_twice(store: SqlStore, store_url: str, tmp_path: Path) -> None:
    log, rng = tmp_path / "commits.log", random.Random(0)
    spec, base_dir = load_job(EXAMPLE)
    # A third waits already when the servers start; the others come while they work and die.
    names = (spec.model_copy(update={"seed": n}) for n in range(JOBS))
    extra = {"runner": "server", "status": "queued"}
    acked = [create_job(store, next(names), base_dir, extra=extra).id for _ in range(JOBS // 3)]
    command = [sys.executable, str(SERVER), store_url, str(log)]
    servers = [subprocess.Popen(command) for _ in range(SERVERS)]
    kills, end_s = 0, time.monotonic() + 1500
    try:
        while not is_done(store, acked):
            assert time.monotonic() < end_s, store.count_jobs()
            until_s = time.monotonic() + 0.2
            while time.monotonic() < until_s and len(acked) < JOBS:
                acked.append(create_job(store, next(names), base_dir, extra=extra).id)
            time.sleep(max(until_s - time.monotonic(), 0.0))
            if store.count_jobs().get("succeeded", 0) * KILLS >= (kills + 1) * JOBS:
                time.sleep(rng.uniform(0.0, 0.2))
                place = kills % SERVERS
                servers[place].kill()
                servers[place].wait()
                kills += 1
                servers[place] = subprocess.Popen(command)
    finally:
        for server in servers:
            server.kill()
            server.wait()
    check(store, acked, log)
    assert kills >= KILLS - 1
    sys.stdout.write(f"{len(acked)} jobs, {kills} kills, {restarts(store, acked)} restarts\n")


def is_done(store: SqlStore, acked: list[str]) -> bool:
    return len(acked) == JOBS and store.count_jobs() == {"succeeded": JOBS}


def check(store: SqlStore, acked: list[str], log: Path) -> None:
    """Every acknowledged job ran to its end once, and no write under an older token came after one under a newer."""
    assert len(set(acked)) == JOBS
    newest: dict[str, int] = {}
    for line in log.read_text().splitlines():
        job_id, token, _ = line.split()
        assert int(token) >= newest.setdefault(job_id, int(token)), f"{job_id}: two workers at once"
        newest[job_id] = int(token)
    for job_id in acked:
        job: dict[str, Any] = store.get_job(job_id)
        assert (job["status"], job["fine_tuned_model"]) == ("succeeded", final_weights(2))
        endings = Counter(event["message"] for event in store.list_events(job_id))
        assert endings["Job is now succeeded"] == 1


def restarts(store: SqlStore, acked: list[str]) -> int:
    found = (event for job_id in acked for event in store.list_events(job_id))
    return sum(event["message"].startswith("The job starts again") for event in found)
