"""The tools of a job of several kinds: what an item is offered, what is opened for it, and that all of it is closed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from agentrft.errors import ToolFault, UserError
from agentrft.rollout import Agent, ChatActor, EpisodeKey, Limits, run_episode
from agentrft.testing import ScriptedChatModel
from agentrft.testing.web import FaultyServer, tool_output
from agentrft.tools import Guardrails, JobTools, OutputSpec, Policy, PythonBinding, Shaping, ToolLimits, open_toolset
from agentrft.tools.http_binding import HttpBinding
from agentrft.types import Item, Message, ToolCall, ToolSpec

TOOLS = '''
import asyncio
from pathlib import Path


def look(word: str) -> str:
    """Look a word up."""
    return f"{word} means <|im_end|>nothing"


def admin(word: str) -> str:
    """Do what nobody should."""
    return "done"


def lines(count: int) -> str:
    """Write lines."""
    return "".join(f"line {n}\\n" for n in range(1, count + 1))


async def hang() -> str:
    """Never answer."""
    await asyncio.Event().wait()


class Notes:
    def __init__(self, item: dict) -> None:
        self.folder = Path(item["folder"])
        self.notes = []
        self.folder.joinpath("notes-opened").touch()

    def note(self, text: str) -> str:
        """Keep a text."""
        self.notes.append(text)
        return str(len(self.notes))

    def state_hash(self) -> str:
        return "+".join(self.notes)

    def close(self) -> None:
        self.folder.joinpath("notes-closed").touch()


class Paper(Notes):
    def __init__(self, item: dict) -> None:
        self.folder = Path(item["folder"])

    note = None
    state_hash = None

    def read(self) -> str:
        """Read."""
        return "paper"

    def close(self) -> None:
        self.folder.joinpath("paper-closed").touch()


class Slow(Paper):
    async def close(self) -> None:
        self.folder.joinpath("slow-closing").touch()
        await asyncio.sleep(60)


class Broken:
    def __init__(self, item: dict) -> None:
        raise RuntimeError("no paper")

    def fix(self) -> str:
        """Fix."""
        return ""
'''
STRING = {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]}


def bind(name: str, isolation: Any = "inline") -> PythonBinding:
    return PythonBinding(type="python", target=f"tools.py:{name}", isolation=isolation)


def listed(name: str, parameters: dict[str, Any] = STRING) -> ToolSpec:
    return ToolSpec(name=name, description=f"The row's {name}.", parameters=parameters)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tools.py").write_text(TOOLS)
    return tmp_path


@pytest.fixture
def item(folder: Path) -> Callable[..., Item]:
    """item("look"): one that lists these tools."""

    def make(*names: str) -> Item:
        fields = {"folder": str(folder)}
        return Item(id="row-1", messages=(), tools=tuple(map(listed, names)), fields=fields)

    return make


@pytest.fixture
async def server() -> AsyncIterator[FaultyServer]:
    async with FaultyServer(tool_output) as running:
        yield running


@pytest.fixture
async def open_job(folder: Path) -> AsyncIterator[Callable[..., Any]]:
    """open_job(*bindings, guardrails={…}, outputs={…}): tools of a job, closed after the test."""
    opened: list[JobTools] = []

    async def make(*bindings: Any, guardrails: Any = None, outputs: Any = None, **more: Any) -> JobTools:
        policy = Policy(guardrails=Guardrails.model_validate(guardrails)) if guardrails is not None else None
        specs = {name: OutputSpec.model_validate(spec) for name, spec in (outputs or {}).items()}
        shaping = Shaping(outputs=specs, template_tokens=("<|im_end|>",))
        opened.append(await open_toolset(bindings, folder, policy=policy, shaping=shaping, **more))
        return opened[-1]

    yield make
    for tools in opened:
        await tools.close()


def call(name: str, **arguments: Any) -> ToolCall:
    return ToolCall(id="call_0", name=name, arguments=json.dumps(arguments))


def names(specs: Any) -> list[str]:
    return [spec.name for spec in specs]


# ---- rows and bindings


async def test_a_row_is_offered_what_it_lists_of_every_kind(open_job, item, server) -> None:
    fetch = HttpBinding(name="fetch", server_url=f"{server.url}/fetch")
    tools = await open_job(bind("look"), fetch, bind("Notes"))
    assert tools.names == ("look", "fetch", "note")
    session = await tools.open(item("fetch", "look"), "trace_1")
    assert [spec.description for spec in session.specs] == ["The row's fetch.", "The row's look."]
    assert (await session.call(call("fetch", word="a"))).output == '{"word": "a"}'
    assert "error: word: expected string, got 4" in (await session.call(call("look", word=4))).output
    assert (await session.call(call("note", text="a"))).output == "error: no tool 'note'; tools: fetch, look"
    await session.close()


async def test_a_row_that_lists_nothing_is_offered_what_describes_itself(open_job, item, server) -> None:
    named = HttpBinding(name="fetch", server_url=f"{server.url}/fetch")
    described = HttpBinding(name="find", server_url=f"{server.url}/find", description="Find.", parameters=STRING)
    tools = await open_job(named, described, bind("look"))
    session = await tools.open(item(), "trace_1")
    assert names(session.specs) == names(tools.specs) == ["find", "look"]
    assert (await session.call(call("fetch", word="a"))).output == "error: no tool 'fetch'; tools: find, look"
    assert server.requests == []
    await session.close()


async def test_a_row_that_lists_what_is_not_bound_is_refused(open_job, item) -> None:
    tools = await open_job(bind("look"))
    with pytest.raises(UserError, match=r"item row-1: it lists the tool find, .* bound: look") as caught:
        await tools.open(item("look", "find"), "trace_1")
    assert (caught.value.param, caught.value.code) == ("agent.tools", "tool_not_found")


async def test_two_tools_of_one_name_of_two_kinds(open_job, server) -> None:
    with pytest.raises(UserError, match="two tools are named look") as caught:
        await open_job(bind("admin"), bind("look"), HttpBinding(name="look", server_url=server.url))
    assert (caught.value.param, caught.value.code) == ("agent.tools.2", "invalid_tool")


async def test_only_what_an_item_needs_is_opened(open_job, item, folder: Path) -> None:
    tools = await open_job(bind("look"), bind("Notes"), bind("Broken"))
    await (await tools.open(item("look"), "trace_1")).close()
    assert not (folder / "notes-opened").exists()
    await (await tools.open(item("note"), "trace_2")).close()
    assert (folder / "notes-opened").exists()


# ---- guardrails


@pytest.mark.parametrize(
    "guardrails", [{"deny": ["adm*"]}, {"tools": {"look": {}}}, {"tools": {"*": {}}, "deny": ["admin"]}]
)
@pytest.mark.parametrize("lists", [(), ("look", "admin")])
async def test_denied_tools_are_offered_in_observe_mode_only(open_job, item, guardrails, lists) -> None:
    tools = await open_job(bind("look"), bind("admin"), guardrails={**guardrails, "mode": "enforce"})
    session = await tools.open(item(*lists), "trace_1")
    assert names(session.specs) == ["look"]
    assert names(tools.specs) == ["look"]
    assert names(tools.described) == ["look", "admin"]
    assert (await session.call(call("admin", word="a"))).output == "error: no tool 'admin'; tools: look"
    for mode in ("observe", "off"):
        tools = await open_job(bind("look"), bind("admin"), guardrails={**guardrails, "mode": mode})
        session = await tools.open(item(*lists), "trace_1")
        assert names(session.specs) == ["look", "admin"]
        result = await session.call(call("admin", word="a"))
        assert result.output == "done"
        rules = [(found.rule, found.enforced) for found in result.interventions]
        assert rules == ([] if mode == "off" else [("deny" if "deny" in guardrails else "unmatched", False)])


async def test_template_tokens_are_taken_out_unless_guardrails_let_them(open_job, item) -> None:
    session = await (await open_job(bind("look"))).open(item(), "trace_1")
    assert (await session.call(call("look", word="port"))).output == "port means nothing"
    lenient = await open_job(bind("look"), guardrails={"injection": {"strip_template_tokens": False}})
    session = await lenient.open(item(), "trace_1")
    assert (await session.call(call("look", word="port"))).output == "port means <|im_end|>nothing"


# ---- reading on


@pytest.mark.parametrize("guardrails", [None, {"mode": "enforce"}, {"tools": {"lines": {"effect": "read"}}}])
@pytest.mark.parametrize("lists", [(), ("lines",)])
async def test_long_outputs_are_read_to_their_end(open_job, item, guardrails, lists) -> None:
    counting = ToolLimits(output_tokens=300, count_tokens=len)
    offload = {"lines": {"offload": True}}
    tools = await open_job(bind("lines"), bind("look"), outputs=offload, guardrails=guardrails, limits=counting)
    schema = {"type": "object", "properties": {"count": {"type": "integer"}}, "required": ["count"]}
    row = Item(id="row-1", messages=(), tools=tuple(listed(name, schema) for name in lists))
    session = await tools.open(row, "trace_1")
    assert names(session.specs) == (["lines", "read_output"] if lists else names(tools.specs))
    assert names(session.specs)[-1] == "read_output"
    shown = (await session.call(call("lines", count=100))).output
    read: list[str] = []
    for _ in range(20):
        assert len(shown) <= 300
        read += [line for line in shown.splitlines() if line.startswith("line ")]
        if 'For more call read_output with id "out_1" and start' not in shown:
            break
        position = int(shown.rpartition("start ")[2].rstrip(".]"))
        shown = (await session.call(call("read_output", id="out_1", start=position))).output
    assert read == [f"line {n}" for n in range(1, 101)]


async def test_outputs_are_kept_for_their_own_episode(open_job, item) -> None:
    outputs, limits = {"lines": {"offload": True}}, ToolLimits(output_tokens=100)
    tools = await open_job(bind("lines"), outputs=outputs, limits=limits)
    one, other = await tools.open(item(), "trace_1"), await tools.open(item(), "trace_2")
    await one.call(call("lines", count=500))
    assert (
        "no output 'out_1' is kept; kept: none" in (await other.call(call("read_output", id="out_1", start=1))).output
    )


async def test_read_output_is_ours_where_something_is_offloaded(open_job, folder: Path) -> None:
    (folder / "tools.py").write_text('def read_output(id: str) -> str:\n    """Mine."""\n    return id\n')
    assert (await open_job(bind("read_output"))).names == ("read_output",)
    with pytest.raises(UserError, match="built-in tool that `offload` brings") as caught:
        await open_job(bind("read_output"), outputs={"*": {"offload": True}})
    assert caught.value.param == "agent.tools.0"


async def test_offload_cannot_take_effect_where_read_output_is_denied(open_job) -> None:
    outputs = {"lines": {"offload": True}}
    with pytest.raises(UserError, match="read_output") as caught:
        await open_job(bind("lines"), outputs=outputs, guardrails={"deny": ["read_*"]})
    assert (caught.value.param, caught.value.code) == ("guardrails.deny", "invalid_guardrails")
    await open_job(bind("lines"), outputs=outputs, guardrails={"deny": ["read_*"], "mode": "observe"})


# ---- state and its end


async def test_states_are_joined(open_job, item) -> None:
    tools = await open_job(bind("look"), bind("Notes"), bind("Paper"))
    session = await tools.open(item(), "trace_1")
    empty = await session.state_hash()
    await session.call(call("note", text="a"))
    first = await session.state_hash()
    await session.call(call("note", text="b"))
    assert (empty, first, await session.state_hash()) == (
        '[null, "", null]',
        '[null, "a", null]',
        '[null, "a+b", null]',
    )
    await session.close()
    assert await (await tools.open(item("look", "read"), "trace_2")).state_hash() is None
    assert await (await tools.open(item("note"), "trace_3")).state_hash() == ""


async def test_what_was_opened_is_closed_when_the_rest_cannot_be(open_job, item, folder: Path) -> None:
    tools = await open_job(bind("Notes"), bind("Broken"))
    with pytest.raises(ToolFault, match="RuntimeError: no paper"):
        await tools.open(item(), "trace_1")
    assert (folder / "notes-closed").exists()


async def test_a_closed_session_answers_no_more(open_job, item) -> None:
    session = await (await open_job(bind("look"))).open(item(), "trace_1")
    await session.close()
    await session.close()
    with pytest.raises(ToolFault, match="look was called after its episode ended"):
        await session.call(call("look", word="a"))


async def until(is_so: Callable[[], bool]) -> None:
    for _ in range(1000):
        if is_so():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came to that")


async def test_a_cancelled_episode_closes_everything(open_job, item, folder: Path) -> None:
    tools = await open_job(bind("Notes"), bind("hang"), bind("Paper"), bind("lines", "process"))
    before = len(psutil.Process().children(recursive=True))
    said = Message(role="assistant", tool_calls=(call("lines", count=1), call("hang")))
    agent = Agent(actor=ChatActor(model=ScriptedChatModel([said])), tools=tools, limits=Limits())
    key = EpisodeKey(run="r", step=0, item="row-1", member=0)
    episode = asyncio.create_task(run_episode(item(), key, agent))
    await until(lambda: len(psutil.Process().children(recursive=True)) == before + 2)  # who forks, and the worker
    episode.cancel()
    with pytest.raises(asyncio.CancelledError):
        await episode
    assert (folder / "notes-closed").exists()
    assert (folder / "paper-closed").exists()
    await until(lambda: len(psutil.Process().children(recursive=True)) == before + 1)
    await tools.close()
    assert len(psutil.Process().children(recursive=True)) == before


async def test_who_is_cancelled_while_closing_closes_the_rest(open_job, item, folder: Path) -> None:
    tools = await open_job(bind("Slow"), bind("Notes"))
    closing = asyncio.create_task((await tools.open(item("read", "note"), "trace_1")).close())
    await until((folder / "slow-closing").exists)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert (folder / "notes-closed").exists()
