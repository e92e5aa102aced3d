"""Which attributes of a class are tools."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from agentrft.errors import UserError
from agentrft.tools import JobTools, PythonBinding
from agentrft.types import Item, ToolCall

TOOLS = '''
from functools import cached_property, lru_cache, partialmethod, wraps


def traced(function):
    @wraps(function)
    def wrapper(*args, **options):
        return function(*args, **options)
    return wrapper


class Words(dict):
    limit = 3
    kind = list

    def __init__(self, item: dict) -> None:
        self.item = item

    __hash__ = object.__hash__

    @lru_cache
    def find(self, word: str, times: int = 1) -> str:
        """Find a word."""
        return word * times

    @traced
    def trace(self, word: str) -> str:
        return word

    @staticmethod
    @lru_cache
    def shout(word: str) -> str:
        return word.upper()

    @classmethod
    @lru_cache
    def name(cls, word: str) -> str:
        return cls.__name__ + word

    again = find
    twice = partialmethod(trace)

    @cached_property
    def rows(self) -> list:
        raise AssertionError("read")

    @property
    def size(self) -> int:
        raise AssertionError("read")


class Fewer(Words):
    again = None
    name = 3


class Greatest:
    def __init__(self, item: dict) -> None:
        pass

    greatest = max
'''


OpenTools = Callable[..., Awaitable[JobTools]]


def bind(name: str, isolation: str = "process") -> PythonBinding:
    return PythonBinding(type="python", target=f"tools.py:{name}", isolation=isolation)  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tools.py").write_text(TOOLS)
    return tmp_path


@pytest.mark.parametrize("isolation", ["process", "thread", "inline"])
async def test_every_public_routine_is_a_tool(folder: Path, open_tools: OpenTools, isolation: str) -> None:
    toolset = await open_tools(folder, bind("Words", isolation))
    assert {spec.name: list(spec.parameters["properties"]) for spec in toolset.specs} == {
        "find": ["word", "times"],
        "trace": ["word"],
        "shout": ["word"],
        "name": ["word"],
        "again": ["word", "times"],
        "twice": ["word"],
    }
    assert toolset.specs[0].description == "Find a word."
    session = await toolset.open(Item(id="row-1", messages=()), "trace_1")
    calls = [ToolCall(id="call_0", name=spec.name, arguments='{"word": "a"}') for spec in toolset.specs]
    assert [(await session.call(call)).output for call in calls] == ["a", "a", "A", "Wordsa", "a", "a"]
    await session.close()


async def test_an_override_that_is_data_takes_the_tool_away(folder: Path, open_tools: OpenTools) -> None:
    specs = (await open_tools(folder, bind("Fewer"))).specs
    assert [spec.name for spec in specs] == ["find", "trace", "shout", "twice"]


async def test_a_routine_that_cannot_be_offered_is_refused(folder: Path, open_tools: OpenTools) -> None:
    with pytest.raises(UserError, match="tool greatest: its signature cannot be read") as caught:
        await open_tools(folder, bind("Greatest"))
    assert (caught.value.param, caught.value.code) == ("agent.tools.0.target", "invalid_tool")
