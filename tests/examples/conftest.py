"""One handle on each example: its rows, its real tools, its grader, and a way to play calls through them."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentrft.protocols import ToolSet
from agentrft.tools import PythonBinding, ToolLimits, open_toolset
from agentrft.types import Item, Message, ToolCall

ROOT = Path(__file__).parents[2] / "examples"
Row = dict[str, Any]
Calls = Sequence[tuple[str, dict[str, Any]]]


@dataclass(frozen=True)
class Example:
    """An example folder as the product uses it."""

    name: str

    @property
    def folder(self) -> Path:
        return ROOT / self.name

    @cached_property
    def job(self) -> dict[str, Any]:
        return yaml.safe_load((self.folder / "job.yaml").read_text())

    async def toolset(self) -> ToolSet:
        """The job's tools; opened once."""
        if "_toolset" not in self.__dict__:
            bindings = [PythonBinding(**binding) for binding in self.job["agent"]["tools"]]
            limits = ToolLimits(output_tokens=self.job["agent"]["limits"].get("tool_output_tokens", 1024))
            self.__dict__["_toolset"] = await open_toolset(bindings, self.folder, limits)
        return self.__dict__["_toolset"]

    @cached_property
    def grade(self) -> Callable[[Row, Row], float]:
        spec = importlib.util.spec_from_file_location(f"{self.name}_grader", self.folder / "grader.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.grade

    def rows(self, split: str) -> list[Row]:
        with (self.folder / "data" / f"{split}.jsonl").open(encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]

    @cached_property
    def splits(self) -> dict[str, list[Row]]:
        """Every split but the demonstrations, by file name."""
        names = sorted(path.stem for path in (self.folder / "data").glob("*.jsonl"))
        return {name: self.rows(name) for name in names if name != "demonstrations"}

    async def outputs(self, row: Row, calls: Calls) -> list[str]:
        """What the real tools give back to each call, as the agent sees it."""
        question = Message(role="user", content=row["messages"][-1]["content"])
        toolset = await self.toolset()
        session = await toolset.open(Item(id=row["id"], messages=(question,), fields=fields(row)), "trace_1")
        try:
            made = [
                result
                for turn, (name, arguments) in enumerate(calls)
                for result in await session.run(
                    [ToolCall(id=f"call_{turn}_0", name=name, arguments=json.dumps(arguments))]
                )
            ]
        finally:
            await session.close()
        return [result.output for result in made]

    async def play(self, row: Row, calls: Calls, answer: str | None) -> Row:
        """The sample a grader gets: the calls carried out, then the answer (None: cut off before one)."""
        outputs = await self.outputs(row, calls)
        messages = [*row["messages"]]
        for turn, ((name, arguments), output) in enumerate(zip(calls, outputs, strict=True)):
            call = {"id": f"call_{turn}_0", "type": "function"}
            call["function"] = {"name": name, "arguments": json.dumps(arguments)}  # type: ignore[assignment]
            messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
            messages.append({"role": "tool", "content": output, "tool_call_id": call["id"]})
        if answer is not None:
            messages.append({"role": "assistant", "content": answer})
        return sample_of(messages, answer)

    async def score(self, row: Row, calls: Calls, answer: str | None) -> float:
        return self.grade(await self.play(row, calls, answer), fields(row))


def fields(row: Row) -> Row:
    """`item` as tools and graders get it: the row without what belongs to the conversation."""
    return {key: value for key, value in row.items() if key not in ("id", "messages", "tools")}


def sample_of(messages: list[Row], answer: str | None) -> Row:
    """The dict that a Python grader gets, in OpenAI's words and ours."""
    return {
        "output_text": answer or "",
        "output_json": None,
        "output_tools": [],
        "choices": [{"index": 0, "message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}],
        "messages": messages,
        "n_calls": sum(len(message.get("tool_calls") or []) for message in messages),
        "stop_reason": "answered" if answer is not None else "max_turns",
    }


def calls_of(demonstration: Row) -> list[tuple[str, dict[str, Any]]]:
    """The calls of a demonstration, in order."""
    functions = [call["function"] for m in demonstration["messages"] for call in m.get("tool_calls") or []]
    return [(function["name"], json.loads(function["arguments"])) for function in functions]


@pytest.fixture(scope="session")
def open_example() -> Callable[[str], Example]:
    """Opens an example by its folder's name; each is read once a session."""
    opened: dict[str, Example] = {}
    return lambda name: opened.setdefault(name, Example(name))
