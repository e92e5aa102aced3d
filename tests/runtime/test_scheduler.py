"""The scheduler over a real store, with processes that are generators and a clock that the test owns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentrft.jobs import control
from agentrft.jobs.load import parse_job
from agentrft.jobs.service import create_job
from agentrft.net.last_words import end_of
from agentrft.net.secrets import MASK
from agentrft.runtime.lease import LEASE_S
from agentrft.runtime.scheduler import STOP_GRACE_S, Scheduler
from agentrft.store import SqlStore, open_store
from agentrft.testing import FakeClock, ScriptedDisk, ScriptedMachine, ScriptedRuntime, ScriptedWorker
from agentrft.testing.worker import final_weights


class World:
    """One machine, one store, and any number of servers."""

    def __init__(self, home: Path) -> None:
        self.clock = FakeClock()
        self.store: SqlStore = open_store(home, clock=self.clock)
        self.disk = ScriptedDisk()
        self.machine = ScriptedMachine("host", ScriptedWorker(self.store, self.clock, self.disk))
        self.servers: list[tuple[Scheduler, ScriptedRuntime]] = []

    def boot(self, **options: Any) -> Scheduler:
        runtime = self.machine.boot()
        scheduler = Scheduler(self.store, runtime, self.clock, owner=runtime.owner, **options)
        self.servers.append((scheduler, runtime))
        return scheduler

    def kill_server(self, scheduler: Scheduler) -> None:
        [pair] = [pair for pair in self.servers if pair[0] is scheduler]
        self.servers.remove(pair)
        self.machine.kill_server(pair[1].owner)

    def job(self, name: str, status: str = "queued") -> str:
        self.store.create_job({"id": name, "status": status, "runner": "server", "kind": "reinforcement"})
        return name

    def go(self, passes: int = 1, seconds: float = 0.5) -> None:
        for _ in range(passes):
            for scheduler, _ in self.servers:
                scheduler.attend()
                assert scheduler.trouble is None
            self.machine.advance()
            self.clock.advance(seconds)

    def status(self, job_id: str) -> str:
        return self.store.get_job(job_id)["status"]

    def messages(self, job_id: str) -> list[str]:
        return [event["message"] for event in self.store.list_events(job_id)]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    one = World(tmp_path)
    yield one
    one.store.close()


def test_jobs_are_checked_and_run_oldest_first_and_no_more_at_once_than_allowed(world: World) -> None:
    jobs = [world.job(f"ftjob-{n}", "validating_files") for n in range(5)]
    world.boot(concurrency=2, checks=1)
    most, begun = 0, []
    for _ in range(120):
        world.go()
        running = [job for job in jobs if world.status(job) == "running"]
        begun += [job for job in running if job not in begun]
        most = max(most, len(running))
    assert [world.status(job) for job in jobs] == ["succeeded"] * 5
    assert begun == jobs
    assert most == 2
    assert {world.store.get_job(job)["fine_tuned_model"] for job in jobs} == {final_weights(6)}


def test_jobs_of_the_command_line_are_left_alone(world: World) -> None:
    world.store.create_job({"id": "ftjob-cli", "status": "queued"})
    world.boot()
    world.go(10)
    assert world.status("ftjob-cli") == "queued"
    assert not world.machine.processes


def test_a_killed_worker_is_replaced_and_goes_on_from_its_checkpoint(world: World) -> None:
    job = world.job("ftjob-a")
    world.boot()
    while not world.disk.checkpoints:
        world.go()
    world.machine.crash(world.machine.living[0])
    world.go()
    assert world.messages(job)[-3] == "The job starts again: its worker ended with signal 9."
    assert world.store.get_job(job)["restarts"] == 1
    world.go(30)
    assert world.status(job) == "succeeded"
    assert [(after, listed) for _, _, after, listed in world.disk.begun] == [(0, 0), (2, 2)]
    assert world.store.get_job(job)["fine_tuned_model"] == final_weights(6)
    assert world.store.get_job(job)["restarts"] == 0  # the checkpoint after it made good for it


def test_a_worker_that_raises_says_so_in_the_jobs_events(tmp_path: Path) -> None:
    world = World(tmp_path)

    def script(process: Any) -> Iterator[None]:
        world.store.heartbeat(process.worker.job_id, process.worker.token, LEASE_S, owner=process.owner)
        yield
        raise ZeroDivisionError("a bug of ours")

    world.machine = ScriptedMachine("host", script)
    job = world.job("ftjob-a")
    world.boot(max_restarts=2)
    world.go(20)
    found = world.store.get_job(job)
    assert found["status"] == "failed"
    assert found["error"]["code"] == "worker_crashed"
    assert "died 3 times without a new checkpoint" in found["error"]["message"]
    assert "ZeroDivisionError: a bug of ours" in found["error"]["message"]
    assert len(world.machine.processes) == 3
    again = [message for message in world.messages(job) if message.startswith("The job starts again")]
    assert len(again) == 2
    assert "its worker ended with exit code 1. It last said:\nTraceback" in again[0]
    world.store.close()


def test_what_a_worker_said_last_is_told_without_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTRFT_HOME", str(tmp_path))
    monkeypatch.setenv("JUDGE_API_KEY", "canary-of-the-environment")
    world = World(tmp_path)
    said = (
        "Bearer canary-of-the-job, {'X-Key': 'canary-of-the-job'}, canary-of-the-environment, "
        "postgresql://me:canary-of-the-store@db/jobs, sk-canary-of-somebody-else, and then"
    )

    def script(process: Any) -> Iterator[None]:
        world.store.heartbeat(process.worker.job_id, process.worker.token, LEASE_S, owner=process.owner)
        yield
        raise ZeroDivisionError(said)

    world.machine = ScriptedMachine("host", script)
    headers = {"Authorization": "Bearer canary-of-the-job"}
    tool = {"type": "http", "name": "look", "server_url": "https://tools.example/look", "headers": headers}
    document = {"model": "m", "data": {"train": "rows.jsonl"}, "agent": {"tools": [tool]}}
    job = create_job(world.store, parse_job(document), tmp_path, extra={"runner": "server"}).id
    world.boot(max_restarts=1)
    world.go(20)
    found = world.store.get_job(job)
    assert (found["status"], found["error"]["code"]) == ("failed", "worker_crashed")
    again = next(message for message in world.messages(job) if message.startswith("The job starts again"))
    clean = f"{MASK}, {{'X-Key': '{MASK}'}}, {MASK}, postgresql://{MASK}@db/jobs, {MASK}, and then"
    assert f"ZeroDivisionError: {clean}" in again
    assert f"ZeroDivisionError: {clean}" in found["error"]["message"]
    world.store.close()
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert any(b"ZeroDivisionError" in data for data in files)
    assert not any(b"canary" in data for data in files)


def test_a_word_that_is_cut_is_no_rest_of_a_secret() -> None:
    log = b"key canary-of-the-job, then more"
    assert end_of(log, is_cut=False) == "key canary-of-the-job, then more"
    assert end_of(log[8:], is_cut=True) == "then more"


def test_a_worker_that_hangs_loses_its_job_when_its_lease_has_run_out(world: World) -> None:
    job = world.job("ftjob-a")
    world.boot()
    world.go(3)
    [hung] = world.machine.living
    hung.hangs = True
    world.go(2, seconds=LEASE_S / 2)
    assert hung.lives
    world.go(2, seconds=LEASE_S / 2)
    assert not hung.lives
    assert f"its worker was silent for {LEASE_S:g} s and was killed" in " ".join(world.messages(job))
    world.go(30)
    assert world.status(job) == "succeeded"


def test_a_jump_of_the_clock_takes_no_job_from_a_worker_that_lives(world: World) -> None:
    job = world.job("ftjob-a")
    world.boot()
    world.go(3)
    world.clock._now += 86_400
    world.go(2)
    world.clock._now -= 2 * 86_400
    world.go(30)
    assert world.status(job) == "succeeded"
    assert len(world.machine.processes) == 1


def test_a_worker_outlives_its_server_and_the_next_one_watches_it(world: World) -> None:
    job, later = world.job("ftjob-a"), world.job("ftjob-b")
    first = world.boot()
    world.go(3)
    world.kill_server(first)
    world.go(1)
    [orphan] = world.machine.living
    world.boot()
    world.go(2)
    # Found again, so that it counts: one at a time.
    assert world.machine.living == [orphan]
    assert world.status(later) == "queued"
    world.machine.crash(orphan)
    world.go(40)
    assert [world.status(one) for one in (job, later)] == ["succeeded"] * 2
    assert any("its worker ended with" in message for message in world.messages(job))


def test_a_server_that_dies_before_its_worker_starts_loses_nothing(world: World) -> None:
    job = world.job("ftjob-a")
    gone = world.machine.boot()
    assert world.store.claim_next(gone.owner, LEASE_S)
    world.machine.kill_server(gone.owner)
    world.boot()
    world.go(30)
    assert world.status(job) == "succeeded"
    assert f"The job starts again: {gone.owner}, which worked on it, lives no more." in world.messages(job)


def test_what_another_machine_left_is_taken_up_when_its_lease_has_run_out(world: World) -> None:
    job = world.job("ftjob-a")
    assert world.store.claim_next("elsewhere:7:x", LEASE_S)
    world.boot()
    world.go(10)
    assert world.status(job) == "running"
    assert not world.machine.processes
    world.clock.advance(LEASE_S)
    world.go(30)
    assert world.status(job) == "succeeded"


def test_two_servers_never_run_a_job_twice(world: World) -> None:
    jobs = [world.job(f"ftjob-{n}") for n in range(8)]
    world.boot(concurrency=2)
    world.boot(concurrency=2)
    for _ in range(150):
        world.go()
        working = [process.worker.job_id for process in world.machine.living]
        assert len(working) == len(set(working)) <= 4
    assert {world.status(job) for job in jobs} == {"succeeded"}
    assert len(world.machine.processes) == 8


def test_pause_and_resume_of_jobs_that_wait_and_that_run(world: World) -> None:
    running, waiting = world.job("ftjob-a"), world.job("ftjob-b")
    world.boot()
    world.go(4)
    for job in (running, waiting):
        control.pause(world.store, job, wait_s=0.0)
    assert world.status(waiting) == "paused"
    world.go(3)
    assert world.status(running) == "paused"
    world.go(5)
    assert not world.machine.living
    for job in (running, waiting):
        control.resume(world.store, job)
    world.go(60)
    assert [world.status(job) for job in (running, waiting)] == ["succeeded"] * 2
    assert world.store.get_job(running)["fine_tuned_model"] == final_weights(6)


def test_a_job_that_is_paused_while_it_is_checked_pauses_after_it(world: World) -> None:
    job = world.job("ftjob-a", "validating_files")
    world.store.ask(job, "pause")
    world.boot()
    world.go(10)
    assert world.status(job) == "paused"
    control.resume(world.store, job)
    world.go(30)
    assert world.status(job) == "succeeded"


def test_a_cancelled_job_keeps_its_checkpoints_and_its_worker_is_sent_away(world: World) -> None:
    job = world.job("ftjob-a")
    world.boot()
    while not world.store.list_checkpoints(job):
        world.go()
    [worker] = world.machine.living
    worker.hangs = True
    control.cancel(world.store, job)
    world.go(1)
    assert world.status(job) == "cancelled"
    assert worker.stop_asked
    assert worker.lives
    world.go(2, seconds=STOP_GRACE_S)
    assert not worker.lives
    assert [one["step"] for one in world.store.list_checkpoints(job)] == [2]
    world.go(10)
    assert world.status(job) == "cancelled"


def test_a_disk_without_room_for_a_worker_leaves_the_job_queued(world: World) -> None:
    job = world.job("ftjob-a")
    world.machine.refuses_starts = True
    world.boot()
    world.go(3)
    assert world.status(job) == "queued"
    assert world.store.get_job(job)["error"]["message"] == "the disk is full"
    world.machine.refuses_starts = False
    world.go(60)
    assert world.status(job) == "succeeded"


async def test_a_server_that_shuts_down_leaves_its_jobs_queued(world: World) -> None:
    job = world.job("ftjob-a")
    scheduler = world.boot()
    world.go(4)

    class Stopping(ScriptedRuntime):
        """Its machine runs on while the scheduler waits."""

        def workers(self) -> Any:
            self.machine.advance()
            return super().workers()

    [(_, runtime)] = world.servers
    runtime.__class__ = Stopping
    await scheduler.close()
    assert world.status(job) == "queued"
    assert world.store.get_job(job)["owner"] is None
    assert world.store.get_job(job)["restarts"] == 0
    runtime.__class__ = ScriptedRuntime
    world.boot()
    world.servers.pop(0)
    world.go(40)
    assert world.status(job) == "succeeded"
