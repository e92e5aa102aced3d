"""`isolation: process`: what goes into a worker, what comes back, and how calls share it."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from process_calls import OpenTools, ask, bind, call, item

from agentrft.errors import ToolFault, UserError
from agentrft.net.secrets import MASK
from agentrft.tools import PythonBinding, ToolLimits
from agentrft.types import ToolResult


async def test_prints_do_not_reach_the_protocol(wild: Path, open_tools: OpenTools) -> None:
    session = await (await open_tools(wild, bind("chat"), bind("end"))).open(item(), "trace_1")
    assert await ask(session, "chat", n=1_000_000) == "quiet"
    with pytest.raises(ToolFault) as caught:
        await ask(session, "end", how="exit")
    assert str(caught.value).endswith("on my way")
    assert len(str(caught.value)) < 800
    await session.close()


async def test_what_it_printed_last_is_told_without_keys(
    wild: Path, open_tools: OpenTools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_API_KEY", "canary-of-the-environment")
    body = '    print("with", os.environ["SHOP_API_KEY"], flush=True)\n    os._exit(3)\n'
    (wild / "more.py").write_text(f"import os\n\n\ndef leak() -> str:\n{body}")
    binding = PythonBinding(type="python", target="more.py:leak")
    session = await (await open_tools(wild, binding)).open(item(), "trace_1")
    with pytest.raises(ToolFault) as caught:
        await ask(session, "leak")
    assert str(caught.value).endswith(f"it last printed: with {MASK}")
    await session.close()


WHAT_TOOLS_RAISE = {
    "key": r"tool fail raised KeyError: 'k' \(tools\.py:\d+\)",
    "hostile": r"tool fail raised Hostile: \(its message cannot be shown\) \(tools\.py:\d+\)",
    "long": r"tool fail raised KeyError: 'k{1999}… \(tools\.py:\d+\)",
    "interrupt": r"tool fail raised KeyboardInterrupt:  \(tools\.py:\d+\)",
    "exit": r"tool fail raised SystemExit: bye \(tools\.py:\d+\)",
}


async def test_what_tools_raise(wild: Path, open_tools: OpenTools) -> None:
    session = await (await open_tools(wild, bind("fail"), bind("pause"))).open(item(), "trace_1")
    for how, words in WHAT_TOOLS_RAISE.items():
        with pytest.raises(ToolFault, match=words):
            await ask(session, "fail", how=how)
        with pytest.raises(ToolFault, match=words.replace("tool fail", "tool pause")):
            await ask(session, "pause", seconds=0, how=how)
    assert await ask(session, "pause", seconds=0) == "rested"  # the process goes on
    await session.close()


async def test_wrong_arguments_are_told_to_the_model(wild: Path, open_tools: OpenTools) -> None:
    session = await (await open_tools(wild, bind("fail"), bind("pause"))).open(item(), "trace_1")
    assert await ask(session, "fail", how="value") == "error: no such é?"
    assert await ask(session, "fail", how="type") == "error: TypeError"
    assert await ask(session, "pause", seconds=0, how="value") == "error: no such é?"
    await session.close()


WHAT_TOOLS_RETURN = {
    "surrogate": "a?b",
    "nul": "ab",
    "big": str(10**400),
    "none": "null",
    "million": "é" * 500_000,
    "more": "error: the output has 1000002 bytes, at most 1000000 can be returned; ask for less",
}


async def test_what_tools_return(wild: Path, open_tools: OpenTools) -> None:
    limits = ToolLimits(output_tokens=1_000_000, count_tokens=len)
    session = await (await open_tools(wild, bind("give"), limits=limits)).open(item(), "trace_1")
    for what, shown in WHAT_TOOLS_RETURN.items():
        assert await ask(session, "give", what=what) == shown
    await session.close()


WHAT_IS_NO_JSON_IS_A_FAULT = {
    "nan": "tool give returned float, expected a string or JSON: Out of range float values",
    "generator": "tool give returned generator, expected a string or JSON: Object of type generator",
    "huge": "tool give returned int, expected a string or JSON: Exceeds the limit",
    "nested": "tool give raised RecursionError: maximum recursion depth exceeded",
    "bytes": "tool give returned bytes, expected a string or JSON: Object of type bytes",
}


async def test_what_is_no_json_is_a_fault(wild: Path, open_tools: OpenTools) -> None:
    session = await (await open_tools(wild, bind("give"))).open(item(), "trace_1")
    for what, words in WHAT_IS_NO_JSON_IS_A_FAULT.items():
        with pytest.raises(ToolFault, match=words):
            await ask(session, "give", what=what)
    assert await ask(session, "give", what="none") == "null"
    await session.close()


async def test_an_items_fields_arrive_as_they_are(wild: Path, open_tools: OpenTools) -> None:
    fields: dict[str, Any] = {
        "numbers": [0, -1, 10**30, 0.1, -0.0, 1e-300, 1.5e300, float("inf")],
        "texts": ["", "é", "\ud800", "\0", "\u2028", "a\nb", "𝄞"],
        "é": {"": None, "a": [True, False, [], {}]},
        "large": "x" * 3_000_000,
    }
    session = await (await open_tools(wild, bind("Box"), limits=ToolLimits(output_tokens=100))).open(
        item(**{key: value for key, value in fields.items() if key != "large"}), "trace_1"
    )
    assert json.loads((await session.call(call("fields"))).output) == {k: v for k, v in fields.items() if k != "large"}
    await session.close()
    session = await (await open_tools(wild, bind("Box"))).open(item(**fields), "trace_1")
    assert await ask(session, "fields") == (
        "error: the output has 3000234 bytes, at most 1000000 can be returned; ask for less"
    )
    await session.close()


async def test_an_item_that_is_not_json_is_a_fault(wild: Path, open_tools: OpenTools) -> None:
    with pytest.raises(ToolFault, match=r"cannot be written as JSON: Object of type \w*Path"):
        await (await open_tools(wild, bind("Box"))).open(item(path=wild), "trace_1")


async def test_async_calls_run_side_by_side_and_others_in_turn(wild: Path, open_tools: OpenTools) -> None:
    session = await (await open_tools(wild, bind("pause"), bind("processes"))).open(item(), "trace_1")
    start = time.perf_counter()
    calls = [call("pause", seconds=1), call("pause", seconds=1), call("processes"), call("processes")]
    results: list[ToolResult] = await session.run(calls)
    assert time.perf_counter() - start < 1.9
    assert [result.output for result in results[:2]] == ["rested", "rested"]
    assert [json.loads(result.output)[2] for result in results[2:]] == [1, 2]
    assert all(result.wall_s < 0.9 for result in results[2:])  # they did not wait for those that sleep
    await session.close()


async def test_waiting_for_the_process_is_not_time_of_the_call(wild: Path, open_tools: OpenTools) -> None:
    (wild / "slow.py").write_text("import time\n\n\ndef nap() -> str:\n    time.sleep(0.3)\n    return 'awake'\n")
    nap = PythonBinding(type="python", target="slow.py:nap")
    session = await (await open_tools(wild, nap, limits=ToolLimits(timeout_s=1))).open(item(), "trace_1")
    assert [result.output for result in await session.run([call("nap")] * 4)] == ["awake"] * 4
    await session.close()


async def test_loops_of_tools(wild: Path, open_tools: OpenTools) -> None:
    names = ("nested_loop", "tick", "ticked")
    session = await (await open_tools(wild, *map(bind, names))).open(item(), "trace_1")
    assert await ask(session, "tick") == "on"
    assert await ask(session, "nested_loop") == "rested"
    await asyncio.sleep(0.2)
    assert int(await ask(session, "ticked")) > 3  # tasks that a tool leaves behind run on between calls
    await session.close()


async def test_files_left_open_are_flushed(wild: Path, open_tools: OpenTools) -> None:
    session = await (await open_tools(wild, bind("Box"))).open(item(path=str(wild / "out")), "trace_1")
    await ask(session, "write", text="kept")
    await session.close()
    assert (wild / "out").read_text() == "kept"


async def test_files_that_run_here_but_not_in_a_fresh_process(wild: Path, open_tools: OpenTools) -> None:
    code = "import sys\n{}\n\n\ndef look() -> str:\n    return ''\n"
    (wild / "raises.py").write_text(code.format("if 'agentrft' not in sys.modules:\n    raise OSError('no agent')"))
    (wild / "dies.py").write_text(code.format("import os\nif 'agentrft' not in sys.modules:\n    os._exit(9)"))
    tools = await open_tools(wild, PythonBinding(type="python", target="raises.py:look"))
    with pytest.raises(
        UserError, match=r"raises\.py raised OSError: no agent \(raises\.py:3\) in the process"
    ) as caught:
        await tools.open(item(), "trace_1")
    assert (caught.value.param, caught.value.code) == ("agent.tools", "invalid_tool")
    tools = await open_tools(wild, PythonBinding(type="python", target="dies.py:look"))
    with pytest.raises(ToolFault, match=r"runs .*dies\.py left with exit code 9 before it was ready"):
        await tools.open(item(), "trace_1")


async def test_edits_while_a_job_runs_do_not_reach_it(wild: Path, open_tools: OpenTools) -> None:
    (wild / "old.py").write_text("# -*- coding: latin-1 -*-\ndef age() -> str:\n    return 'é'\n", "latin-1")
    tools = await open_tools(wild, PythonBinding(type="python", target="old.py:age"))
    (wild / "old.py").write_text("def age() -> str:\n    return 'new'\n")
    session = await tools.open(item(), "trace_1")
    assert await ask(session, "age") == "é"
    await session.close()


async def test_threads_of_a_file_are_warned_about(
    wild: Path, open_tools: OpenTools, caplog: pytest.LogCaptureFixture
) -> None:
    code = "import threading, time\nthreading.Thread(target=time.sleep, args=[1], daemon=True, name='pump').start()\n"
    (wild / "busy.py").write_text(code + "\n\ndef look() -> str:\n    return 'seen'\n")
    session = await (await open_tools(wild, PythonBinding(type="python", target="busy.py:look"))).open(item(), "t")
    assert await ask(session, "look") == "seen"
    assert "workers have none of the threads it starts (pump): start them in reset" in caplog.text
    await session.close()
