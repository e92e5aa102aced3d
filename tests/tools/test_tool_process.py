"""`isolation: process`: one worker an episode, and how it ends: in time, late, by accident, with the job."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from process_calls import OpenTools, ask, bind, item

from agentrft.errors import ToolFault
from agentrft.tools import PythonBinding, ToolLimits, open_toolset
from agentrft.tools.process import Forker
from agentrft.tools.python_files import PythonFiles
from agentrft.tools.python_tool import load_python_source


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def until(holds: Callable[[], bool], limit_s: float = 10) -> None:
    async with asyncio.timeout(limit_s):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_an_episode_has_one_process(wild: Path, open_tools: OpenTools) -> None:
    (wild / "more.py").write_text("import os\n\n\ndef process() -> int:\n    return os.getpid()\n")
    more = PythonBinding(type="python", target="more.py:process")
    tools = await open_tools(wild, bind("processes"), bind("Box"), more)
    one, two = await tools.open(item(), "trace_1"), await tools.open(item(), "trace_2")
    first, forker, count = json.loads(await ask(one, "processes"))
    assert count == 1
    assert json.loads(await ask(one, "processes")) == [first, forker, 2]
    assert await ask(one, "process") == str(first)
    # what an episode does to globals of the file is gone with it
    second, same_forker, count = json.loads(await ask(two, "processes"))
    assert (second != first, same_forker, count) == (True, forker, 1)
    await one.close()
    assert not lives(first)
    assert lives(second)
    assert json.loads(await ask(two, "processes"))[2] == 2
    await two.close()
    await tools.close()
    assert not lives(forker)


async def test_it_is_a_clean_process_in_the_same_surroundings(
    wild: Path, open_tools: OpenTools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTRFT_TEST", "é")
    session = await (await open_tools(wild, bind("surroundings"))).open(item(), "trace_1")
    assert json.loads(await ask(session, "surroundings")) == [[], "é", os.getcwd(), ""]  # noqa: PTH109
    await session.close()


@pytest.mark.parametrize("own_session", [False, True])
async def test_a_late_call_ends_the_process_and_what_it_started(
    wild: Path, open_tools: OpenTools, own_session: bool
) -> None:
    tools = await open_tools(wild, bind("hang"), bind("processes"), limits=ToolLimits(timeout_s=1))
    sibling = await tools.open(item(), "trace_2")
    session = await tools.open(item(), "trace_1")
    started = wild / "started"
    begin = time.perf_counter()
    with pytest.raises(ToolFault, match=r"hang gave no answer within 1 s"):
        await ask(session, "hang", started=str(started), own_session=own_session)
    worker, _, program = json.loads(started.read_text())
    with pytest.raises(ToolFault, match="processes was stopped, because a call took too long or was given up"):
        await ask(session, "processes")
    await session.close()
    assert time.perf_counter() - begin < 6
    assert not lives(worker)
    await until(lambda: not lives(program))
    assert json.loads(await ask(sibling, "processes"))[2] == 1
    await sibling.close()


async def test_a_call_that_is_given_up_ends_the_process(wild: Path, open_tools: OpenTools) -> None:
    session = await (await open_tools(wild, bind("hang"))).open(item(), "trace_1")
    started = wild / "started"
    hanging = asyncio.create_task(ask(session, "hang", started=str(started), own_session=True))
    await until(started.exists)
    worker, _, program = json.loads(started.read_text())
    hanging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hanging
    await until(lambda: not lives(worker) and not lives(program))
    await session.close()


JOB = """
import asyncio, json, sys
from pathlib import Path
from agentrft.tools import PythonBinding, open_toolset
from agentrft.types import Item, ToolCall


async def main(folder: Path) -> None:
    tools = await open_toolset([PythonBinding(type="python", target="tools.py:hang")], folder)
    arguments = json.dumps({"started": str(folder / "started"), "own_session": True})
    try:
        session = await tools.open(Item(id="row-1", messages=()), "trace_1")
        await session.call(ToolCall(id="call_1_0", name="hang", arguments=arguments))
    finally:
        await tools.close()


try:
    asyncio.run(main(Path(sys.argv[1])))
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize(("number", "said"), [(signal.SIGKILL, b""), (signal.SIGINT, b"interrupted\n")])
async def test_everything_ends_with_the_job(wild: Path, number: int, said: bytes) -> None:
    pipe = asyncio.subprocess.PIPE
    job = await asyncio.create_subprocess_exec(
        sys.executable, "-c", JOB, str(wild), stdout=pipe, stderr=pipe, start_new_session=True
    )
    started = wild / "started"
    await until(started.exists, limit_s=60)
    pids = json.loads(started.read_text())
    assert all(map(lives, pids))
    os.killpg(job.pid, number)  # as Ctrl-C in a terminal does
    assert await job.communicate() == (said, b"")
    await until(lambda: not any(map(lives, pids)))


