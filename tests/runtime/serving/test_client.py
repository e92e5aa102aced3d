"""The engine process through its client: cancelling, crashes, bounds, strangers, its end."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from agentrft.errors import EngineFault, UserError
from agentrft.runtime.serving.client import EngineClient
from agentrft.runtime.serving.wire import (
    ChatRequest,
    Started,
)

Ask = Callable[..., ChatRequest]
Hear = Callable[..., Any]
Client = Callable[..., EngineClient]

PLACE = {"type": "object", "properties": {"place": {"enum": ["here", "über all"]}}, "required": ["place"]}
TOOLS = [
    {"type": "function", "function": {"name": "look", "description": "Look somewhere.", "parameters": PLACE}},
    {"type": "function", "function": {"name": "wait", "parameters": {"type": "object", "properties": {}}}},
]
HOT = {"temperature": 1.0}


# ---- cancelling, crashes, ends


async def test_closing_a_reply_cancels_it(client: Client, asked: Ask, hear: Hear) -> None:
    engine = client()
    long = asked("hermes", max_tokens=1500, stop=[])
    for _ in range(3):
        events = engine.chat(long)
        assert isinstance(await anext(events), Started)
        await anext(events)
        await events.aclose()
    task = asyncio.create_task(hear(engine, long))
    await asyncio.sleep(0.2)
    task.cancel()
    process = psutil.Process(engine.pid)
    before = process.cpu_times()
    await asyncio.sleep(1.0)
    after = process.cpu_times()
    assert after.user - before.user < 0.3  # it does nothing for those who left


@pytest.mark.timeout(120)
async def test_after_a_crash_it_starts_again(client: Client, asked: Ask, hear: Hear) -> None:
    engine = client(backoff_s=0.3)
    text = (await hear(engine, asked("hermes"))).text
    # Several, since a random model may end any of them before the kill.
    long = [asyncio.create_task(hear(engine, asked("hermes", max_tokens=1900, seed=seed))) for seed in range(8)]
    await asyncio.sleep(0.3)
    under_way = [task for task in long if not task.done()]
    assert under_way
    os.kill(engine.pid or 0, signal.SIGKILL)
    for task in under_way:
        with pytest.raises(EngineFault, match="exit code -9"):
            await task
    assert (await hear(engine, asked("hermes"))).text == text
    assert engine.starts == 2
    # Crash after crash without an answer in between: it waits longer and longer.
    waits = []
    for _ in range(3):
        psutil.Process(engine.pid).kill()
        while engine.pid is not None:  # noqa: ASYNC110  (a process tells nobody of its end)
            await asyncio.sleep(0.01)
        begin = time.monotonic()
        await engine.start()
        waits.append(time.monotonic() - begin)
    assert waits[1] >= 0.3
    assert waits[2] >= 0.6


async def test_at_the_end_requests_get_an_error_and_nothing_is_left(client: Client, asked: Ask, hear: Hear) -> None:
    engine = client()
    await engine.start()
    folder = engine._folder
    assert folder is not None
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(engine._socket().stat().st_mode) == 0o600
    under_way = asyncio.create_task(hear(engine, asked("hermes", max_tokens=1900)))
    await asyncio.sleep(1.5)
    process = psutil.Process(engine.pid)
    await engine.close()
    await engine.close()
    with pytest.raises(EngineFault, match="stopping"):
        await under_way
    assert not process.is_running()
    assert not folder.exists()
    with pytest.raises(EngineFault, match="closed"):
        await hear(engine, asked("hermes"))


def test_it_ends_when_its_parent_dies(tmp_path: Path) -> None:
    socket = tmp_path / "own" / "s"
    socket.parent.mkdir(mode=0o700)
    script = (
        "import subprocess, sys, time\n"
        f"p = subprocess.Popen([sys.executable, '-m', 'agentrft.runtime.serving', '--socket', {str(socket)!r}])\n"
        "print(p.pid, flush=True)\ntime.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    _until(socket.exists)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    _until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
    assert not socket.parent.exists()


def _until(holds: Callable[[], bool], limit_s: float = 20.0) -> None:
    deadline = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("kind", ["open folder", "long path", "taken"])
def test_a_socket_that_others_could_reach_is_refused(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 100 if kind == "long path" else "folder")
    folder.mkdir(mode=0o700)
    if kind == "open folder":
        folder.chmod(0o755)
    if kind == "taken":
        (folder / "s").touch()
    command = [sys.executable, "-m", "agentrft.runtime.serving", "--socket", str(folder / "s")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "expected" in done.stderr or "shorter" in done.stderr


async def test_without_torch_it_says_what_to_install(
    client: Client, asked: Ask, hear: Hear, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # what an interpreter without torch looks like to importlib
    with pytest.raises(UserError, match="pip install") as refused:
        await hear(client(), asked())
    assert refused.value.code == "torch_missing"
