"""`Runtime` on this machine: a process for each job, in a session of its own, so that it outlives its server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from agentrft.errors import StoreFault
from agentrft.jobs.service import job_folder
from agentrft.net.last_words import end_of
from agentrft.protocols import EndedWorker, Worker
from agentrft.runtime import processes
from agentrft.runtime.settings import WorkerSettings
from agentrft.runtime.worker import LOG

_TAIL_BYTES = 2000
_MODULE = "agentrft.runtime.worker"


class LocalRuntime:
    """Workers of this machine. Safe for one thread at a time."""

    def __init__(self, settings: WorkerSettings | None = None, *, nice: int = 0, threads: int | None = None) -> None:
        """`nice` is added to the workers' niceness; `threads` is how many each may compute with, None for all cores.

        With `exact: true` the weights depend on the number of threads: leave it alone while such a job lives.
        """
        self._settings = settings or WorkerSettings()
        self._nice = nice
        self._threads = threads
        self._owner = processes.this_owner()
        self._running: dict[Worker, _Process] = {}

    def start(self, job_id: str, token: int) -> None:
        """See `Runtime`."""
        command = [sys.executable, "-m", _MODULE, job_id, "--token", str(token), "--server", self._owner]
        if self._nice:
            command = ["nice", "-n", str(self._nice), *command]
        log = job_folder(job_id) / LOG
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as output:
                begin = output.tell()
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                    env=self._environment(),
                )
        except OSError as error:
            raise StoreFault(f"a worker for {job_id} could not be started: {error}; free disk space") from error
        worker = Worker(job_id=job_id, token=token)
        self._running[worker] = _Process(pid=process.pid, popen=process, log=log, begin=begin)

    def workers(self) -> Sequence[Worker]:
        """See `Runtime`."""
        return [worker for worker, process in self._running.items() if process.lives()]

    def ended(self) -> Sequence[EndedWorker]:
        """See `Runtime`."""
        ended = [(worker, process) for worker, process in self._running.items() if not process.lives()]
        for worker, process in ended:
            process.kill()  # what it had started, and nobody else would end
            del self._running[worker]
        return [process.ended(worker) for worker, process in ended]

    def stop(self, worker: Worker) -> None:
        """See `Runtime`."""
        if (process := self._running.get(worker)) and process.lives():
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)

    def kill(self, worker: Worker) -> None:
        """See `Runtime`."""
        if process := self._running.get(worker):
            process.kill()

    def is_gone(self, owner: str) -> bool:
        """See `Runtime`."""
        return processes.is_gone(owner)

    def adopt(self, job_id: str, token: int, owner: str) -> bool:
        """See `Runtime`."""
        worker, pid = Worker(job_id=job_id, token=token), processes.pid_of(owner)
        if pid is None or worker in self._running or not _is_orphan(pid, job_id, self._owner):
            return False
        log = job_folder(job_id) / LOG
        self._running[worker] = _Process(pid=pid, owner=owner, log=log, begin=_size(log))
        return True

    def _environment(self) -> dict[str, str]:
        environment = {**os.environ, **self._settings.environment(), "TOKENIZERS_PARALLELISM": "false"}
        environment["PYTHONUNBUFFERED"] = "1"
        if self._threads is not None:
            environment["OMP_NUM_THREADS"] = str(self._threads)
        return environment


@dataclass(frozen=True, slots=True, kw_only=True)
class _Process:
    """A worker's process: a child of this one, or one that was found."""

    pid: int
    log: Path
    begin: int
    """Length of the log when it was started or found."""
    popen: subprocess.Popen[bytes] | None = None
    owner: str = ""
    """What tells a found one from a later process of the same pid."""

    def lives(self) -> bool:
        if self.popen is not None:
            return self.popen.poll() is None
        return processes.pid_of(self.owner) is not None

    def kill(self) -> None:
        # The group is the worker's own: as long as one process of it is left, its number is nobody else's.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def ended(self, worker: Worker) -> EndedWorker:
        code = None if self.popen is None else self.popen.returncode
        tail = _tail(self.log, self.begin)
        if code is None:
            return EndedWorker(worker=worker, tail=tail)
        how = {"code": code} if code >= 0 else {"signal": -code}
        return EndedWorker(worker=worker, tail=tail, **how)


def _is_orphan(pid: int, job_id: str, server: str) -> bool:
    """A worker of that job whose server lives no more, or is this one."""
    with suppress(psutil.Error):
        words = psutil.Process(pid).cmdline()
        if _MODULE in words and job_id in words and "--server" in words[:-1]:
            starter = words[words.index("--server") + 1]
            return starter == server or processes.is_gone(starter)
    return False


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _tail(path: Path, begin: int) -> str:
    """The end of what was written from `begin` on."""
    with suppress(OSError), path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        begin = begin if begin <= size else 0  # shortened since: from its beginning
        start = file.seek(max(begin, size - _TAIL_BYTES))
        return end_of(file.read(), is_cut=start > begin)
    return ""
