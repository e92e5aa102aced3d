"""A job's worker as a script: what the real one tells the store, without a model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from agentrft.errors import StoreFault
from agentrft.protocols import Clock
from agentrft.runtime.lease import LEASE_S
from agentrft.store import SqlStore
from agentrft.store.states import FINAL
from agentrft.testing.runtime import ScriptedProcess


@dataclass(slots=True)
class ScriptedDisk:
    """What outlives processes: weights by job and step, and what was committed by which token."""

    checkpoints: dict[str, dict[int, str]] = field(default_factory=dict)
    commits: list[tuple[str, int, int]] = field(default_factory=list)
    """(job, token, step) of every step that the store took, in that order."""
    begun: list[tuple[str, int, int, int]] = field(default_factory=list)
    """(job, token, step that it resumed after, newest step of a listed checkpoint then)."""

    def newest(self, job_id: str) -> tuple[int, str]:
        """Step and weights of the newest checkpoint; step 0 and the first weights without one."""
        saved = self.checkpoints.get(job_id, {})
        return max(saved.items(), default=(0, "base"))


def next_weights(weights: str, step: int) -> str:
    """The weights after a step."""
    return hashlib.sha256(f"{weights}/{step}".encode()).hexdigest()[:16]


def final_weights(steps: int) -> str:
    """The weights of a job that nothing ever disturbed."""
    weights = "base"
    for step in range(1, steps + 1):
        weights = next_weights(weights, step)
    return weights


class ScriptedWorker:
    """The script of every job on a machine; one step a bit. A fault of the store pauses the job for a while."""

    def __init__(self, store: SqlStore, clock: Clock, disk: ScriptedDisk, *, steps: int = 6, interval: int = 2) -> None:
        self._store = store
        self._clock = clock
        self._disk = disk
        self._steps = steps
        self._interval = interval

    def __call__(self, process: ScriptedProcess) -> Iterator[None]:
        """The course of one process. A job that is someone else's by now ends it without a word."""
        job_id, token = process.worker.job_id, process.worker.token
        hold = _Hold(self._store, self._clock, process)
        yield
        while not hold.is_lost():
            try:
                hold.renew(at_once=True)
                job = self._store.get_job(job_id)
                if job["status"] == "validating_files":
                    hold.fenced.set_job_status(job_id, "queued")
                    return hold.release()
                if job["status"] in ("paused", "queued"):  # by a fault of the store
                    hold.fenced.set_job_status(job_id, "queued")
                    hold.fenced.set_job_status(job_id, "running")
                listed = max((one["step"] for one in self._store.list_checkpoints(job_id)), default=0)
                self._disk.begun.append((job_id, token, self._disk.newest(job_id)[0], listed))
                yield from self._train(hold, job_id, token)
                return hold.release()
            except StoreFault:
                yield
                with suppress(StoreFault):
                    error = {"code": "store", "message": "the store refused", "param": None}
                    hold.fenced.set_job_status(job_id, "paused", error=error)
        return None

    def _train(self, hold: _Hold, job_id: str, token: int) -> Iterator[None]:
        step, weights = self._disk.newest(job_id)
        while step < self._steps:
            hold.renew()
            if status := hold.wanted():
                self._save(hold, job_id, step, weights)
                hold.fenced.set_job_status(job_id, status)
                return
            yield  # whatever happens here, only the fence keeps a job that was lost from being written to
            step, weights = step + 1, next_weights(weights, step + 1)
            hold.fenced.add_metrics(job_id, step, {"loss": 1 / step})
            self._disk.commits.append((job_id, token, step))
            if step % self._interval == 0 or step == self._steps:
                yield
                self._save(hold, job_id, step, weights)
        yield
        hold.fenced.update_job(job_id, {"fine_tuned_model": weights})
        hold.fenced.set_job_status(job_id, "succeeded")

    def _save(self, hold: _Hold, job_id: str, step: int, weights: str) -> None:
        if step:
            self._disk.checkpoints.setdefault(job_id, {})[step] = weights
            hold.fenced.add_checkpoint(job_id, step, f"{job_id}/{step}", {})


class _Hold:
    """A process's lease."""

    def __init__(self, store: SqlStore, clock: Clock, process: ScriptedProcess) -> None:
        self.fenced = store.fenced(process.worker.job_id, process.worker.token)
        self._store = store
        self._clock = clock
        self._process = process
        self._renewed_s = 0.0
        self._is_taken = False

    def is_lost(self) -> bool:
        try:
            job = self._store.get_job(self._process.worker.job_id)
        except StoreFault:
            return False
        return job["status"] in FINAL or (self._is_taken and job["owner"] != self._process.owner)

    def renew(self, *, at_once: bool = False) -> None:
        if at_once or self._clock.monotonic() - self._renewed_s >= LEASE_S / 3:
            worker = self._process.worker
            try:
                self._store.heartbeat(worker.job_id, worker.token, LEASE_S, owner=self._process.owner)
            finally:
                self._is_taken = True
            self._renewed_s = self._clock.monotonic()

    def wanted(self) -> str | None:
        """The status to leave the job in; raises StoreFault when it is lost."""
        job = self._store.get_job(self._process.worker.job_id)
        if job["owner"] != self._process.owner:
            raise StoreFault("the job is someone else's")
        if job["wish"] == "pause":
            return "paused"
        return "queued" if self._process.stop_asked else None

    def release(self) -> None:
        worker = self._process.worker
        with suppress(StoreFault):
            self._store.release_job(worker.job_id, worker.token)
