"""Machines whose processes are generators: orchestration under a clock that a test owns, faults included."""

from __future__ import annotations

import itertools
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from agentrft.errors import StoreFault
from agentrft.protocols import EndedWorker, Worker

Script = Callable[["ScriptedProcess"], Iterator[None]]
"""What a worker does, a bit at each `next`. It ends with exit code 0, or 1 when it raises."""


@dataclass(slots=True, eq=False)
class ScriptedProcess:
    """One worker, as its script sees it."""

    worker: Worker
    owner: str
    server: str
    """Owner of the server that started it."""
    stop_asked: bool = False
    """It was sent SIGTERM."""
    hangs: bool = False
    """It lives and does nothing, until this is false again."""
    end: EndedWorker | None = None
    """How it ended; None while it lives."""
    course: Iterator[None] = field(default=iter(()), repr=False)

    @property
    def lives(self) -> bool:
        return self.end is None


class ScriptedMachine:
    """A machine on which servers and workers run; workers outlive servers."""

    def __init__(self, name: str, script: Script) -> None:
        self.name = name
        self.processes: list[ScriptedProcess] = []
        """Every worker there was since `forget`, in the order they were started."""
        self.refuses_starts = False
        """Starting a worker raises StoreFault, as with a full disk."""
        self._script = script
        self._numbers = itertools.count(1)
        self._living = set[str]()

    @property
    def living(self) -> list[ScriptedProcess]:
        """The workers that live, in the order they were started."""
        return [process for process in self.processes if process.lives]

    def boot(self, kind: type[ScriptedRuntime] | None = None) -> ScriptedRuntime:
        """A new server's runtime."""
        owner = f"{self.name}:{next(self._numbers)}:server"
        self._living.add(owner)
        return (kind or ScriptedRuntime)(self, owner)

    def kill_server(self, owner: str) -> None:
        """The server is gone; its workers go on."""
        self._living.discard(owner)

    def advance(self) -> None:
        """Every worker does a bit of its work, in the order they were started."""
        for process in self.living:
            if process.hangs:
                continue
            try:
                next(process.course)
            except StopIteration:
                self._end(process, code=0)
            except Exception:
                self._end(process, code=1, tail=traceback.format_exc())

    def forget(self) -> None:
        """Drop the workers that have ended from `processes`: for runs without end."""
        self.processes = self.living

    def crash(self, process: ScriptedProcess, signal: int = 9) -> None:
        """The worker is gone at once."""
        self._end(process, signal=signal)

    def knows(self, owner: str) -> bool:
        """Whether the owner is, or was, a process of this machine."""
        return owner.startswith(f"{self.name}:")

    def lives(self, owner: str) -> bool:
        """Whether the owner is a process that lives here."""
        return owner in self._living

    def start(self, worker: Worker, server: str) -> ScriptedProcess:
        """A new process."""
        if self.refuses_starts:
            raise StoreFault("the disk is full")
        process = ScriptedProcess(worker, f"{self.name}:{next(self._numbers)}:worker", server)
        process.course = self._script(process)
        self._living.add(process.owner)
        self.processes.append(process)
        return process

    def _end(
        self, process: ScriptedProcess, *, code: int | None = None, signal: int | None = None, tail: str = ""
    ) -> None:
        if process.lives:
            self._living.discard(process.owner)
            process.end = EndedWorker(worker=process.worker, code=code, signal=signal, tail=tail)


class ScriptedRuntime:
    """`Runtime` of one server on a scripted machine."""

    def __init__(self, machine: ScriptedMachine, owner: str) -> None:
        self.machine = machine
        self.owner = owner
        """The server's own name in leases."""
        self._watched: dict[Worker, ScriptedProcess] = {}

    def start(self, job_id: str, token: int) -> None:
        """See `Runtime`."""
        worker = Worker(job_id=job_id, token=token)
        self._watched[worker] = self.machine.start(worker, self.owner)

    def workers(self) -> Sequence[Worker]:
        """See `Runtime`."""
        return [worker for worker, process in self._watched.items() if process.lives]

    def ended(self) -> Sequence[EndedWorker]:
        """See `Runtime`."""
        ended = [process.end for process in self._watched.values() if process.end is not None]
        for one in ended:
            del self._watched[one.worker]
        return ended

    def stop(self, worker: Worker) -> None:
        """See `Runtime`."""
        if worker in self._watched:
            self._watched[worker].stop_asked = True

    def kill(self, worker: Worker) -> None:
        """See `Runtime`."""
        if worker in self._watched:
            self.machine.crash(self._watched[worker])

    def is_gone(self, owner: str) -> bool:
        """See `Runtime`."""
        return self.machine.knows(owner) and not self.machine.lives(owner)

    def adopt(self, job_id: str, token: int, owner: str) -> bool:
        """See `Runtime`."""
        worker = Worker(job_id=job_id, token=token)
        for process in self.machine.living:
            if process.owner == owner and process.worker == worker and self.is_gone(process.server):
                self._watched[worker] = process
                return True
        return False
