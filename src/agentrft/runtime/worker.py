"""The process that works on one job: `python -m agentrft.runtime.worker JOB --token N --server OWNER`.

It takes the job's lease over from the server that claimed it, and outlives that server: a later one finds it and goes
on watching it. SIGTERM makes it save what is done and queue the job again. What it prints goes to `worker.log` in the
job's folder, which it keeps short.
"""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from agentrft.errors import StoreFault, UserError
from agentrft.jobs.service import job_folder, stored_job
from agentrft.runtime import work
from agentrft.runtime.lease import WATCH_S, Lease, Wanted
from agentrft.runtime.lock import alone_in
from agentrft.runtime.processes import be_nice_as_a_session, this_owner
from agentrft.runtime.settings import WorkerSettings
from agentrft.store import SqlStore, open_store
from agentrft.train.stop import Stop

DONE = 0
"""The job is in a status that says how it is."""
LOST = 5
"""Somebody else has the job; this process has changed nothing since."""
LOG = "worker.log"
MAX_LOG_BYTES = 4 << 20
_KEPT_LOG_BYTES = 1 << 20
_LEAVE_S = 10.0
"""What threads and tool processes get to end once the job has its status."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Work on the job that the arguments name; returns the exit code."""
    parser = argparse.ArgumentParser(prog="agentrft.runtime.worker")
    parser.add_argument("job")
    parser.add_argument("--token", type=int, required=True)
    parser.add_argument("--server", default="", help="the owner that started it")
    given = parser.parse_args(arguments)
    faulthandler.enable()
    be_nice_as_a_session()
    # Until the job is held there is nothing to save: a SIGTERM before that ends the process.
    settings = WorkerSettings.of_environment()
    store = open_store(settings.store)
    try:
        with alone_in(job_folder(given.job), given.token):
            return asyncio.run(_work(store, given.job, given.token, settings))
    finally:
        store.close()


async def _work(store: SqlStore, job_id: str, token: int, settings: WorkerSettings) -> int:
    stop = Stop()
    lease = Lease(store, job_id, token, this_owner(), stop)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lease.want, Wanted.QUEUE)
    log = asyncio.create_task(_keep_log_short(job_folder(job_id) / LOG))
    try:
        async with lease:
            await _do(store, job_id, lease, stop, settings)
            _leave_within(_LEAVE_S)
    except StoreFault as fault:
        if not _is_lost(store, job_id, lease):
            raise
        sys.stderr.write(f"{fault}\n")
        return LOST
    finally:
        log.cancel()
    return LOST if lease.wanted is Wanted.NOTHING else DONE


async def _do(store: SqlStore, job_id: str, lease: Lease, stop: Stop, settings: WorkerSettings) -> None:
    try:
        job = stored_job(store, job_id)
    except UserError as error:  # a document that an older version took
        work.fail(lease, error)
        return
    lease.look()
    if job.status == "validating_files":
        await work.check(job, lease, stop, settings.network())
    else:
        await work.Training(job, lease, stop, network=settings.network()).run()


def _is_lost(store: SqlStore, job_id: str, lease: Lease) -> bool:
    with suppress(StoreFault, UserError):
        lease.look()
    return lease.wanted is Wanted.NOTHING


def _leave_within(seconds: float) -> None:
    """End the process after that long, whatever still runs in it: its job has been dealt with."""
    timer = threading.Timer(seconds, os._exit, [DONE])
    timer.daemon = True
    timer.start()


async def _keep_log_short(path: Path) -> None:
    while True:
        await asyncio.sleep(WATCH_S)
        with suppress(OSError):
            await asyncio.to_thread(shorten, path)


def shorten(path: Path) -> None:
    """Keep the end of a file that has grown too long. Whoever appends to it goes on after that."""
    if path.stat().st_size <= MAX_LOG_BYTES:
        return
    with path.open("rb") as file:
        file.seek(-_KEPT_LOG_BYTES, os.SEEK_END)
        tail = file.read()
    os.truncate(path, 0)
    with path.open("ab") as file:
        file.write(b"(earlier lines were dropped)\n" + tail)


if __name__ == "__main__":
    sys.exit(main())
