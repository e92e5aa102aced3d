"""What every tool set must do, run over each kind of binding. A new kind of tool joins by one line in `KINDS`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentrft.errors import ToolFault
from agentrft.protocols import ToolSet
from agentrft.tools import PythonBinding, ToolLimits, open_toolset
from agentrft.types import Item, ToolCall

TOOLS = '''
def echo(text: str) -> str:
    """Say TEXT."""
    if text == "refuse":
        raise ValueError("cannot say refuse")
    if text == "crash":
        raise RuntimeError("crashed")
    return text


async def echo_async(text: str) -> str:
    """Say TEXT."""
    return echo(text)


class Echo:
    def __init__(self, item: dict) -> None:
        self.item = item

    def echo(self, text: str) -> str:
        """Say TEXT."""
        return echo(text)
'''

KINDS = {
    "function": PythonBinding(type="python", target="tools.py:echo"),
    "function inline": PythonBinding(type="python", target="tools.py:echo", isolation="inline"),
    "function in a thread": PythonBinding(type="python", target="tools.py:echo", isolation="thread"),
    "async function": PythonBinding(type="python", target="tools.py:echo_async"),
    "async function inline": PythonBinding(type="python", target="tools.py:echo_async", isolation="inline"),
    "class": PythonBinding(type="python", target="tools.py:Echo"),
    "class inline": PythonBinding(type="python", target="tools.py:Echo", isolation="inline"),
    "class in a thread": PythonBinding(type="python", target="tools.py:Echo", isolation="thread"),
}


@pytest.fixture(params=KINDS.values(), ids=KINDS.keys())
async def toolset(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ToolSet]:
    (tmp_path / "tools.py").write_text(TOOLS)
    tools = await open_toolset([request.param], tmp_path, ToolLimits(output_tokens=50, count_tokens=len))
    yield tools
    await tools.close()


def item() -> Item:
    return Item(id="row-1", messages=(), fields={"a": 1})


async def test_contract(toolset: ToolSet) -> None:
    session = await toolset.open(item(), "trace_1")
    (spec,) = session.specs
    assert spec.description == "Say TEXT."
    assert list(spec.parameters["properties"]) == ["text"]

    def call(arguments: str, name: str = spec.name) -> ToolCall:
        return ToolCall(id="call_2_0", name=name, arguments=arguments)

    good = await session.call(call('{"text": "hé"}'))
    assert (good.call_id, good.output, good.is_error, good.bytes_in) == ("call_2_0", "hé", False, 3)
    assert good.wall_s >= 0

    for wrong in (call('{"text": 1}'), call("{}"), call("nonsense"), call('{"text": "a", "b": 1}'), call("{}", "x")):
        result = await session.call(wrong)
        assert result.is_error
        assert result.output.startswith("error: ")
        assert "\n" not in result.output
    refused = await session.call(call('{"text": "refuse"}'))
    assert (refused.output, refused.is_error) == ("error: cannot say refuse", True)

    long = await session.call(call('{"text": "' + "x" * 100 + '"}'))
    assert long.output == "x" * 25 + "\n[75 characters left out]"
    assert long.bytes_in == 100

    with pytest.raises(ToolFault, match="RuntimeError: crashed"):
        await session.call(call('{"text": "crash"}'))
    await session.close()
    await session.close()
    await toolset.close()


async def test_sessions_are_independent(toolset: ToolSet) -> None:
    one = await toolset.open(item(), "trace_1")
    two = await toolset.open(item(), "trace_2")
    await one.close()
    name = two.specs[0].name
    assert (await two.call(ToolCall(id="c", name=name, arguments='{"text": "still here"}'))).output == "still here"
    await two.close()
