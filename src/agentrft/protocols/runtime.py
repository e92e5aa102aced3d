"""Where jobs run: processes that are started, watched, asked to stop, and killed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A process that works on a job."""

    job_id: str
    token: int
    """Its fencing token: a job may have a worker that has lost it beside the one that has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedWorker:
    """A worker that is no more."""

    worker: Worker
    code: int | None = None
    """Exit code; None where a signal ended it, and of a process that was adopted, whose code only its parent gets."""
    signal: int | None = None
    tail: str = ""
    """The last lines of what it wrote to its log."""

    @property
    def how(self) -> str:
        """`signal 9`, `exit code 1`, or what is known."""
        if self.signal is not None:
            return f"signal {self.signal}"
        return "an unknown exit code" if self.code is None else f"exit code {self.code}"


class Runtime(Protocol):
    """Runs workers. Every call returns within milliseconds; what it changes shows in `workers` and `ended` later."""

    def start(self, job_id: str, token: int) -> None:
        """Start a worker, which takes the job's lease over with the token; StoreFault when it cannot be started."""
        ...

    def workers(self) -> Sequence[Worker]:
        """The ones that live: those that it started, and those that it adopted."""
        ...

    def ended(self) -> Sequence[EndedWorker]:
        """The ones that ended since this was asked last; each is told once."""
        ...

    def stop(self, worker: Worker) -> None:
        """Ask it to save what is done and end, and its job to be queued again; nothing happens where it has ended."""
        ...

    def kill(self, worker: Worker) -> None:
        """End it at once, and everything that it started."""
        ...

    def is_gone(self, owner: str) -> bool:
        """True when that owner of a lease certainly lives no more; false for whom this runtime cannot see."""
        ...

    def adopt(self, job_id: str, token: int, owner: str) -> bool:
        """Watch a worker that a server which lives no more has left; false for any other owner."""
        ...