async def test_programs_left_behind_end_with_the_episode(wild: Path, open_tools: OpenTools) -> None:
    tools = await open_tools(wild, bind("leave_behind"))
    session, sibling = await tools.open(item(), "trace_1"), await tools.open(item(), "trace_2")
    (mine,), (theirs,) = [json.loads(await ask(each, "leave_behind")) for each in (session, sibling)]
    await session.close()
    await until(lambda: not lives(mine))
    assert lives(theirs)
    await sibling.close()
    await until(lambda: not lives(theirs))


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("exit", "lost its process, which left with exit code 3; it last printed: on my way$"),
        ("segfault", r"died of SIGSEGV; it last printed: on my way / .*Segmentation fault.*tools\.py"),
        ("kill", r"died of SIGKILL \(often the system's memory limit\); it last printed: on my way$"),
        ("close", "lost its process, which closed its connection, and was stopped"),
        ("junk", "lost its process, which closed its connection, and was stopped"),
    ],
)
async def test_the_death_of_a_process_is_a_fault(wild: Path, open_tools: OpenTools, how: str, words: str) -> None:
    tools = await open_tools(wild, bind("end"))
    session = await tools.open(item(), "trace_1")
    with pytest.raises(ToolFault, match=words):
        await ask(session, "end", how=how)
    with pytest.raises(ToolFault, match=words):
        await ask(session, "end", how="")
    await session.close()
    other = await tools.open(item(), "trace_2")
    assert await ask(other, "end", how="") == "still here"
    await other.close()


async def test_a_tool_that_forks_answers_once(wild: Path, open_tools: OpenTools) -> None:
    session = await (await open_tools(wild, bind("fork"))).open(item(), "trace_1")
    assert [await ask(session, "fork") for _ in range(3)] == ["parent"] * 3
    await session.close()


async def test_starting_late_and_closing_late(
    wild: Path, open_tools: OpenTools, caplog: pytest.LogCaptureFixture
) -> None:
    tools = await open_tools(wild, bind("Box"), limits=ToolLimits(timeout_s=1))
    with pytest.raises(ToolFault, match=r"tool tools\.py:Box was not ready within 1 s"):
        await tools.open(item(reset_s=30), "trace_1")
    session = await tools.open(item(close_s=30), "trace_2")
    start = time.perf_counter()
    await session.close()
    assert time.perf_counter() - start < 6
    assert "Box.close took longer than 1 s" in caplog.text


async def test_no_more_processes_than_allowed(wild: Path) -> None:
    files = PythonFiles(wild)
    files.forker = Forker(max_workers=1)
    source = load_python_source(bind("processes"), files, param="agent.tools.0.target")
    first = await source.open(item(), "trace_1", 5)
    with pytest.raises(ToolFault, match=r"waited 0\.1 s for one of 1 processes to end"):
        await source.open(item(), "trace_2", 0.1)
    waiting = asyncio.create_task(source.open(item(), "trace_3", 5))
    await asyncio.sleep(0.05)
    await first.close()
    await (await waiting).close()
    await source.close()
    with pytest.raises(ToolFault, match="opened after their job ended"):
        await source.open(item(), "trace_4", 5)


async def test_nothing_is_left_after_many_episodes(wild: Path) -> None:
    tools = await open_toolset([bind("processes"), bind("Box"), bind("end")], wild)
    await (await tools.open(item(), "trace_0")).close()
    before = len(os.listdir("/dev/fd")), threading.active_count()  # noqa: PTH208
    seen: list[int] = []
    places = asyncio.Semaphore(16)

    async def play(number: int) -> None:
        async with places:
            session = await tools.open(item(), f"trace_{number}")
            seen.extend(json.loads(await ask(session, "processes"))[:2])
            if number % 3 == 0:
                with pytest.raises(ToolFault):
                    await ask(session, "end", how="exit")
            await session.close()

    await asyncio.gather(*map(play, range(300)))
    await asyncio.sleep(0)
    assert (len(os.listdir("/dev/fd")), threading.active_count()) == before  # noqa: PTH208
    assert len(set(seen)) == 301
    assert [pid for pid in set(seen) if lives(pid)] == [seen[1]]
    await tools.close()
    assert not lives(seen[1])
    assert len(asyncio.all_tasks()) == 1


async def test_the_loss_of_the_forking_process_is_mended(wild: Path, open_tools: OpenTools) -> None:
    tools = await open_tools(wild, bind("processes"), bind("pause"))
    session = await tools.open(item(), "trace_1")
    worker, forker, _ = json.loads(await ask(session, "processes"))
    pausing = asyncio.create_task(ask(session, "pause", seconds=30))
    await asyncio.sleep(0.05)
    os.kill(forker, signal.SIGKILL)
    with pytest.raises(ToolFault, match="lost its process, which ended with the one that forks them"):
        await pausing
    await session.close()
    await until(lambda: not lives(worker))
    session = await tools.open(item(), "trace_2")
    assert json.loads(await ask(session, "processes"))[2] == 1
    await session.close()


def test_one_event_loop_after_another(wild: Path) -> None:
    source = load_python_source(bind("processes"), PythonFiles(wild), param="agent.tools.0.target")

    async def play(*, is_last: bool) -> list[int]:
        session = await source.open(item(), "trace_1", 10)
        (tool,) = session.tools
        found = json.loads(await tool.call({}, None))  # type: ignore[arg-type]
        await session.close()
        if is_last:
            await source.close()
        return found

    with asyncio.Runner() as first, asyncio.Runner() as second:
        one = first.run(play(is_last=False))
        two = second.run(play(is_last=True))
        assert one[1] != two[1]
        first.run(asyncio.sleep(0))
        assert not any(map(lives, one[:2] + two[:2]))
