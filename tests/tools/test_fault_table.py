"""Design §6 for tools, row by row over the real path: bindings → toolset → episodes → group.

In every row one member of a group meets a tool that fails, beside a call that goes well. It is shown the failure, or
its episode is a fault, or the call is tried again and recovers; the other members play on and are graded.
"""

from __future__ import annotations

import asyncio
import gc
import json
import shutil
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import psutil
import pytest

from agentrft.credit.penalties import Reward
from agentrft.rollout import Agent, ChatActor, Limits, Rollout, Seat, run_groups
from agentrft.testing import ScriptedChatModel, ScriptedGrader
from agentrft.testing.web import (
    Behaviour,
    FaultyServer,
    Request,
    answers,
    drips,
    drops,
    floods,
    gzip_bomb,
    hangs,
    redirects,
)
from agentrft.together import together
from agentrft.tools import Guardrails, JobTools, Policy, ToolLimits, open_toolset
from agentrft.tools.bindings import AnyBinding
from agentrft.tools.http_binding import HttpBinding
from agentrft.tools.mcp_binding import McpBinding
from agentrft.tools.python_tool import PythonBinding
from agentrft.train.metrics import rollout_metrics
from agentrft.train.played import Played
from agentrft.types import Episode, Grade, Group, Item, Message, StopReason, ToolCall

HERE = Path(__file__).parent
ITEM = Item(id="row-1", messages=(Message(role="user", content="Act."),))
SCHEMA = {
    "type": "object",
    "properties": {"how": {"type": "string"}, "n": {"type": "integer"}},
    "required": ["how", "n"],
}
MEMBERS, VICTIM, WELL_CALLS = 4, 1, 3

Script = Callable[[FaultyServer], Sequence[Behaviour]]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of the table."""

    kind: Literal["http", "mcp", "python"]
    how: str
    """The victim's argument, which tells the tool how to fail."""
    entry: Literal["shown", "fault", "recovered"]
    said: str = ""
    """What the model reads, or the fault says."""
    tries: int = 1
    timeout_s: float = 10.0
    script: Script | None = None
    """What an HTTP server does with each try of the victim's call, the last again and again."""
    binding: dict[str, Any] | None = None
    rules: dict[str, str] | None = None
    """Guardrails of the tool: whether a call whose answer was lost may be sent again."""


async def well(request: Request, writer: asyncio.StreamWriter) -> None:
    n = json.loads(request.json()["arguments"])["n"]
    await answers({"output": f"well {n}"})(request, writer)


