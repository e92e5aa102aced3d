"""`agentrft serve` in a process of its own with an empty home, and what it and its processes hold of the memory."""

from __future__ import annotations

import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psutil

PARTS = {"agentrft.runtime.serving": "engine", "agentrft.runtime.worker": "trainer"}
"""Module that a process of the server's runs → what it is called here."""
_STOP_S = 60
"""Ten seconds are for requests, thirty for a job's checkpoint."""


class ServerProcess:
    """A server on a free port of loopback; leaving the context ends it and all that it has started."""

    def __init__(self, home: Path, config: Mapping[str, Any]) -> None:
        """Waits until it listens. `config` is server.yaml; raises RuntimeError with its log when it does not start."""
        home.mkdir(parents=True, exist_ok=True)
        (home / "server.yaml").write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
        self.log = home / "server.log"
        self._seen: set[psutil.Process] = set()
        """Children; if the server dies, they are no longer its, and still to be ended."""
        options = ["--port", "0", "--config", str(home / "server.yaml")]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", "from agentrft.cli import main; main()", "serve", *options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
                env={**os.environ, "AGENTRFT_HOME": str(home), "HF_HUB_OFFLINE": "1"},
            )
        assert self._process.stdout is not None
        found = re.search(r"http://\S+", self._process.stdout.readline())
        if found is None:
            self.close()
            raise RuntimeError(f"the server did not start; its log:\n{self._last_words()}")
        self.url = found[0]
        """Without `/v1`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def parts(self) -> dict[str, psutil.Process]:
        """`server`, and of `engine` and `trainer` what runs now. Raises RuntimeError when the server has died."""
        if self._process.poll() is not None:
            raise RuntimeError(f"the server ended with code {self._process.returncode}; its log:\n{self._last_words()}")
        server = psutil.Process(self._process.pid)
        found = {"server": server}
        children = server.children(recursive=True)
        self._seen.update(children)
        for child in children:
            with suppress(psutil.Error):  # it has just ended
                # Only its own: what a trainer forks has the same command.
                command = child.cmdline() if child.ppid() == server.pid else []
                found.update({name: child for module, name in PARTS.items() if module in command})
        return found

    def close(self) -> None:
        """Ask it to end, then make it; its children are in sessions of their own, so each is looked after."""
        with suppress(psutil.Error):
            self._seen.update(psutil.Process(self._process.pid).children(recursive=True))
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for child in psutil.wait_procs(self._seen, timeout=1)[1]:
            with suppress(psutil.Error):  # it ended just now
                child.kill()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _last_words(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")[-2000:]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What one process used at a moment."""

    at_s: float
    """Of `time.monotonic()`."""
    pid: int
    rss_mb: float
    """Resident memory, in 10⁶ bytes; pages shared with other processes count in full."""
    cpu_s: float
    """Computed so far, all threads."""


@dataclass(slots=True)
class Usage:
    """Samples of each part over time."""

    samples: dict[str, list[Sample]] = field(default_factory=dict)

    async def watch(self, server: ServerProcess, every_s: float) -> None:
        """Take samples until cancelled; in a thread, because looking through the processes takes milliseconds."""
        while True:
            await asyncio.to_thread(self._take, server)
            await asyncio.sleep(every_s)

    def _take(self, server: ServerProcess) -> None:
        for name, process in server.parts().items():
            with suppress(psutil.Error), process.oneshot():  # it may have just ended
                used = process.cpu_times()
                sample = Sample(
                    at_s=time.monotonic(),
                    pid=process.pid,
                    rss_mb=process.memory_info().rss / 1e6,
                    cpu_s=used.user + used.system,
                )
                self.samples.setdefault(name, []).append(sample)

    def during(self, name: str, begin_s: float, end_s: float) -> list[Sample]:
        """The samples of a part that were taken in that time."""
        return [one for one in self.samples.get(name, []) if begin_s <= one.at_s <= end_s]


def slope_mb_per_min(samples: list[Sample]) -> float:
    """Least-squares slope of resident memory over time. Raises ValueError for fewer than two samples."""
    if len(samples) < 2:
        raise ValueError(f"a slope needs two samples, got {len(samples)}; run for longer than a few seconds")
    return 60 * statistics.linear_regression([one.at_s for one in samples], [one.rss_mb for one in samples]).slope
