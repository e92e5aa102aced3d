"""The parent's side of a worker process: start it, ask it, measure how long it takes, end it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

BENCHMARKS = Path(__file__).resolve().parent.parent


class WorkerError(Exception):
    """The worker died or answered with a traceback; the message is its last words."""


class WorkerTimeout(WorkerError):
    """The worker was killed because its answer took too long."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer and the wall-clock seconds from request to answer, as the parent saw them."""

    data: dict[str, Any]
    wall_s: float


class Worker:
    """A long-lived process that does one thing when told to; idle in between.

    `module` runs as `python -m MODULE` inside `benchmarks/`, under `python` (a peer's, or ours by default). Its chatter
    (stderr and stray prints) goes to `log`.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str] = (),
        *,
        log: Path,
        python: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        self.started = time.perf_counter()
        with log.open("w", encoding="utf-8") as chatter:
            self._process = subprocess.Popen(
                [str(python or sys.executable), "-m", module, *arguments],
                cwd=BENCHMARKS,
                env={**os.environ, **(env or {})},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=chatter,
                text=True,
                encoding="utf-8",
                start_new_session=True,
            )

    def ask(self, do: str, *, timeout_s: float | None = None, **request: Any) -> Answer:
        """Send one request and wait for the answer.

        Raises WorkerError when there is none or it is a traceback, WorkerTimeout (the worker is killed) when it does
        not come within `timeout_s`.
        """
        started = time.perf_counter()
        stdin = self._process.stdin
        assert stdin is not None
        try:
            stdin.write(json.dumps({"do": do, **request}) + "\n")
            stdin.flush()
        except BrokenPipeError:
            pass  # what it said before it died, or its exit code, is the answer
        return Answer(self._read(timeout_s), time.perf_counter() - started)

    def _read(self, timeout_s: float | None) -> dict[str, Any]:
        stdout = self._process.stdout
        assert stdout is not None
        if timeout_s is not None and not select.select([stdout], [], [], timeout_s)[0]:
            self._kill()
            raise WorkerTimeout(f"no answer within {timeout_s:.0f} s")
        line = stdout.readline()
        if not line:
            raise WorkerError(f"{self.last_words()}\nthe worker {_ending(self._process.wait())}")
        data = json.loads(line)
        if "error" in data:
            raise WorkerError(data["error"])
        return data

    def ready(self, *, timeout_s: float | None = None) -> Answer:
        """Wait for the answer that every worker gives unasked once it has loaded; its time is since the start."""
        return Answer(self._read(timeout_s), time.perf_counter() - self.started)

    def last_words(self, lines: int = 15) -> str:
        """The end of the worker's log."""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

    def close(self) -> None:
        """Close the line and wait; a worker that does not go within 30 s is killed. Safe to call twice."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._kill()

    def _kill(self) -> None:
        """End the worker and every process it started (vLLM's engine runs in two of its own)."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def _ending(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    hint = " (which the kernel sends when memory runs out)" if code == -signal.SIGKILL else ""
    return f"was killed by {signal.Signals(-code).name}{hint}"


def interleaved(
    first: Worker, second: Worker, pairs: int, *, labels: tuple[str, str]
) -> tuple[list[Answer], list[Answer]]:
    """`pairs` steps of each after one warm-up; who begins alternates, so that drift favours neither."""
    sides = [(first, []), (second, [])]
    for worker, _ in sides:
        worker.ask("step")
    for pair in range(pairs):
        for worker, answers in sides if pair % 2 == 0 else reversed(sides):
            answers.append(worker.ask("step"))
        shown = ", ".join(
            f"{label} {answers[-1].wall_s:.2f} s" for label, (_, answers) in zip(labels, sides, strict=True)
        )
        print(f"  pair {pair + 1}: {shown}", flush=True)
    return sides[0][1], sides[1][1]
