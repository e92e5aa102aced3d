"""Python functions and classes as tools, and the tool set made of them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from agentrft.errors import ToolFault, UserError
from agentrft.tools import JobTools, PythonBinding, ToolLimits
from agentrft.types import Item, ToolCall, ToolSpec

TOOLS = '''
from __future__ import annotations

import asyncio
import sqlite3
import sys
import time
from dataclasses import dataclass

runs = []
runs.append(1)


@dataclass
class Point:
    """A dataclass, whose decorator looks its module up while the file runs."""
    x: int


def double(n: int) -> int:
    """Twice N."""
    return n * 2


async def wait(text: str) -> str:
    """TEXT, later."""
    await asyncio.sleep(0)
    return text


def loads() -> list:
    return runs


def sleepy(seconds: float) -> str:
    time.sleep(seconds)
    return "awake"


def leave() -> str:
    sys.exit(3)


def stop() -> str:
    raise StopIteration("no more")


def strange() -> object:
    return object()


strange.__annotations__.clear()
answer = 42


class Base:
    def first(self) -> str:
        """Base."""
        return "base first"

    def second(self) -> str:
        return "base second"


class Notes(Base):
    """Notes of one episode."""

    def __init__(self, item: dict) -> None:
        self.item = item
        self.notes: list[str] = []
        self.log = item.get("log")

    def reset(self) -> None:
        self.notes.append("reset")

    async def close(self) -> None:
        if self.item.get("close_fails"):
            raise KeyError("close")
        with open(self.log, "a") as file:
            file.write("closed\\n")

    def state_hash(self) -> str:
        return ""

    def add(self, text: str) -> str:
        """Add a note.

        Args:
            text: What to note.
        """
        self.notes.append(text)
        self.item["words"].append(text)
        return " ".join(self.notes)

    def first(self) -> str:
        """Own."""
        return "own first"

    @staticmethod
    def shout(text: str) -> str:
        return text.upper()

    @classmethod
    def kind(cls) -> str:
        return cls.__name__

    @property
    def size(self) -> int:
        return len(self.notes)

    def _hidden(self) -> str:
        return ""


def numbers(n: int | None, ns: list[int], by: float) -> list:
    return [n, ns, by]


class Fails:
    def __init__(self, item: dict) -> None:
        raise LookupError("no such item")

    def look(self) -> str:
        return ""


class Needs:
    def __init__(self, item: dict, more: str) -> None:
        pass

    def look(self) -> str:
        return ""


class Empty:
    def __init__(self, item: dict) -> None:
        pass


class Database:
    """sqlite3 objects refuse other threads than the one that made them."""

    def __init__(self, item: dict) -> None:
        self.connection = sqlite3.connect(":memory:")

    def close(self) -> None:
        self.connection.close()

    def value(self) -> int:
        return self.connection.execute("SELECT 7").fetchone()[0]
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tools.py").write_text(TOOLS)
    return tmp_path


ALL = pytest.mark.parametrize("isolation", ["process", "thread", "inline"])
ANY_ASYNC = pytest.mark.parametrize("isolation", ["process", "inline"])
OpenTools = Callable[..., Awaitable[JobTools]]


def bind(name: str, **more: str) -> PythonBinding:
    return PythonBinding(type="python", target=f"tools.py:{name}", **more)  # type: ignore[arg-type]


def call(name: str, arguments: str = "{}") -> ToolCall:
    return ToolCall(id="call_1_0", name=name, arguments=arguments)


def item(**fields: object) -> Item:
    return Item(id="row-1", messages=(), fields=fields)


def test_tools_run_in_processes_unless_told_otherwise() -> None:
    assert bind("double").isolation == "process"


@ANY_ASYNC
async def test_functions_sync_and_async(folder: Path, open_tools: OpenTools, isolation: str) -> None:
    toolset = await open_tools(folder, bind("double", isolation=isolation), bind("wait", isolation=isolation))
    session = await toolset.open(item(), "trace_1")
    assert [(spec.name, spec.description) for spec in session.specs] == [
        ("double", "Twice N."),
        ("wait", "TEXT, later."),
    ]
    assert (await session.call(call("double", '{"n": 4}'))).output == "8"
    # JSON Schema counts 4.0 as an integer: the function still gets an int
    assert (await session.call(call("double", '{"n": 4.0}'))).output == "8"
    assert (await session.call(call("wait", '{"text": "é"}'))).output == "é"
    await session.close()
    await session.close()
    with pytest.raises(ToolFault, match="after its episode ended"):
        await session.call(call("double", '{"n": 4}'))


@ALL
async def test_integers_reach_the_function_as_integers(folder: Path, open_tools: OpenTools, isolation: str) -> None:
    session = await (await open_tools(folder, bind("numbers", isolation=isolation))).open(item(), "trace_1")
    shown = await session.call(call("numbers", '{"n": 3.0, "ns": [1.0, 2], "by": 2.0}'))
    assert shown.output == "[3, [1, 2], 2.0]"
    await session.close()


@ALL
async def test_a_file_runs_once_a_job(folder: Path, open_tools: OpenTools, isolation: str) -> None:
    toolset = await open_tools(folder, *(bind(name, isolation=isolation) for name in ("loads", "double", "Notes")))
    session = await toolset.open(item(log=str(folder / "log")), "trace_1")
    assert (await session.call(call("loads"))).output == "[1]"
    await session.close()


@ALL
async def test_a_class_is_built_for_each_episode_from_its_own_copy(
    folder: Path, open_tools: OpenTools, isolation: str
) -> None:
    toolset = await open_tools(folder, bind("Notes", isolation=isolation))
    assert [spec.name for spec in toolset.specs] == ["first", "second", "add", "shout", "kind"]
    assert toolset.specs[2].parameters["properties"] == {"text": {"type": "string", "description": "What to note."}}
    task = item(words=[], log=str(folder / "log"))
    one, two = await toolset.open(task, "trace_1"), await toolset.open(task, "trace_2")
    assert (await one.call(call("add", '{"text": "a"}'))).output == "reset a"
    assert (await one.call(call("add", '{"text": "b"}'))).output == "reset a b"
    assert (await two.call(call("add", '{"text": "c"}'))).output == "reset c"
    assert (await two.call(call("first"))).output == "own first"
    assert (await two.call(call("shout", '{"text": "c"}'))).output == "C"
    assert (await two.call(call("kind"))).output == "Notes"
    assert task.fields["words"] == []
    await one.close()
    await two.close()
    assert (folder / "log").read_text() == "closed\nclosed\n"


@ALL
async def test_a_class_that_cannot_start_or_close(
    folder: Path, open_tools: OpenTools, isolation: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ToolFault, match=r"tools\.py:Fails raised LookupError: no such item \(tools\.py:\d+\)"):
        await (await open_tools(folder, bind("Fails", isolation=isolation))).open(item(), "trace_1")
    toolset = await open_tools(folder, bind("Notes", isolation=isolation))
    session = await toolset.open(item(close_fails=True), "trace_1")
    with caplog.at_level(logging.WARNING):
        await session.close()
    assert "close raised KeyError" in caplog.text


async def test_thread_isolation_keeps_one_thread_and_a_real_time_limit(folder: Path, open_tools: OpenTools) -> None:
    bindings = [bind(name, isolation="thread") for name in ("Database", "sleepy")]
    toolset = await open_tools(folder, *bindings, limits=ToolLimits(timeout_s=0.05))
    before = threading.active_count()
    session = await toolset.open(item(), "trace_1")
    assert threading.active_count() == before + 2
    assert [(await session.call(call("value"))).output for _ in range(3)] == ["7", "7", "7"]
    start = time.perf_counter()
    with pytest.raises(ToolFault, match=r"sleepy gave no answer within 0\.05 s"):
        await session.call(call("sleepy", '{"seconds": 0.5}'))
    assert time.perf_counter() - start < 0.4
    await session.close()
    assert time.perf_counter() - start < 0.4  # closing does not wait for the stuck call
    for thread in threading.enumerate():
        if thread.name.startswith("tools "):
            thread.join(5)
    assert threading.active_count() <= before


@ALL
async def test_wild_tools_are_faults(folder: Path, open_tools: OpenTools, isolation: str) -> None:
    toolset = await open_tools(folder, *(bind(name, isolation=isolation) for name in ("leave", "stop", "strange")))
    session = await toolset.open(item(), "trace_1")
    with pytest.raises(ToolFault, match="SystemExit"):
        await session.call(call("leave"))
    with pytest.raises(ToolFault, match="StopIteration"):
        await session.call(call("stop"))
    with pytest.raises(ToolFault, match="returned object, expected a string or JSON"):
        await session.call(call("strange"))
    await session.close()


async def test_inline_lateness_is_a_fault(folder: Path, open_tools: OpenTools) -> None:
    toolset = await open_tools(folder, bind("sleepy", isolation="inline"), limits=ToolLimits(timeout_s=0.01))
    session = await toolset.open(item(), "trace_1")
    with pytest.raises(ToolFault, match="gave no answer within"):
        await session.call(call("sleepy", '{"seconds": 0.03}'))


@pytest.mark.parametrize(
    ("target", "words", "code"),
    [
        ("nowhere.py:x", "no file .*nowhere.py; the path is relative to the job file", "tool_not_found"),
        ("tools.py:doubel", "has no doubel; it has Point, double, wait, loads", "tool_not_found"),
        ("tools.py:answer", "it is a int; name a function, or a class", "invalid_tool"),
        ("tools.py:Empty", "it has no public methods", "invalid_tool"),
        ("tools.py:Needs", "it cannot be built from one item", "invalid_tool"),
        ("broken.py:x", "raised SyntaxError on import", "invalid_tool"),
        ("quits.py:x", "raised SystemExit on import: 1; run `python .*/quits.py` to see it", "invalid_tool"),
        (
            "sibling.py:x",
            "No module named 'helpers'; .* is not on sys.path: install that module, or put its code into sibling.py",
            "invalid_tool",
        ),
        ("bare.py:look", "parameter where has no type annotation", "invalid_tool"),
        ("nothing.py:x", "has no x; it has no public functions or classes", "tool_not_found"),
    ],
)
async def test_targets_that_give_no_tool(
    folder: Path, open_tools: OpenTools, target: str, words: str, code: str
) -> None:
    (folder / "broken.py").write_text("def x(:\n")
    (folder / "quits.py").write_text("import sys\nsys.exit(1)\n")
    (folder / "sibling.py").write_text("from helpers import x\n")
    (folder / "helpers.py").write_text("def x() -> str:\n    return ''\n")
    (folder / "bare.py").write_text("def look(where):\n    return where\n")
    (folder / "nothing.py").write_text("")
    with pytest.raises(UserError, match=words) as caught:
        await open_tools(folder, bind("double"), PythonBinding(type="python", target=target))
    assert (caught.value.param, caught.value.code) == ("agent.tools.1.target", code)


async def test_async_tools_cannot_be_moved_to_a_thread(folder: Path, open_tools: OpenTools) -> None:
    with pytest.raises(UserError, match=r"has async wait.*leave isolation out"):
        await open_tools(folder, bind("wait", isolation="thread"))


async def test_two_tools_of_one_name(folder: Path, open_tools: OpenTools) -> None:
    (folder / "more.py").write_text("def double(n: int) -> int:\n    return n\n")
    with pytest.raises(UserError, match="two tools are named double") as caught:
        await open_tools(folder, bind("double"), PythonBinding(type="python", target="more.py:double"))
    assert caught.value.param == "agent.tools.1"


async def test_same_file_names_in_two_folders_do_not_mix(tmp_path: Path, open_tools: OpenTools) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tools.py").write_text(f'def say() -> str:\n    """{name}"""\n    return ""\n')
    toolsets = [await open_tools(tmp_path / name, bind("say")) for name in ("one", "two")]
    assert [toolset.specs[0].description for toolset in toolsets] == ["one", "two"]


@pytest.mark.parametrize("target", ["tools.py", "tools:x", "tools.py:", "tools.py:a.b", "a:b.py:x"])
def test_binding_spelling(target: str) -> None:
    with pytest.raises(ValidationError):
        PythonBinding(type="python", target=target)


async def test_an_item_that_lists_tools_is_offered_those(folder: Path, open_tools: OpenTools) -> None:
    toolset = await open_tools(folder, bind("double"), bind("wait"))
    own = ToolSpec(
        name="double",
        description="2n",
        parameters={"type": "object", "properties": {"n": {"type": "integer", "maximum": 9}}, "required": ["n"]},
    )
    session = await toolset.open(Item(id="row-7", messages=(), tools=(own,)), "trace_1")
    assert list(session.specs) == [own]
    assert (await session.call(call("wait", '{"text": "a"}'))).output == "error: no tool 'wait'; tools: double"
    assert (await session.call(call("double", '{"n": 10}'))).is_error
    assert (await session.call(call("double", '{"n": 9}'))).output == "18"
    other = ToolSpec(name="search", description="", parameters={"type": "object"})
    with pytest.raises(UserError, match="item row-8: it lists the tool search, which the job does not bind"):
        await toolset.open(Item(id="row-8", messages=(), tools=(other,)), "trace_1")
