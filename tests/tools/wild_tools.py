"""Tools that do what tools should not; `wild` in conftest.py puts them into a folder as tools.py."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

calls = []
started = []


def processes() -> list:
    calls.append(1)
    return [os.getpid(), os.getppid(), len(calls)]


def surroundings() -> list:
    heavy = [name for name in ("agentrft", "pydantic", "torch", "numpy") if name in sys.modules]
    return [heavy, os.environ.get("AGENTRFT_TEST"), str(Path.cwd()), sys.stdin.read()]


def hang(started: str, own_session: bool) -> str:
    """Starts a program, and never returns."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    program = subprocess.Popen(["sleep", "60"], start_new_session=own_session)
    new = Path(started + ".new")
    new.write_text(json.dumps([os.getpid(), os.getppid(), program.pid]))
    new.rename(started)
    while True:
        time.sleep(1)


def leave_behind() -> list:
    """A program whose parent has gone."""
    code = "import subprocess; print(subprocess.Popen(['sleep', '60'], start_new_session=True, stdout=-3).pid)"
    found = subprocess.run([sys.executable, "-S", "-c", code], stdout=subprocess.PIPE, check=True)
    return [int(found.stdout)]


def end(how: str) -> str:
    print("on my way", flush=True)  # noqa: T201
    match how:
        case "exit":
            os._exit(3)
        case "segfault":
            ctypes.string_at(0)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "close":
            os.closerange(0, 256)
            time.sleep(30)
        case "junk":
            for fd in range(3, 64):
                with contextlib.suppress(OSError):
                    os.write(fd, b"\0\0\0\x02[]")
            time.sleep(30)
    return "still here"


def fork() -> str:
    return "child" if os.fork() == 0 else "parent"


def chat(n: int) -> str:
    print("x" * n)  # noqa: T201
    print("y" * n, file=sys.stderr)  # noqa: T201
    os.write(1, b"z" * n)
    return "quiet"


class Hostile(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


def fail(how: str) -> str:
    match how:
        case "value":
            raise ValueError("no such é\ud800")
        case "type":
            raise TypeError()
        case "key":
            raise KeyError("k")
        case "hostile":
            raise Hostile()
        case "long":
            raise KeyError("k" * 100_000)
        case "interrupt":
            raise KeyboardInterrupt()
        case "exit":
            sys.exit("bye")
    return ""


def give(what: str) -> object:
    nested = []
    for _ in range(100_000):
        nested = [nested]
    return {
        "nan": float("nan"),
        "generator": (n for n in range(3)),
        "huge": 10**5000,
        "nested": nested,
        "bytes": b"a",
        "surrogate": "a\ud800b",
        "nul": "a\0b",
        "big": 10**400,
        "none": None,
        "million": "é" * 500_000,
        "more": "é" * 500_001,
    }[what]


give.__annotations__.pop("return")


async def pause(seconds: float, how: str = "") -> str:
    await asyncio.sleep(seconds)
    if how:
        fail(how)
    return "rested"


def nested_loop() -> str:
    return asyncio.run(pause(0))


ticks = []


async def tick() -> str:
    async def turn() -> None:
        while True:
            ticks.append(1)
            await asyncio.sleep(0.01)

    started.append(asyncio.create_task(turn()))
    return "on"


def ticked() -> int:
    return len(ticks)


class Box:
    def __init__(self, item: dict) -> None:
        self.item = item
        self.file = Path(item["path"]).open("w") if "path" in item else None  # noqa: SIM115

    def reset(self) -> None:
        time.sleep(self.item.get("reset_s", 0))

    def fields(self) -> str:
        return json.dumps(self.item)

    def write(self, text: str) -> str:
        self.file.write(text)
        return ""

    def close(self) -> None:
        time.sleep(self.item.get("close_s", 0))
