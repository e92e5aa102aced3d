"""A whole episode's tools gone back to: every binding, what guards counted, and the outputs that were kept."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from agentrft.protocols import RestorableSession
from agentrft.tools import Guardrails, JobTools, OutputSpec, Policy, PythonBinding, Shaping, ToolLimits, open_toolset
from agentrft.types import Item, ToolCall

TOOLS = '''
def words(count: int) -> str:
    """Write words."""
    return "".join(f"word {n}\\\\n" for n in range(count))


class Shop:
    def __init__(self, item: dict) -> None:
        self.stock = 9

    def take(self) -> int:
        """Take one."""
        self.stock -= 1
        return self.stock

    def snapshot(self) -> int:
        return self.stock

    def restore(self, snapshot: int) -> None:
        self.stock = snapshot


class Lines:
    def __init__(self, item: dict) -> None:
        pass

    def lines(self, count: int) -> str:
        """Write lines."""
        return "".join(f"line {n}\\\\n" for n in range(count))

    def snapshot(self) -> None:
        return None

    def restore(self, snapshot: None) -> None:
        pass
'''.replace("\\\\n", "\\n")
Open = Callable[..., Awaitable[JobTools]]


@pytest.fixture
def job(tmp_path: Path) -> Open:
    (tmp_path / "tools.py").write_text(TOOLS)

    async def make(*names: str, isolation: str = "inline", **guardrails: Any) -> JobTools:
        bindings = [PythonBinding(type="python", target=f"tools.py:{n}", isolation=isolation) for n in names]  # type: ignore[arg-type]  # any literal
        return await open_toolset(
            bindings,
            tmp_path,
            ToolLimits(output_tokens=120, count_tokens=len),
            policy=Policy(guardrails=Guardrails.model_validate(guardrails)),
            shaping=Shaping(outputs={"lines": OutputSpec(offload=True)}),
        )

    return make


def item() -> Item:
    return Item(id="row-1", messages=())


def call(name: str, **arguments: Any) -> ToolCall:
    return ToolCall(id="c", name=name, arguments=json.dumps(arguments))


@pytest.mark.parametrize("isolation", ["process", "inline"])
async def test_a_session_goes_on_where_another_was(job: Open, isolation: str) -> None:
    tools = await job("Shop", "Lines", isolation=isolation, tools={"take": {"max_calls": 3}, "lines": {}})
    first = await tools.open(item(), "trace_1")
    assert isinstance(first, RestorableSession)
    assert first.can_snapshot
    assert [(await first.call(call("take"))).output for _ in range(2)] == ["8", "7"]
    long = (await first.call(call("lines", count=40))).output
    saved = await first.snapshot()
    # What happens afterwards, there or in a session that went on from it, is not in the snapshot.
    await first.call(call("take"))
    await first.close()
    for number in range(2):
        session = await tools.open(item(), f"trace_{number + 2}")
        await session.restore(saved)
        assert (await session.call(call("take"))).output == "6"
        assert "may be called 3 times" in (await session.call(call("take"))).output
        start = int(long.rpartition("start ")[2].rstrip(".]"))
        more = (await session.call(call("read_output", id="out_3", start=start))).output
        assert "\nline " in more
        await session.close()
    await tools.close()


async def test_one_binding_without_snapshots_is_enough_to_have_none(job: Open) -> None:
    tools = await job("Shop", "words")
    session = await tools.open(item(), "trace_1")
    assert not session.can_snapshot
    await session.close()
    # An item that is not offered it has nothing to lose.
    shop_only = Item(id="row-1", messages=(), tools=tuple(spec for spec in tools.specs if spec.name == "take"))
    session = await tools.open(shop_only, "trace_2")
    assert session.can_snapshot
    await session.close()
    await tools.close()
