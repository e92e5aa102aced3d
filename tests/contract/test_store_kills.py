"""`kill -9` at random moments, over and over: what was acknowledged is there, and whole."""

from __future__ import annotations

import itertools
import random
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy

from agentrft.store import open_store

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]

ROUNDS = 12
Start = Callable[[str, str, int], "subprocess.Popen[str]"]


def acks_until_killed(processes: list[subprocess.Popen[str]], after_s: float) -> list[list[str]]:
    """Lines that each process printed; all are killed `after_s` seconds after the last one got going."""
    first = []
    for process in processes:
        assert process.stdout
        first.append(process.stdout.readline())
    time.sleep(after_s)
    for process in processes:
        process.kill()
    # A line that the kill cut short was not acknowledged.
    rest = [process.communicate()[0] for process in processes]
    return [
        [line for line in (start + more).splitlines(keepends=True) if line.endswith("\n")]
        for start, more in zip(first, rest, strict=True)
    ]


def check_integrity(store_url: str) -> None:
    """SQLite's own opinion of the file; PostgreSQL has checksums on every page it reads."""
    if store_url.startswith("sqlite"):
        store = open_store(store_url)
        with store.database.engine.connect() as connection:
            assert connection.execute(sqlalchemy.text("PRAGMA integrity_check")).scalars().all() == ["ok"]
        store.close()


def test_what_was_acknowledged_survives_kills(store_url: str, start_worker: Start, make_record: Any) -> None:
    # The status worker starts and ends at `queued` or `running`, whatever the kill did.
    rng = random.Random(0)
    store = open_store(store_url)
    store.create_job({"id": "ftjob-a"})
    store.set_job_status("ftjob-a", "queued")
    acked: list[list[str]] = []
    for round_number in range(ROUNDS):
        processes = [start_worker(f"r{round_number}{letter}", "write", 100_000) for letter in "ab"]
        if store.get_job("ftjob-a")["status"] == "running":
            store.set_job_status("ftjob-a", "queued")
        processes.append(start_worker(f"r{round_number}c", "status", 100_000))
        lines = acks_until_killed(processes, rng.uniform(0.0, 0.5))
        acked += [line.split() for line in [*lines[0], *lines[1]]]
        assert lines[2], "the status worker got nothing done"
    check_integrity(store_url)

    events = store.list_events("ftjob-a")
    messages = {event["message"] for event in events}
    metrics = {row["step"]: row["metrics"] for row in store.list_metrics("ftjob-a")}
    assert len(acked) > ROUNDS * 10
    for name, kind, number in acked:
        i = int(number)
        if kind == "event":
            assert f"{name} {i}" in messages
        elif kind == "metrics":
            assert metrics[i][name] == i
        else:
            for k in range(3):
                assert store.get_episode(f"ep_{name}_{i}_{k}") == make_record("ftjob-a", f"ep_{name}_{i}_{k}", step=i)

    # A status and its event are one transaction: replaying the events gives the legal history that ends in the status.
    changes = [event["data"] for event in events if event["message"].startswith("Job is now")]
    assert all(before["status"] == after["from"] for before, after in itertools.pairwise(changes))
    assert changes[-1]["status"] == store.get_job("ftjob-a")["status"]
    store.close()


def test_no_step_is_committed_twice_however_owners_die(store_url: str, start_worker: Start) -> None:
    # Three owners after one another claim the job while the last one still writes; all are killed at random moments.
    # Only the token keeps them apart (their leases are over when they start).
    rng = random.Random(1)
    store = open_store(store_url)
    store.create_job({"id": "ftjob-a"})
    committed: list[int] = []
    for round_number in range(ROUNDS):
        processes = [start_worker(f"r{round_number}{letter}", "fenced", 100_000) for letter in "abc"]
        for lines in acks_until_killed(processes, rng.uniform(0.0, 0.5)):
            committed += [int(line) for line in lines if line.strip() != "stale"]
    check_integrity(store_url)
    steps = [row["step"] for row in store.list_metrics("ftjob-a")]
    assert len(committed) == len(set(committed)), "one step was acknowledged to two owners"
    assert set(committed) <= set(steps)
    assert steps == list(range(len(steps)))
    # Acknowledged or cut off right after the commit: at most one a process.
    assert len(steps) - len(committed) <= 3 * ROUNDS
    assert len(committed) > ROUNDS
    store.close()
