"""Real workers on a tiny model: a home, its store, and a scheduler whose passes the test makes."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentrft.jobs.load import load_job
from agentrft.jobs.service import Kind, create_job, job_folder
from agentrft.protocols import Worker
from agentrft.runtime.local import LocalRuntime
from agentrft.runtime.processes import this_owner
from agentrft.runtime.scheduler import Scheduler
from agentrft.store import SqlStore, open_store

_spec = importlib.util.spec_from_file_location("e2e_conftest", Path(__file__).parents[1] / "e2e" / "conftest.py")
assert _spec is not None
assert _spec.loader is not None
_e2e = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_e2e)
tiny_model, make_job, own_home = _e2e.tiny_model, _e2e.make_job, _e2e.own_home


class Bench:
    """Jobs, and the server that runs them."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.store: SqlStore = open_store(home)
        self.runtime = LocalRuntime(threads=1)
        self.scheduler = self.boot()

    def boot(self, **options: Any) -> Scheduler:
        """A scheduler in place of the one there was, as after the death of its server."""
        self.scheduler = Scheduler(self.store, self.runtime, owner=this_owner(), **options)
        return self.scheduler

    def job(self, path: Path, kind: Kind = "reinforcement", status: str = "queued") -> str:
        spec, base_dir = load_job(path)
        extra = {"runner": "server", "status": status}
        return create_job(self.store, spec, base_dir, kind=kind, extra=extra).id

    def until(self, reached: Callable[[], Any], within_s: float = 90.0) -> None:
        """Passes until something is so."""
        end_s = time.monotonic() + within_s
        while not reached():
            assert time.monotonic() < end_s, self.account()
            self.scheduler.attend()
            time.sleep(0.05)

    def until_status(self, job_id: str, *statuses: str) -> None:
        self.until(lambda: self.status(job_id) in statuses)

    def until_left(self) -> None:
        """Passes until no worker lives."""
        self.until(lambda: not self.runtime.workers())
        self.scheduler.attend()

    def status(self, job_id: str) -> str:
        return self.store.get_job(job_id)["status"]

    def messages(self, job_id: str) -> list[str]:
        return [event["message"] for event in self.store.list_events(job_id)]

    def steps(self, job_id: str) -> list[int]:
        """Of the checkpoints on the disk."""
        return sorted(int(path.name[5:]) for path in (job_folder(job_id) / "checkpoints").glob("step-*"))

    def adapter(self, job_id: str) -> str:
        """SHA-256 of the newest checkpoint's weights, which are not those of the first one."""
        first, *_, newest = sorted((job_folder(job_id) / "checkpoints").glob("step-*"))
        weights = [(folder / "adapter_model.safetensors").read_bytes() for folder in (first, newest)]
        assert weights[0] != weights[1], "nothing was learnt, so nothing was tested"
        return hashlib.sha256(weights[1]).hexdigest()

    @classmethod
    def undisturbed(cls, path: Path, kind: Kind = "reinforcement") -> str:
        """`adapter` of a job that nothing happens to. In a home of its own, so that its id, and its seeds, are those of
        the first such job in another."""
        with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
            patch.setenv("AGENTRFT_HOME", folder)
            calm = cls(Path(folder))
            try:
                job_id = calm.job(path, kind)
                calm.until_status(job_id, "succeeded", "failed")
                assert calm.status(job_id) == "succeeded", calm.account()
                return calm.adapter(job_id)
            finally:
                calm.close()

    @property
    def worker(self) -> Worker:
        """The only one that lives."""
        [worker] = self.runtime.workers()
        return worker

    @property
    def pid(self) -> int:
        return self.runtime._running[self.worker].pid

    def account(self) -> str:
        """What is known of every job, for a test that fails."""
        told = []
        for job in self.store.list_jobs(limit=100):
            log = job_folder(job["id"]) / "worker.log"
            told += [f"{job['id']} {job['status']} {job['error']}", *self.messages(job["id"])[-20:]]
            told.append(log.read_text(errors="replace")[-3000:] if log.exists() else "no log")
        return "\n".join([str(self.scheduler.trouble), *told])

    def close(self) -> None:
        for worker in self.runtime.workers():
            self.runtime.kill(worker)
        end_s = time.monotonic() + 10
        while self.runtime.workers() and time.monotonic() < end_s:
            time.sleep(0.02)
        self.store.close()


@pytest.fixture
def bench(own_home: Path) -> Iterator[Bench]:
    one = Bench(own_home)
    yield one
    one.close()


def vowels(asked: Any) -> float:
    """A grade that varies with what random weights say, and only with that: as `GRADER` of the tests of the e2e."""
    said = asked.json()["sample"]["messages"]
    text = "".join(message["content"] or "" for message in said if message["role"] == "assistant")
    return sum(c in "aeiou" for c in text) / max(len(text), 1) - 1


class Grader:
    """A grader's web service that can be held up and taken down."""

    def __init__(self, serve: Any, answer: Any) -> None:
        self.is_down = False
        self.hold_s = 0.0
        self.answered = 0
        self.failed = 0
        self.seen: list[str] = []
        """Trace ids in the order they were graded."""
        self._answer = answer
        self.url = serve(self._reply).url

    def _reply(self, asked: Any) -> Any:
        if self.is_down:
            self.failed += 1
            return self._answer(status=503, body=b"down")
        self.answered += 1
        self.seen.append(asked.json()["trace_id"])
        return self._answer(body={"score": vowels(asked)}, delay_s=self.hold_s)


@pytest.fixture
def grader(serve: Any, answer: Any) -> Grader:
    return Grader(serve, answer)


@pytest.fixture
def graded_job(make_job: Callable[..., Path], grader: Grader) -> Callable[..., Path]:
    """graded_job(steps=3): a reinforcement job whose grader is the service; keywords replace fields of `training`."""

    def make(folder: str = "graded", **training: Any) -> Path:
        path = make_job(folder, **{"exact": True, "dtype": "float32"} | training)
        document = json.loads(path.read_text())
        document["method"]["reinforcement"]["grader"] = {
            "type": "endpoint",
            "name": "vowels",
            "url": grader.url,
            "pass_threshold": -0.7,
        }
        path.write_text(json.dumps(document))
        return path

    return make