async def no_http(request: Request, writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-OpenSSH_9.6\r\n")
    raise ConnectionError


def dies(server: FaultyServer) -> Behaviour:
    """The whole server, others' connections included; it comes back at once."""
    reviving: set[asyncio.Task[None]] = set()

    async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
        async def revive() -> None:
            await server.stop()
            await server.start()

        task = asyncio.create_task(revive())
        reviving.add(task)
        task.add_done_callback(reviving.discard)
        await asyncio.Event().wait()

    return behave


def always(behaviour: Behaviour) -> Script:
    return lambda server: [behaviour]


HUGE = 50_000_000
READS, WRITES, BY_KEY = {"effect": "read"}, {"effect": "write"}, {"effect": "write", "idempotent": "by_key"}
BUSY = answers(b"at capacity", status=500)
TABLE = [
    Row(kind="http", how="404", entry="shown", said="error: 404: no such order", script=always(
        answers(b"no such order", status=404))),
    Row(kind="http", how="500", entry="fault", said="answered 500: at capacity (4 tries)", tries=4,
        script=always(BUSY)),
    Row(kind="http", how="500", entry="fault", said="answered 500: at capacity", rules=WRITES, script=always(BUSY)),
    Row(kind="http", how="500", entry="fault", said="answered 500: at capacity (4 tries)", tries=4, rules=BY_KEY,
        script=always(BUSY)),
    Row(kind="http", how="500 twice", entry="recovered", tries=3, script=lambda server: [BUSY, BUSY, well]),
    Row(kind="http", how="hangs", entry="fault", said="no answer within", tries=4, timeout_s=0.5,
        script=always(hangs)),
    Row(kind="http", how="drips", entry="fault", said="no answer within", tries=4, timeout_s=0.5,
        script=always(drips(1.0))),
    Row(kind="http", how="closes", entry="fault", said="broke off", tries=4, script=always(drops)),
    Row(kind="http", how="no JSON", entry="fault", said="expected a JSON object", script=always(answers(b"\0\xff<p>"))),
    Row(kind="http", how="no HTTP", entry="fault", said="broke off", tries=4, script=always(no_http)),
    Row(kind="http", how="50 MB", entry="shown", said="error: 413: the tool's output has more than 1000000 bytes",
        script=always(floods(HUGE))),
    Row(kind="http", how="gzip bomb", entry="shown", said="error: 413: the tool's output has more than 1000000 bytes",
        script=lambda server: [gzip_bomb(HUGE)]),
    Row(kind="http", how="redirects", entry="fault", said="to be asked at elsewhere.example", script=always(
        redirects("http://elsewhere.example/act"))),
    Row(kind="http", how="dies and comes back", entry="recovered", tries=2, script=lambda server: [dies(server), well]),
    Row(kind="mcp", how="refuses", entry="shown", said="error: not to be had"),
    Row(kind="mcp", how="dies", entry="fault", said="what it kept of the episode is lost", rules=READS),
    Row(kind="mcp", how="dies_once", entry="recovered", tries=2, rules=READS, binding={"sessions": "job"}),
    Row(kind="mcp", how="hangs", entry="fault", said="no answer within", tries=4, timeout_s=0.5,
        rules=READS),
    Row(kind="python", how="refuses", entry="shown", said="error: not to be had"),
    Row(kind="python", how="raises", entry="fault", said="raised KeyError: 'lost' (tools.py:16)"),
    Row(kind="python", how="blocks", entry="fault", said="no answer within", timeout_s=2.0),
    Row(kind="python", how="odd", entry="fault", said="object"),
    Row(kind="python", how="dies", entry="fault", said="died of SIGKILL"),
]  # fmt: skip


class ByMember:
    """The actor of a group whose members say different things."""

    def __init__(self, scripts_G: Sequence[Sequence[Message]]) -> None:
        self._scripts_G = scripts_G

    def open(self, item: Item, tools: Any, limits: Limits, order: tuple[int, int]) -> Any:
        return ChatActor(model=ScriptedChatModel(self._scripts_G[order[1]])).open(item, tools, limits, order)


def calling(*calls: tuple[str, int]) -> Message:
    made = (json.dumps({"how": how, "n": n}) for how, n in calls)
    return Message(
        role="assistant",
        tool_calls=tuple(ToolCall(id=f"c{k}", name="act", arguments=text) for k, text in enumerate(made)),
    )


DONE = Message(role="assistant", content="done")


def scripts_for(row: Row, number: int) -> list[list[Message]]:
    """What each member says in the group of that number."""
    good = [*(calling(("well", n)) for n in range(WELL_CALLS)), DONE]
    bad = [calling((row.how, number), ("well", 9)), DONE]
    return [bad if member == VICTIM else good for member in range(MEMBERS)]


class World:
    """A row's tools, and the server that is behind them where they are HTTP tools."""

    def __init__(self, row: Row, tools: JobTools, server: FaultyServer) -> None:
        self.row = row
        self.tools = tools
        self.server = server
        self._played = 0

    async def play(self) -> Group:
        """One more group."""
        actor = ByMember(scripts_for(self.row, self._played))
        agent = Agent(actor=actor, tools=self.tools, limits=Limits())
        plan = Rollout(run="table", step=self._played, members=MEMBERS, seats=[Seat(index=0, item=ITEM)])
        self._played += 1
        grader = ScriptedGrader(lambda sample, item: float(sample.output_text == "done"))
        (group,) = await run_groups(plan, agent, grader)
        return group


def binding_of(row: Row, folder: Path, server: FaultyServer) -> AnyBinding:
    if row.kind == "http":
        return HttpBinding(name="act", server_url=f"{server.url}/act", description="Act.", parameters=SCHEMA)
    if row.kind == "mcp":
        command = ("python", str(HERE / "mcp_servers" / "act_server.py"), str(folder))
        return McpBinding(type="mcp", server_label="act", command=command, start_timeout_s=60, **row.binding or {})
    return PythonBinding(type="python", target="tools.py:act")


def misbehaving(script: Sequence[Behaviour]) -> Behaviour:
    """Each try of the victim's call meets the next of the script; calls that go well do."""
    tries: Counter[str] = Counter()

    async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
        call = request.json()
        is_good = json.loads(call["arguments"])["how"] == "well"
        step = tries[call["call_id"]]
        tries[call["call_id"]] += 1
        await (well if is_good else script[min(step, len(script) - 1)])(request, writer)

    return behave


@asynccontextmanager
async def opened(row: Row, folder: Path) -> AsyncIterator[World]:
    shutil.copy(HERE / "act_tools.py", folder / "tools.py")
    server = FaultyServer()
    server.script = [misbehaving(row.script(server) if row.script else [])]
    rules = {"act": row.rules or {}}
    guardrails = Guardrails.model_validate({"tools": rules, "retries": {"backoff": ["50ms", "200ms"]}})
    limits, policy = ToolLimits(timeout_s=row.timeout_s), Policy(guardrails=guardrails)
    async with server:
        tools = await open_toolset([binding_of(row, folder, server)], folder, limits, policy=policy)
        try:
            yield World(row, tools, server)
        finally:
            await tools.close()
            await server.until(lambda: server.n_open == 0)


def check_victim(row: Row, episode: Episode, grade: Grade) -> None:
    if row.entry == "fault":
        assert episode.stop_reason is StopReason.FAULT
        assert row.said in str(episode.fault)
        assert ("(4 tries)" in str(episode.fault)) == (row.tries == 4)
        assert grade.value is None
        assert str(episode.fault) in str(grade.reason)
        assert len(episode.turns) == 1
        assert episode.turns[0].results == ()
        return
    assert (episode.fault, episode.stop_reason, grade.value) == (None, StopReason.ANSWERED, 1.0)
    bad, good = episode.turns[0].results
    assert (good.output, good.is_error) == ("well 9", False)
    assert bad.is_error == (row.entry == "shown")
    assert row.said in bad.output if row.said else bad.output.startswith("well ")
    assert "Traceback" not in bad.output


def check_others(group: Group) -> None:
    for member, (episode, grade) in enumerate(zip(group.episodes, group.grades, strict=True)):
        if member != VICTIM:
            assert (episode.fault, episode.stop_reason, grade.value) == (None, StopReason.ANSWERED, 1.0)
            outputs = [message.content for message in episode.messages if message.role == "tool"]
            assert outputs == [f"well {n}" for n in range(WELL_CALLS)]


def check_requests(row: Row, group: Group, server: FaultyServer) -> None:
    """Every try of a call carries its own call_id and Idempotency-Key, and no other call's does."""
    sent = [(request.json(), request.headers["idempotency-key"]) for request in server.requests]
    bad = [(call["call_id"], key) for call, key in sent if json.loads(call["arguments"])["how"] != "well"]
    assert len(bad) == row.tries
    assert len(set(bad)) == 1
    others = {(call["call_id"], key) for call, key in sent} - set(bad)
    assert len({call_id for call_id, _ in others}) == len({key for _, key in others}) == len(others)
    assert len(others) >= (MEMBERS - 1) * WELL_CALLS
    assert {call["trace_id"] for call, _ in sent} == {episode.trace_id for episode in group.episodes}


def check_count(row: Row, group: Group) -> None:
    played = Played(seat=Seat(index=0, item=ITEM), group=group, rewards=[Reward(value=g.value) for g in group.grades])
    counted = rollout_metrics([played], 1.0, 0.5)
    assert counted["fault_frac"] == (1 / MEMBERS if row.entry == "fault" else 0.0)
    assert counted["no_grade_frac"] == 0.0
    assert counted["reward_mean"] == 1.0


class Lives(NamedTuple):
    """Counts of what must not stay behind."""

    children: int
    fds: int
    """Files, pipes and sockets."""
    tasks: int
    threads: int
    """But those of the event loop's pool, which never shrinks."""


def what_lives() -> Lives:
    gc.collect()
    process = psutil.Process()
    threads = [thread for thread in threading.enumerate() if not thread.name.startswith("asyncio_")]
    n_children = len(process.children(recursive=True))
    return Lives(n_children, process.num_fds(), len(asyncio.all_tasks()), len(threads))


async def until(is_so: Callable[[Lives], bool]) -> None:
    for _ in range(200):
        if is_so(what_lives()):
            return
        await asyncio.sleep(0.02)
    raise AssertionError(what_lives())


@pytest.mark.parametrize("row", TABLE, ids=lambda row: " ".join([row.kind, row.how, *(row.rules or {}).values()]))
async def test_a_failing_tool_costs_one_episode_at_most(row: Row, tmp_path: Path) -> None:
    async with opened(row, tmp_path):
        """The first use of MCP, of child processes and of HTTP opens what then stays open."""
    before = what_lives()
    async with opened(row, tmp_path) as world:
        group = await world.play()
        # Of processes, the job keeps the one that forks workers, or its own MCP server; episodes leave none.
        await until(lambda now: now.children <= before.children + 1)
        check_victim(row, group.episodes[VICTIM], group.grades[VICTIM])
        check_others(group)
        check_count(row, group)
        if row.kind == "http":
            check_requests(row, group, world.server)
        if row.entry != "fault":
            assert group.episodes[VICTIM].turns[0].results[0].tries == row.tries
    await until(lambda now: now == before)


@pytest.mark.soak
@pytest.mark.timeout(1800)
async def test_nothing_is_left_after_a_thousand_episodes(tmp_path: Path) -> None:
    await play_all(tmp_path / "warm", 1)
    before = what_lives()
    await play_all(tmp_path / "long", 1000)
    await until(lambda now: now == before)


async def play_all(folder: Path, n_episodes: int) -> None:
    """So many episodes, in rounds of one group of every row side by side; what lives does not grow meanwhile."""
    async with AsyncExitStack() as stack:
        worlds: list[World] = []
        for number, row in enumerate(TABLE):
            (folder / str(number)).mkdir(parents=True)
            # So many episodes at once on a busy machine are slow themselves.
            patient = replace(row, timeout_s=5 * row.timeout_s)
            worlds.append(await stack.enter_async_context(opened(patient, folder / str(number))))
        played, first = 0, None
        while played < n_episodes:
            groups = await together(world.play() for world in worlds)
            for world, group in zip(worlds, groups, strict=True):
                check_victim(world.row, group.episodes[VICTIM], group.grades[VICTIM])
                check_others(group)
            played += MEMBERS * len(groups)
            first = first or what_lives()
        assert first is not None
        now = what_lives()
        assert now.children == first.children
        assert now.threads == first.threads
        # Connections are kept for the next call: as many as were once needed at a time, at both of their ends.
        most = 2 * (MEMBERS + 1) * len(TABLE)
        assert now.fds <= first.fds + most
        assert now.tasks <= first.tasks + most
