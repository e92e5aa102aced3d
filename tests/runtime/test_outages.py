"""What fails outside pauses a job, which goes on by itself: real workers, a real web service, a real full disk."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentrft.jobs import control
from agentrft.jobs.service import job_folder

pytestmark = pytest.mark.timeout(180)


def test_a_job_waits_for_its_grader_and_goes_on_within_10_s(bench: Any, graded_job: Any, grader: Any) -> None:
    path = graded_job(steps=3)
    expected = bench.undisturbed(path)
    job = bench.job(path)
    bench.until(lambda: 0 in bench.steps(job))
    grader.is_down = True
    bench.until_status(job, "paused")
    pid, error = bench.pid, bench.store.get_job(job)["error"]
    assert error["code"] == "grader"
    assert "Nothing was learnt from them" in error["message"]

    # Meanwhile it can be paused for good, and resumed.
    bench.store.ask(job, "pause")
    bench.until_left()
    found = bench.store.get_job(job)
    assert (found["status"], found["wish"], found["owner"]) == ("paused", None, None)
    control.resume(bench.store, job)
    bench.until(lambda: bench.status(job) == "running")
    bench.until_status(job, "paused")
    assert bench.pid != pid

    grader.is_down = False
    mended_s = time.monotonic()
    bench.until_status(job, "running", "succeeded")
    assert time.monotonic() - mended_s < 10
    bench.until_status(job, "succeeded", "failed")
    assert bench.status(job) == "succeeded", bench.account()
    assert bench.adapter(job) == expected
    assert any("works again after" in message for message in bench.messages(job))
    changes = [event["data"]["status"] for event in bench.store.list_events(job) if "from" in (event["data"] or {})]
    assert changes[-4:] == ["paused", "queued", "running", "succeeded"]
    assert not any(record.grade.is_fault for record in bench.store.list_episodes(job, limit=10_000))


def test_a_worker_that_waits_obeys_sigterm_and_cancel(bench: Any, graded_job: Any, grader: Any) -> None:
    job = bench.job(graded_job(steps=3))
    grader.is_down = True
    bench.until_status(job, "paused")
    os.kill(bench.pid, signal.SIGTERM)
    asked_s = time.monotonic()
    while bench.runtime.workers():
        time.sleep(0.05)
    assert time.monotonic() - asked_s < 15
    assert bench.status(job) == "queued"
    bench.until(lambda: bench.status(job) == "running")
    bench.until_status(job, "paused")
    # Resumed too early it looks at once, and is paused again.
    before = grader.failed
    control.resume(bench.store, job)
    bench.until(lambda: grader.failed > before and bench.status(job) == "paused")
    assert bench.runtime.workers()
    control.cancel(bench.store, job)
    bench.until_left()
    assert bench.status(job) == "cancelled"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 6 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("what", ["jobs", "everything"])
def test_a_full_disk_pauses_the_job_until_there_is_room(
    bench: Any, graded_job: Any, grader: Any, small_disk: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if what == "jobs":
        (bench.home / "jobs").symlink_to(small_disk)
    else:
        monkeypatch.setenv("AGENTRFT_HOME", str(small_disk))
        bench.store.close()
        bench.__init__(small_disk)
    job = bench.job(graded_job(steps=6))
    bench.until(lambda: 0 in bench.steps(job))
    ballast = small_disk / "ballast"
    fill(ballast)
    full_s = time.monotonic()
    if what == "jobs":
        bench.until_status(job, "paused")
        assert bench.store.get_job(job)["error"]["code"] == "store"
        assert "No space left" in bench.store.get_job(job)["error"]["message"]
    else:
        while time.monotonic() < full_s + 8:
            bench.scheduler.attend()
            fill(ballast)
            time.sleep(0.2)
        assert bench.status(job) == "running"  # the store can take no word either
    assert bench.runtime.workers()
    ballast.unlink()
    mended_s = time.monotonic()
    bench.until_status(job, "succeeded", "failed")
    assert bench.status(job) == "succeeded", bench.account()
    assert time.monotonic() - mended_s < 60
    assert any("Job is now paused" in message for message in bench.messages(job))
    assert any("works again" in message for message in bench.messages(job))
    assert bench.steps(job)[-1] == 6
    assert not list((job_folder(job) / "checkpoints").glob(".tmp-*"))


def fill(path: Path) -> None:
    """Write to the file until the disk is full."""
    with path.open("ab", buffering=0) as file:
        for size in (1 << 16, 1 << 10, 1):
            while True:
                try:
                    file.write(bytes(size))
                except OSError:
                    break
