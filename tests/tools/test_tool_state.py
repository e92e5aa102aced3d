"""State of an episode's Python tools: its hash, snapshots of it, and going back to one, whatever the isolation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from agentrft.errors import ToolFault
from agentrft.tools import JobTools, PythonBinding, ToolLimits
from agentrft.tools.python_files import PythonFiles
from agentrft.tools.python_tool import load_python_source
from agentrft.tools.source import Hints
from agentrft.types import Item, ToolCall

TOOLS = """
import time


def plain() -> str:
    return "x"


class Shop:
    def __init__(self, item: dict) -> None:
        self.stock = item["stock"]

    def take(self, name: str) -> int:
        self.stock[name] -= 1
        return self.stock[name]

    def state_hash(self) -> tuple:
        return tuple(sorted(self.stock.items()))

    async def snapshot(self) -> dict:
        return self.stock

    def restore(self, snapshot: dict) -> None:
        self.stock = snapshot


class Broken(Shop):
    def state_hash(self) -> str:
        raise KeyError("lost")

    def snapshot(self) -> object:
        return {"a": lambda: 0}

    def restore(self, snapshot: dict) -> None:
        raise ValueError("not mine")


class Silent:
    def __init__(self, item: dict) -> None:
        self.state_hash = None

    def look(self) -> str:
        return "seen"

    def snapshot(self) -> str:
        return "half"


class Sleeper(Silent):
    def __init__(self, item: dict) -> None:
        pass

    def state_hash(self) -> str:
        time.sleep(3)
        return "late"
"""
ALL = pytest.mark.parametrize("isolation", ["process", "thread", "inline"])


def bind(name: str, isolation: str) -> PythonBinding:
    return PythonBinding(type="python", target=f"tools.py:{name}", isolation=isolation)  # type: ignore[arg-type]


def item() -> Item:
    return Item(id="row-1", messages=(), fields={"stock": {"apple": 3}})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tools.py").write_text(TOOLS)
    return tmp_path


@ALL
async def test_a_snapshot_can_be_gone_back_to_again_and_again(folder: Path, isolation: str) -> None:
    source = load_python_source(bind("Shop", isolation), PythonFiles(folder), param="agent.tools.0.target")
    assert (source.names, source.can_snapshot, source.hints("take")) == (("take",), True, Hints())
    session = await source.open(item(), "trace_1", 10)
    (take,) = session.tools
    before = await session.snapshot()
    assert await session.state_hash() == "(('apple', 3),)"
    for _ in range(2):
        assert await take.call({"name": "apple"}, None) == "2"  # type: ignore[arg-type]
        assert await take.call({"name": "apple"}, None) == "1"  # type: ignore[arg-type]
        assert await session.state_hash() == "(('apple', 1),)"
        await session.restore(before)
    await session.close()
    await session.close()
    await source.close()
    await source.close()


@ALL
async def test_a_state_that_cannot_be_told_is_a_fault(folder: Path, isolation: str) -> None:
    source = load_python_source(bind("Broken", isolation), PythonFiles(folder), param="agent.tools.0.target")
    session = await source.open(item(), "trace_1", 10)
    with pytest.raises(ToolFault, match=r"tool tools\.py:Broken\.state_hash raised KeyError: 'lost' \(tools\.py:"):
        await session.state_hash()
    with pytest.raises(ToolFault, match=r"tool tools\.py:Broken\.restore raised ValueError: not mine"):
        await session.restore('{"a": 1}')
    if isolation == "process":
        with pytest.raises(ToolFault, match=r"Broken\.snapshot returned dict, which is not JSON: .*function"):
            await session.snapshot()
    await session.close()
    await source.close()


@ALL
async def test_tools_that_do_not_tell(
    folder: Path, open_tools: Callable[..., Awaitable[JobTools]], isolation: str
) -> None:
    files = PythonFiles(folder)
    for name in ("plain", "Silent"):
        assert not load_python_source(bind(name, isolation), files, param="agent.tools.0.target").can_snapshot
    tools = await open_tools(folder, bind("plain", isolation), bind("Silent", isolation))
    session = await tools.open(item(), "trace_1")
    assert await session.state_hash() is None
    assert (await session.call(ToolCall(id="c", name="look", arguments="{}"))).output == "seen"
    await session.close()


@pytest.mark.parametrize("isolation", ["process", "thread"])
async def test_a_state_that_is_told_late_is_a_fault(
    folder: Path, open_tools: Callable[..., Awaitable[JobTools]], isolation: str
) -> None:
    tools = await open_tools(folder, bind("Sleeper", isolation), limits=ToolLimits(timeout_s=1))
    session = await tools.open(item(), "trace_1")
    with pytest.raises(ToolFault, match=r"Sleeper\.state_hash (raised TimeoutError|gave no answer within 1 s)"):
        await session.state_hash()
    await session.close()
