"""One handle on parcels: its rows, its real server on loopback, its grader, and a way to play calls through them."""

from __future__ import annotations

import importlib.util
import itertools
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from agentrft.jobs.load import load_job
from agentrft.jobs.spec import JobSpec
from agentrft.jobs.tools import open_tools
from agentrft.tools import JobTools
from agentrft.types import Item, Message, ToolCall

FOLDER = Path(__file__).parents[3] / "examples" / "parcels"
Row = dict[str, Any]
Calls = Sequence[tuple[str, dict[str, str]]]

_traces = itertools.count()


@dataclass(frozen=True)
class Parcels:
    """The example as the product uses it, its tools at `url`."""

    url: str
    folder: Path = FOLDER

    @cached_property
    def job(self) -> JobSpec:
        """The example's job with its tools at this address."""
        spec, _ = load_job(self.folder / "job.yaml")
        tools = [binding.model_copy(update={"server_url": self.url}) for binding in spec.agent.tools]
        return spec.model_copy(update={"agent": spec.agent.model_copy(update={"tools": tools})})

    @cached_property
    def rows(self) -> dict[str, list[Row]]:
        """By file."""
        paths = sorted((self.folder / "data").glob("*.jsonl"))
        return {one.stem: [json.loads(line) for line in one.read_text(encoding="utf-8").splitlines()] for one in paths}

    def module(self, name: str) -> Any:
        """A module of the example, as its own scripts import it."""
        spec = importlib.util.spec_from_file_location(f"parcels_{name}", self.folder / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look their module up
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(str(self.folder))
            spec.loader.exec_module(module)
        return module

    @contextmanager
    def serving(self, port: int = 0) -> Iterator[str]:
        """Another server of the example on loopback, its address."""
        with serving(port) as url:
            yield url

    @asynccontextmanager
    async def tools(self) -> AsyncIterator[JobTools]:
        tools = await open_tools(self.job, self.folder)
        try:
            yield tools
        finally:
            await tools.close()

    async def outputs(self, tools: JobTools, row: Row, calls: Calls) -> list[str]:
        """What the agent sees of each call, in an episode of its own."""
        item = Item(id=row["id"], messages=(Message(role="user", content="?"),), fields=fields(row))
        session = await tools.open(item, f"trace_{next(_traces)}")
        try:
            return [
                (await session.call(ToolCall(id=f"call_{turn}_0", name=name, arguments=json.dumps(arguments)))).output
                for turn, (name, arguments) in enumerate(calls)
            ]
        finally:
            await session.close()

    @cached_property
    def _grade(self) -> Any:
        return self.module("grader").grade

    def grade(self, sample: Row, row: Row) -> float:
        return self._grade(sample, fields(row))

    def sample(self, row: Row, calls: Calls, shown: Sequence[str], answer: str | None) -> Row:
        """What a Python grader gets of an episode (answer None: cut off before it)."""
        messages: list[Row] = list(row["messages"])
        for turn, ((name, arguments), output) in enumerate(zip(calls, shown, strict=True)):
            function = {"name": name, "arguments": json.dumps(arguments)}
            call = {"id": f"call_{turn}_0", "type": "function", "function": function}
            messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
            messages.append({"role": "tool", "content": output, "tool_call_id": call["id"]})
        if answer is not None:
            messages.append({"role": "assistant", "content": answer})
        stop = "answered" if answer is not None else "max_turns"
        return {"output_text": answer or "", "messages": messages, "n_calls": len(calls), "stop_reason": stop}

    async def play(self, row: Row, calls: Calls, answer: str | None) -> Row:
        """The sample of calls carried out by the real server."""
        async with self.tools() as tools:
            return self.sample(row, calls, await self.outputs(tools, row, calls), answer)

    async def score(self, row: Row, calls: Calls, answer: str | None) -> float:
        return self.grade(await self.play(row, calls, answer), row)


def fields(row: Row) -> Row:
    """`item` as tools and graders get it: the row without what belongs to the conversation."""
    return {key: value for key, value in row.items() if key not in ("id", "messages", "tools")}


@contextmanager
def serving(port: int = 0) -> Iterator[str]:
    command = [sys.executable, str(FOLDER / "server.py"), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().removeprefix("listening on ").strip()
        finally:
            process.terminate()


@pytest.fixture(scope="session")
def parcels() -> Iterator[Parcels]:
    with serving() as url:
        yield Parcels(url)


@pytest.fixture
def row() -> Row:
    """A small depot: two lamps, two parcels for ana."""
    return {
        "id": "row-1",
        "messages": [{"role": "user", "content": "Move the lamp for ana to C4. Where was it?"}],
        "parcel": "P27",
        "to": "C4",
        "answer": "A3",
        "parcels": {"P27": "lamp ana A3", "P41": "mug ana A1", "P58": "lamp ben C1", "P60": "rug cleo C4"},
    }
