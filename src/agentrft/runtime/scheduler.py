"""Starts jobs that wait, watches those that run, and takes up those whose worker or server died.

Everything it knows is in the store; several servers may share one. Who may write to a job is decided by its fencing
token alone, so a wrong guess here (a clock that jumps, a worker that is slow) costs work, never a double result.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

from agentrft.clock import SYSTEM_CLOCK
from agentrft.errors import StoreFault, UserError
from agentrft.jobs.service import secrets_of
from agentrft.net.last_words import without_secrets
from agentrft.protocols import Clock, EndedWorker, Runtime, Worker
from agentrft.runtime.lease import LEASE_S
from agentrft.store import SqlStore
from agentrft.store.attention import OpenJob, fulfil_wish, jobs_to_attend

INTERVAL_S = 0.5
"""Between passes; `wake` shortens it."""
STOP_GRACE_S = 30.0
"""What a worker gets to leave by itself before it is killed."""
MAX_RESTARTS = 5
"""Deaths of a job's workers without a new checkpoint between them, after which the job fails."""
_START_AGAIN_S = 5.0
_LOOK_S = 0.1


class Scheduler:
    """One for each server; its passes never overlap."""

    def __init__(
        self,
        store: SqlStore,
        runtime: Runtime,
        clock: Clock = SYSTEM_CLOCK,
        *,
        owner: str,
        concurrency: int = 1,
        checks: int = 2,
        max_restarts: int = MAX_RESTARTS,
    ) -> None:
        """`owner` names this server in leases; `concurrency` jobs train and `checks` jobs are checked at once."""
        self.trouble: str | None = None
        """Why the last pass could not be made; None when it was."""
        self._store = store
        self._runtime = runtime
        self._clock = clock
        self._owner = owner
        self._concurrency = concurrency
        self._checks = checks
        self._max_restarts = max_restarts
        self._leaving: dict[Worker, float] = {}
        self._heard: dict[Worker, tuple[float | None, float]] = {}
        self._start_after_s = 0.0
        self._closing = False
        self._pass = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken = asyncio.Event()

    # The server's side

    async def run(self) -> None:
        """Make passes until `close`; what the store refuses is tried again in the next one."""
        self._loop = asyncio.get_running_loop()
        while not self._closing:
            await self.tick()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), INTERVAL_S)
            self._woken.clear()

    async def tick(self) -> None:
        """One pass, on a thread: the store may let it wait."""
        await asyncio.to_thread(self.attend)

    def wake(self) -> None:
        """Make the next pass at once: a job was created, resumed or cancelled. From any thread."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: there are no passes any more
                self._loop.call_soon_threadsafe(self._woken.set)

    async def close(self, *, grace_s: float = STOP_GRACE_S) -> None:
        """Let every worker save what is done and queue its job; what has not left by then is killed.

        Nothing is started any more, and `run` returns.
        """
        self._closing = True
        self.wake()
        await asyncio.to_thread(self._each_worker, self._runtime.stop)
        for _ in range(round(grace_s / _LOOK_S)):
            if not await asyncio.to_thread(self._each_worker):
                break
            await asyncio.sleep(_LOOK_S)
        if await asyncio.to_thread(self._each_worker, self._runtime.kill):
            await asyncio.sleep(_LOOK_S)
        await self.tick()

    def _each_worker(self, act: Callable[[Worker], None] = lambda worker: None) -> int:
        """How many live, each of them told; between passes, which change who is watched."""
        with self._pass:
            workers = list(self._runtime.workers())
            for worker in workers:
                act(worker)
            return len(workers)

    # One pass

    def attend(self) -> None:
        """One pass, on this thread; `trouble` says when the store refused it."""
        with self._pass:
            try:
                jobs = {job.id: job for job in jobs_to_attend(self._store)}
                ended = self._runtime.ended()
                for one in ended:
                    self._bury(one, jobs.get(one.worker.job_id))
                if ended:  # what was requeued has another token now
                    jobs = {job.id: job for job in jobs_to_attend(self._store)}
                self._attend_workers(jobs)
                for job in jobs.values():
                    with self._one_job():
                        self._attend(job)
                if not self._closing and self._clock.monotonic() >= self._start_after_s:
                    self._start_checks(jobs)
                    self._start_jobs(jobs)
                self.trouble = None
            except StoreFault as fault:
                self.trouble = str(fault)

    def _bury(self, ended: EndedWorker, job: OpenJob | None) -> None:
        """Requeue the job of a worker that ended while it held it."""
        self._leaving.pop(ended.worker, None)
        self._heard.pop(ended.worker, None)
        if job is not None and job.token == ended.worker.token and job.owner is not None:
            with self._one_job():
                self._revive(job, f"its worker ended with {ended.how}", self._shown(job.id, ended.tail))

    def _shown(self, job_id: str, tail: str) -> str:
        """The tail without secrets; nothing of it where the job's cannot be opened, and so not be found in it."""
        try:
            return without_secrets(tail, secrets_of(self._store, job_id))
        except UserError:
            return ""

    def _attend_workers(self, jobs: Mapping[str, OpenJob]) -> None:
        """Send away workers whose job is not theirs any more, and kill those that do not go."""
        now_s = self._clock.monotonic()
        for worker in self._runtime.workers():
            job = jobs.get(worker.job_id)
            if job is not None and job.token == worker.token and job.owner is not None:
                continue
            since_s = self._leaving.setdefault(worker, now_s)
            if now_s - since_s >= STOP_GRACE_S:
                self._runtime.kill(worker)
            elif since_s == now_s and (job is None or job.token != worker.token):
                self._runtime.stop(worker)

    def _attend(self, job: OpenJob) -> None:
        if job.wish == "cancel":
            self._store.cancel_job(job.id)
        elif job.owner is None:
            if job.status == "running":
                self._revive(job, "nobody works on it")
            elif job.wish == "pause":
                fulfil_wish(self._store, job.id)
        else:
            self._attend_held(job, job.owner)

    def _attend_held(self, job: OpenJob, owner: str) -> None:
        worker = Worker(job_id=job.id, token=job.token)
        if worker in self._runtime.workers():
            if self._is_silent(worker, job.lease_until):
                self._runtime.kill(worker)
                self._revive(job, f"its worker was silent for {LEASE_S:g} s and was killed")
        elif owner == self._owner:
            self._revive(job, "its worker never got going")
        elif self._runtime.is_gone(owner):
            self._revive(job, f"{owner}, which worked on it, lives no more")
        elif (job.lease_until or 0.0) <= self._clock.now():
            self._revive(job, f"{owner}, which worked on it, has not been heard of since its lease ended")
        elif not self._closing:
            self._runtime.adopt(job.id, job.token, owner)

    def _is_silent(self, worker: Worker, lease_until: float | None) -> bool:
        """Whether a worker of ours has not renewed its lease for as long as that lasts, by a clock that never jumps."""
        now_s = self._clock.monotonic()
        known, since_s = self._heard.get(worker, (None, now_s))
        if known != lease_until or worker not in self._heard:
            self._heard[worker] = (lease_until, now_s)
            return False
        return now_s - since_s > LEASE_S

    def _revive(self, job: OpenJob, why: str, tail: str = "") -> None:
        """Queue the job again, or fail it when that has come to nothing too often."""
        said = f" It last said:\n{tail}" if tail else ""
        if job.restarts < self._max_restarts or job.status in ("queued", "paused"):
            self._store.requeue(job.id, f"The job starts again: {why}.{said}", token=job.token)
            return
        error = UserError(
            f"The job's workers died {job.restarts + 1} times without a new checkpoint between, at most "
            f"{self._max_restarts} are borne; the last time {why}. Look at worker.log in the job's folder, mend the "
            f"cause and create the job again; its checkpoints stay.{said}",
            code="worker_crashed",
        )
        failure = {"code": error.code, "message": error.message, "param": error.param}
        self._store.fenced(job.id, job.token).set_job_status(job.id, "failed", error=failure)

    def _start_checks(self, jobs: Mapping[str, OpenJob]) -> None:
        waiting = [job for job in jobs.values() if job.status == "validating_files" and job.owner is None]
        room = self._checks - sum(self._is_check(worker, jobs) for worker in self._runtime.workers())
        for job in waiting[: max(room, 0)]:
            with self._one_job():
                self._start(job.id, self._store.claim_job(job.id, self._owner, LEASE_S))

    def _start_jobs(self, jobs: Mapping[str, OpenJob]) -> None:
        busy = sum(not self._is_check(worker, jobs) for worker in self._runtime.workers())
        for _ in range(self._concurrency - busy):
            claimed = self._store.claim_next(self._owner, LEASE_S)
            if claimed is None:
                return
            self._start(*claimed)

    def _is_check(self, worker: Worker, jobs: Mapping[str, OpenJob]) -> bool:
        job = jobs.get(worker.job_id)
        return job is not None and job.token == worker.token and job.status == "validating_files"

    def _start(self, job_id: str, token: int) -> None:
        try:
            self._runtime.start(job_id, token)
        except StoreFault as fault:
            self._start_after_s = self._clock.monotonic() + _START_AGAIN_S
            fenced = self._store.fenced(job_id, token)
            if fenced.get_job(job_id)["status"] == "running":
                fenced.set_job_status(job_id, "queued", error={"code": "store", "message": str(fault), "param": None})
            fenced.release_job(job_id, token)

    @contextmanager
    def _one_job(self) -> Iterator[None]:
        """What another server or the user changed meanwhile is looked at anew in the next pass."""
        with suppress(UserError, StoreFault):
            yield
