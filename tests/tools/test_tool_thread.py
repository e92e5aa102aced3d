"""`isolation: thread`: turns, time limits, and the end of an episode."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from pathlib import Path

import pytest

from agentrft.errors import ToolFault, UserError
from agentrft.tools import JobTools, PythonBinding, ToolLimits, open_toolset
from agentrft.tools.toolset import EpisodeTools
from agentrft.types import Item, ToolCall

TOOLS = """
import asyncio
import threading
import time
from pathlib import Path


class Slow:
    def __init__(self, item: dict) -> None:
        self.item, self.folder = item, Path(item["folder"])

    def _note(self, text: str) -> None:
        with open(self.folder / "log", "a") as file:
            print(text, "on", threading.current_thread().name, file=file)

    def _hang(self) -> None:
        end = time.monotonic() + 10
        while not (self.folder / "free").exists() and time.monotonic() < end:
            time.sleep(0.002)

    def reset(self) -> None:
        if self.item.get("resets_late"):
            self._hang()

    def close(self) -> None:
        self._note("close")
        if self.item.get("close_fails"):
            raise KeyError("the lock file is gone")

    def nap(self, seconds: float) -> str:
        time.sleep(seconds)
        return "awake"

    def hang(self) -> str:
        self._hang()
        self._note("hang")
        return "late"


class Waits(Slow):
    async def reset(self) -> None:
        await asyncio.sleep(0)
        self._note("reset")

    async def close(self) -> None:
        await asyncio.sleep(0)
        self._note("close")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tools.py").write_text(TOOLS)
    return tmp_path


async def slow(folder: Path, *, name: str = "Slow", timeout_s: float) -> JobTools:
    binding = PythonBinding(type="python", target=f"tools.py:{name}", isolation="thread")
    return await open_toolset([binding], folder, ToolLimits(timeout_s=timeout_s))


def item(folder: Path, **fields: object) -> Item:
    return Item(id="row-1", messages=(), fields={"folder": str(folder), **fields})


async def call(session: EpisodeTools, name: str, arguments: str = "{}") -> str:
    return (await session.call(ToolCall(id="call_1_0", name=name, arguments=arguments))).output


async def hang(folder: Path, *, name: str = "Slow", **fields: object) -> None:
    """An episode that gives one call up and ends while that still runs."""
    session = await (await slow(folder, name=name, timeout_s=0.1)).open(item(folder, **fields), "trace_1")
    with pytest.raises(ToolFault, match="hang gave no answer"):
        await call(session, "hang")
    await session.close()


def set_free(folder: Path) -> None:
    """Let the call that hangs return, and its thread end."""
    (folder / "free").touch()
    for thread in threading.enumerate():
        if thread.name.startswith("tools "):
            thread.join(10)


async def finish_tasks() -> None:
    """Until nothing is left to do on the event loop."""
    async with asyncio.timeout(10):
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})


def log(folder: Path) -> list[str]:
    return (folder / "log").read_text().splitlines()


async def test_waiting_behind_another_call_is_not_time_of_the_call(folder: Path) -> None:
    session = await (await slow(folder, timeout_s=0.9)).open(item(folder), "trace_1")
    start = time.perf_counter()
    # one after the other they take 1 s, each of them 0.25 s
    answers = await asyncio.gather(*(call(session, "nap", '{"seconds": 0.25}') for _ in range(4)))
    assert answers == ["awake"] * 4
    assert time.perf_counter() - start > 0.95
    await session.close()


async def test_async_reset_and_close_are_awaited_on_the_event_loop(folder: Path) -> None:
    session = await (await slow(folder, name="Waits", timeout_s=5)).open(item(folder), "trace_1")
    await session.close()
    assert log(folder) == ["reset on MainThread", "close on MainThread"]


async def test_close_follows_a_late_call_and_nobody_waits(folder: Path) -> None:
    await hang(folder)
    assert not (folder / "log").exists()
    set_free(folder)
    assert log(folder) == ["hang on tools tools.py:Slow", "close on tools tools.py:Slow"]


async def test_close_follows_a_late_reset(folder: Path) -> None:
    with pytest.raises(ToolFault, match="TimeoutError"):
        await (await slow(folder, timeout_s=0.1)).open(item(folder, resets_late=True), "trace_1")
    set_free(folder)
    assert log(folder) == ["close on tools tools.py:Slow"]


async def test_async_close_follows_a_late_call(folder: Path) -> None:
    await hang(folder, name="Waits")
    set_free(folder)
    await finish_tasks()
    assert log(folder)[1:] == ["hang on tools tools.py:Waits", "close on MainThread"]


async def test_what_a_close_behind_a_late_call_raises_is_logged(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        await hang(folder, close_fails=True)
        set_free(folder)
        await finish_tasks()
    assert "close raised KeyError: 'the lock file is gone'" in caplog.text


def test_close_follows_a_late_call_even_when_the_event_loop_is_gone(folder: Path) -> None:
    asyncio.run(hang(folder))
    set_free(folder)
    assert log(folder) == ["hang on tools tools.py:Slow", "close on tools tools.py:Slow"]


async def test_the_job_stops_when_eight_threads_hang(folder: Path) -> None:
    tools = await slow(folder, timeout_s=0.05)
    for k in range(8):
        session = await tools.open(item(folder), f"trace_{k}")
        with pytest.raises(ToolFault, match="hang gave no answer"):
            await call(session, "hang")
        await session.close()
    with pytest.raises(UserError, match=r"8 threads hang .*tools\.py:Slow.*isolation: process") as caught:
        await tools.open(item(folder), "trace_8")
    assert (caught.value.param, caught.value.code) == ("agent.tools", "tool_threads_stuck")
    # another job has threads of its own, and those that came free count no more
    other = await (await slow(folder, timeout_s=5)).open(item(folder), "trace_9")
    await other.close()
    set_free(folder)
    session = await tools.open(item(folder), "trace_10")
    assert await call(session, "nap", '{"seconds": 0}') == "awake"
    await session.close()


async def test_threads_that_ended_in_time_do_not_count(folder: Path) -> None:
    tools = await slow(folder, timeout_s=5)
    for k in range(10):
        await (await tools.open(item(folder), f"trace_{k}")).close()
