"""Other words for a tool: the model gets them, whatever kind the tool is, and nothing else about it changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentrft.errors import UserError
from agentrft.tools import JobTools, PythonBinding, ToolDoc, open_toolset
from agentrft.types import Item, ToolSpec

TOOLS = '''
def find(day: str, limit: int = 5) -> str:
    """Find."""
    return day * limit


def wipe() -> str:
    """Wipe."""
    return "gone"
'''


async def tools_of(tmp_path: Path, **docs: ToolDoc) -> JobTools:
    (tmp_path / "tools.py").write_text(TOOLS)
    bindings = [
        PythonBinding(type="python", target=f"tools.py:{name}", isolation="inline") for name in ("find", "wipe")
    ]
    return await open_toolset(bindings, tmp_path, docs=docs)


async def test_words_replace_words_and_nothing_else(tmp_path: Path) -> None:
    plain = (await tools_of(tmp_path)).specs[0]
    doc = ToolDoc(description="Find what was sent that day.", parameters={"day": "ISO date, e.g. 2025-03-14 ☃"})
    tools = await tools_of(tmp_path, find=doc)
    spec = tools.specs[0]
    assert spec.description == "Find what was sent that day."
    assert spec.parameters["properties"]["day"] == {"type": "string", "description": "ISO date, e.g. 2025-03-14 ☃"}
    assert spec.parameters["properties"]["limit"] == plain.parameters["properties"]["limit"]
    assert {**spec.parameters, "properties": 0} == {**plain.parameters, "properties": 0}
    assert "description" not in plain.parameters["properties"]["day"]


async def test_a_hidden_tool_is_not_offered(tmp_path: Path) -> None:
    tools = await tools_of(tmp_path, wipe=ToolDoc(hidden=True))
    assert [spec.name for spec in tools.specs] == ["find"]
    assert [spec.name for spec in tools.described] == ["find", "wipe"]
    own = tuple(ToolSpec(name=name, description="", parameters={"type": "object"}) for name in ("wipe", "find"))
    session = await tools.open(Item(id="a", messages=(), tools=own), "trace_a")
    assert [spec.name for spec in session.specs] == ["find"]
    await session.close()


async def test_the_tools_of_a_row_get_the_words_too(tmp_path: Path) -> None:
    tools = await tools_of(tmp_path, find=ToolDoc(parameters={"day": "a day"}))
    schema = {"type": "object", "properties": {"day": True}, "required": ["day"]}
    item = Item(id="a", messages=(), tools=(ToolSpec(name="find", description="own", parameters=schema),))
    session = await tools.open(item, "trace_a")
    assert session.specs[0].description == "own"
    assert session.specs[0].parameters == {**schema, "properties": {"day": {"description": "a day"}}}
    await session.close()


@pytest.mark.parametrize(
    ("docs", "param"),
    [
        ({"fnid": ToolDoc(description="x")}, "agent.tool_docs.fnid"),
        ({"find": ToolDoc(parameters={"date": "x"})}, "agent.tool_docs.find.parameters.date"),
    ],
)
async def test_words_about_what_is_not_there_are_refused(tmp_path: Path, docs: dict[str, ToolDoc], param: str) -> None:
    with pytest.raises(UserError, match="expected one of: ") as caught:
        await tools_of(tmp_path, **docs)
    assert (caught.value.param, caught.value.code) == (param, "tool_not_found")
