"""A worker's hold on its job: taken over with the token it was started with, renewed, and watched for wishes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from enum import StrEnum
from typing import Any, Self

from agentrft.errors import BoundaryError, StoreFault
from agentrft.store import SqlStore
from agentrft.store.states import FINAL
from agentrft.train.stop import Stop

LEASE_S = 60.0
"""A process that has been silent this long no longer owns its job."""
WATCH_S = 0.5
"""How often a worker looks whether something is wanted of it."""


class Wanted(StrEnum):
    """Why a worker is to stop."""

    PAUSE = "pause"
    """The user wants it: the job is paused then."""
    QUEUE = "queue"
    """Its server shuts down: the job is queued then, and starts again by itself."""
    NOTHING = "nothing"
    """The job was cancelled, or someone else has it: no word of this worker counts any more."""


class Lease:
    """Held inside `async with`; given back after it, unless an exception ends it. Serves one event loop."""

    def __init__(self, store: SqlStore, job_id: str, token: int, owner: str, stop: Stop) -> None:
        """`stop` is asked for as soon as something is wanted."""
        self.job_id = job_id
        self.fenced = store.fenced(job_id, token)
        """The store, as this worker may use it."""
        self.wanted: Wanted | None = None
        self._store = store
        self._token = token
        self._owner = owner
        self._stop = stop
        self._tasks: list[asyncio.Task[None]] = []

    def renew(self) -> None:
        """Another `LEASE_S`; StoreFault when the job is someone else's, or the store refuses."""
        self._store.heartbeat(self.job_id, self._token, LEASE_S, owner=self._owner)

    def look(self) -> dict[str, Any]:
        """The job as it is now; asks the stop for what is wanted of this worker."""
        job = self._store.get_job(self.job_id)
        self._judge(job)
        return job

    def _judge(self, job: Mapping[str, Any]) -> None:
        if job["owner"] != self._owner or job["status"] in FINAL:
            self.want(Wanted.NOTHING)
        elif job["wish"] == "pause" and job["status"] != "validating_files":
            self.want(Wanted.PAUSE)

    def want(self, wanted: Wanted) -> None:
        """Stop for this reason; a stronger one replaces a weaker one."""
        if self.wanted is not Wanted.NOTHING and (self.wanted is None or wanted is not Wanted.QUEUE):
            self.wanted = wanted
        reasons = {
            Wanted.PAUSE: "the user paused the job",
            Wanted.QUEUE: "the server shuts down",
            Wanted.NOTHING: "the job is no longer this worker's",
        }
        self._stop.ask(reasons[wanted], keeps=wanted is not Wanted.NOTHING)

    async def __aenter__(self) -> Self:
        self.renew()
        self._tasks = [asyncio.create_task(self._beat()), asyncio.create_task(self._watch())]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        if kind is None:  # a worker that crashes keeps it: its server finds the job, and says how it ended
            with suppress(BoundaryError):
                self._store.release_job(self.job_id, self._token)

    async def _beat(self) -> None:
        # On this loop, not on a thread: a worker that hangs must lose its lease.
        while True:
            await asyncio.sleep(LEASE_S / 3)
            # A store that is busy now may answer next time; that the lease is lost, `look` finds out.
            with suppress(StoreFault):
                await asyncio.to_thread(self.renew)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            with suppress(StoreFault):
                self._judge(await asyncio.to_thread(self._store.get_job, self.job_id))
