"""Real worker processes on the tiny model: killed, paused, stopped, cancelled and orphaned in the middle of a step."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any

import psutil
import pytest

from agentrft.jobs import control
from agentrft.jobs.service import job_folder
from agentrft.runtime import processes
from agentrft.runtime.local import LocalRuntime
from agentrft.runtime.worker import LOST, MAX_LOG_BYTES, shorten

pytestmark = pytest.mark.timeout(180)


def test_kill_pause_damage_and_sigterm_do_not_reach_the_weights(bench: Any, graded_job: Any, grader: Any) -> None:
    path = graded_job(steps=4)
    expected = bench.undisturbed(path)
    job = bench.job(path)
    bench.until(lambda: 0 in bench.steps(job))
    grader.hold_s = 0.3
    in_a_step(bench, grader)
    os.kill(bench.pid, signal.SIGKILL)
    bench.until(lambda: "The job starts again: its worker ended with signal 9" in " ".join(bench.messages(job)))

    bench.until(lambda: bench.steps(job)[-1] > 0)
    in_a_step(bench, grader)
    asked_s = time.monotonic()
    bench.store.ask(job, "pause")
    bench.until_status(job, "paused")
    assert time.monotonic() - asked_s < 30
    saved_everything(bench, job)
    bench.until_left()
    assert bench.store.get_job(job)["owner"] is None

    # The newest checkpoint is damaged meanwhile: it is set aside, and the one before it serves.
    damaged, before = bench.steps(job)[-1], bench.steps(job)[-2]
    weights = job_folder(job) / "checkpoints" / f"step-{damaged:08d}" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    control.resume(bench.store, job)
    in_a_step(bench, grader)
    assert bench.messages(job)[-1] == f"Resuming after step {before}."
    assert (job_folder(job) / "checkpoints" / f"bad-step-{damaged:08d}").is_dir()
    asked_s = time.monotonic()
    os.kill(bench.pid, signal.SIGTERM)
    while bench.runtime.workers():
        time.sleep(0.05)
    assert time.monotonic() - asked_s < 30
    [ended] = bench.runtime.ended()
    assert ended.code == 0, ended
    assert bench.status(job) == "queued"
    assert bench.steps(job)[-1] >= before

    grader.hold_s = 0.0
    bench.until_status(job, "succeeded", "failed")
    assert bench.status(job) == "succeeded", bench.account()
    assert bench.adapter(job) == expected
    assert bench.store.get_job(job)["restarts"] == 0


def in_a_step(bench: Any, grader: Any) -> None:
    """Passes until a worker has episodes graded, and then some."""
    before = grader.answered
    bench.until(lambda: bench.runtime.workers() and grader.answered >= before + 3)


def saved_everything(bench: Any, job: str) -> None:
    """The newest checkpoint is of the last step that the metrics know."""
    trained = [entry["step"] for entry in bench.store.list_metrics(job) if "reward_mean" in entry["metrics"]]
    assert bench.steps(job)[-1] == max(trained, default=0)


def test_a_worker_makes_the_checks_that_the_create_call_had_no_time_for(
    bench: Any, graded_job: Any, grader: Any
) -> None:
    good = bench.job(graded_job("good"), status="validating_files")
    path = graded_job("bad")
    rows = path.parent / "data" / "train.jsonl"
    rows.write_text(rows.read_text().replace('"messages"', '"massages"', 1))
    bad = bench.job(path, status="validating_files")
    bench.boot(concurrency=0)
    bench.until_status(bad, "failed")
    bench.until_status(good, "queued")
    error = bench.store.get_job(bad)["error"]
    assert (error["code"], error["param"]) == ("invalid_row", "data.train")
    assert "train.jsonl, line 1" in error["message"]
    bench.until_left()
    assert bench.store.get_job(good)["owner"] is None


def test_a_cancelled_jobs_worker_leaves_by_itself_and_writes_no_more(bench: Any, graded_job: Any, grader: Any) -> None:
    bench.runtime = LocalRuntime(threads=1, nice=3)
    bench.boot()
    job = bench.job(graded_job(steps=6))
    bench.until(lambda: bench.store.list_checkpoints(job))
    assert psutil.Process(bench.pid).nice() == psutil.Process().nice() + 3
    grader.hold_s = 60.0
    time.sleep(0.5)
    control.cancel(bench.store, job)
    events = len(bench.messages(job))
    asked_s = time.monotonic()
    while bench.runtime.workers():
        time.sleep(0.05)
    assert time.monotonic() - asked_s < 15
    [ended] = bench.runtime.ended()
    assert ended.code == LOST
    assert len(bench.messages(job)) == events
    assert bench.store.list_checkpoints(job)
    bench.scheduler.attend()
    assert bench.status(job) == "cancelled"


def test_a_worker_whose_server_died_is_adopted_and_goes_on(bench: Any, graded_job: Any, grader: Any) -> None:
    # The server is another process, which starts the worker and is killed.
    job = bench.job(graded_job(steps=3))
    grader.hold_s = 0.3
    code = (
        "import time\n"
        "from agentrft.runtime.local import LocalRuntime\n"
        "from agentrft.runtime.processes import this_owner\n"
        "from agentrft.runtime.scheduler import Scheduler\n"
        "from agentrft.store import open_store\n"
        "scheduler = Scheduler(open_store(), LocalRuntime(threads=1), owner=this_owner())\n"
        "while True:\n    scheduler.attend()\n    time.sleep(0.05)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as server:
        end_s = time.monotonic() + 60
        while grader.answered < 2 and time.monotonic() < end_s:
            time.sleep(0.05)
        server.kill()
    owner = bench.store.get_job(job)["owner"]
    pid = processes.pid_of(owner)
    assert pid is not None
    later = bench.job(graded_job("later", steps=1))
    bench.scheduler.attend()
    bench.scheduler.attend()
    assert [worker.job_id for worker in bench.runtime.workers()] == [job]
    assert bench.status(later) == "queued"  # one at a time, and the orphan counts
    grader.hold_s = 0.0
    bench.until_status(job, "succeeded", "failed")
    assert bench.status(job) == "succeeded", bench.account()
    assert not any("starts again" in message for message in bench.messages(job))
    bench.until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    bench.until_status(later, "succeeded")


def test_a_worker_with_an_old_token_changes_nothing(bench: Any, graded_job: Any) -> None:
    job = bench.job(graded_job(steps=1))
    _, token = bench.store.claim_next("elsewhere:1:x", 600.0)
    bench.store.claim_job(job, "elsewhere:1:x", 600.0)
    before = bench.messages(job)
    bench.runtime.start(job, token)
    while bench.runtime.workers():
        time.sleep(0.05)
    [ended] = bench.runtime.ended()
    assert ended.code == LOST
    assert "holds the older token" in ended.tail
    assert bench.messages(job) == before


@pytest.mark.soak
def test_a_worker_that_was_stopped_is_killed_by_the_one_that_takes_its_place(
    bench: Any, graded_job: Any, grader: Any
) -> None:
    job = bench.job(graded_job(steps=2))
    grader.hold_s = 0.2
    bench.until(lambda: grader.answered >= 2)
    first = bench.runtime
    os.kill(bench.pid, signal.SIGSTOP)
    # Another server finds the lease over, and does not know the process.
    open_job = bench.store.get_job(job)
    assert bench.store.requeue(job, "taken over", token=bench.worker.token)
    bench.runtime = LocalRuntime(threads=1)
    bench.boot()
    grader.hold_s = 0.0
    bench.until_status(job, "succeeded", "failed")
    assert bench.status(job) == "succeeded", bench.account()
    assert processes.is_gone(open_job["owner"])
    assert [ended.signal for ended in first.ended()] == [signal.SIGKILL]


def test_a_log_that_grows_is_kept_short(tmp_path: Any) -> None:
    log = tmp_path / "worker.log"
    with log.open("ab") as output:
        output.write(b"x" * MAX_LOG_BYTES + b"y\n")
        output.flush()
        shorten(log)
        output.write(b"after\n")
    text = log.read_bytes()
    assert text.startswith(b"(earlier lines were dropped)\n")
    assert text.endswith(b"xy\nafter\n")
    assert len(text) < MAX_LOG_BYTES / 2
