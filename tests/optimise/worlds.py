"""Small worlds with a planted fault: an agent that goes by what it is told, and tools that want something unsaid.

The agent is a function of its conversation: it does the task rightly as far as prompt and descriptions tell it how, and
guesses where they do not. Tools, agent loop, guardrails and shaping are the product's own.
"""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from agentrft.build import limits_of
from agentrft.graders import build_grader
from agentrft.jobs.load import load_job
from agentrft.jobs.spec import JobSpec
from agentrft.jobs.tools import open_tools
from agentrft.ladder.optimise import OpenAgent, Task
from agentrft.protocols import Grader, Reply
from agentrft.rollout import Agent, Limits
from agentrft.tools import ToolLimits
from agentrft.types import Item, Message, TokenTrace, ToolCall, ToolResult, ToolSpec

Policy = Callable[[Item, list[ToolResult], Sequence[ToolSpec], str, random.Random], "ToolCall | str"]
"""(item, results so far, tools as told, system message, draws) → the next call, or the answer."""


@dataclass(frozen=True)
class PolicyActor:
    """An `Actor` that plays a policy."""

    policy: Policy

    def open(self, item: Item, tools: Sequence[ToolSpec], limits: Limits, order: tuple[int, int]) -> PolicyDialogue:
        return PolicyDialogue(self.policy, item, tools)


class PolicyDialogue:
    position = 0

    def __init__(self, policy: Policy, item: Item, tools: Sequence[ToolSpec]) -> None:
        self._policy, self._item, self._tools = policy, item, tools
        self._system = next((m.content or "" for m in item.messages if m.role == "system"), "")
        self._results: list[ToolResult] = []

    async def reply(self, seed: int) -> Reply:
        move = self._policy(self._item, self._results, self._tools, self._system, random.Random(seed))
        if isinstance(move, str):
            return Reply(message=Message(role="assistant", content=move))
        return Reply(message=Message(role="assistant", tool_calls=(move,)))

    def add_results(self, results: Sequence[ToolResult]) -> bool:
        self._results += results
        return True

    def trace(self) -> TokenTrace | None:
        return None


def call(tool: str, **arguments: Any) -> ToolCall:
    return ToolCall(id="call_0", name=tool, arguments=json.dumps(arguments))


def told(tools: Sequence[ToolSpec], name: str, parameter: str | None = None) -> str:
    spec = next(spec for spec in tools if spec.name == name)
    if parameter is None:
        return spec.description
    return spec.parameters["properties"][parameter].get("description", "")


def make_task(
    folder: Path, tools: str, names: Sequence[str], rows: Callable[[int], dict[str, Any]], **agent: Any
) -> Task:
    """A job folder with 60 training and 60 validation rows, graded by whether the answer contains `item.answer`."""
    (folder / "tools.py").write_text(tools)
    for split, start in (("train", 0), ("validation", 1000)):
        lines = [json.dumps({"id": f"{split}-{n}", **rows(start + n)}) for n in range(60)]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    grader = {
        "type": "string_check",
        "name": "right",
        "operation": "eq",
        "input": "{{sample.output_text}}",
        "reference": "{{item.answer}}",
    }
    document = {
        "model": "scripted",
        "method": {"type": "reinforcement", "reinforcement": {"grader": grader}},
        "data": {"train": "train.jsonl", "validation": "validation.jsonl"},
        "agent": {
            "system": "Answer the question.",
            "tools": [{"type": "python", "target": f"tools.py:{name}", "isolation": "inline"} for name in names],
            **agent,
        },
    }
    path = folder / "job.yaml"
    path.write_text("# The job under test.\n" + yaml.safe_dump(document, sort_keys=False))
    return Task.read(path, load_job(path)[0])


def agents(task: Task, policy: Policy) -> OpenAgent:
    """The policy with the job's own tools, guardrails, shaping and grader."""

    @asynccontextmanager
    async def open_agent(spec: JobSpec) -> AsyncIterator[tuple[Agent, Grader]]:
        tools = await open_tools(spec, task.base_dir, ToolLimits(output_tokens=spec.agent.limits.tool_output_tokens))
        assert spec.method.reinforcement is not None
        grader = build_grader(spec.method.reinforcement.grader, task.base_dir)
        try:
            yield Agent(actor=PolicyActor(policy), tools=tools, limits=limits_of(spec)), grader
        finally:
            await grader.close()
            await tools.close()

    return open_agent


async def tools_of(task: Task) -> Sequence[ToolSpec]:
    tools = await open_tools(task.spec, task.base_dir)
    await tools.close()
    return tools.specs


# A date format that the description hides

DATES = '''
import re


def orders(day: str) -> str:
    """Number of orders of a day."""
    if not re.fullmatch(r"\\d{4}-\\d\\d-\\d\\d", day):
        return "error: cannot read the day"
    return str(sum(map(ord, day)))
'''
FORMATS = ("{2:04d}-{1:02d}-{0:02d}", "{0}/{1}/{2}", "{0}.{1}.{2}", "{1}/{0}/{2}", "day {0} of month {1}")


def date_row(n: int) -> dict[str, Any]:
    day, month, year = 1 + n % 28, 1 + n % 12, 2000 + n % 25
    iso = FORMATS[0].format(day, month, year)
    question = f"How many orders on day {day} of month {month} in {year}?"
    return {
        "messages": [{"role": "user", "content": question}],
        "date": [day, month, year],
        "answer": str(sum(map(ord, iso))),
    }


def date_policy(
    item: Item, results: list[ToolResult], tools: Sequence[ToolSpec], system: str, draws: random.Random
) -> ToolCall | str:
    if results and not results[-1].output.startswith("error"):
        return results[-1].output
    if len(results) == 2:
        return "unknown"
    knows = "ISO date" in told(tools, "orders", "day")
    form = FORMATS[0] if knows and draws.random() < 0.95 else draws.choice(FORMATS)
    return call("orders", day=form.format(*item.fields["date"]))


# A limit that cuts off what is asked for

PAGES = '''
def page(name: str) -> str:
    """A page of the handbook."""
    words = " ".join(f"{name} paragraph {n}: nothing of interest here." for n in range(40))
    return f"{words} The total of {name} is {sum(map(ord, name))}."
'''


def page_row(n: int) -> dict[str, Any]:
    name = f"chapter{n}"
    question = f"What is the total of {name}?"
    return {"messages": [{"role": "user", "content": question}], "name": name, "answer": str(sum(map(ord, name)))}


def page_policy(
    item: Item, results: list[ToolResult], tools: Sequence[ToolSpec], system: str, draws: random.Random
) -> ToolCall | str:
    if not results:
        return call("page", name=item.fields["name"])
    total = results[-1].output.partition(" is ")[2].rstrip(".")
    return total if total.isdigit() and draws.random() < 0.9 else str(draws.randrange(2000))


# A tool that must come first

SHOP = '''
class Shop:
    def __init__(self, item: dict) -> None:
        self.owner = item["owner"]
        self.is_open = False

    def login(self) -> str:
        """Open a session."""
        self.is_open = True
        return "session open"

    def balance(self) -> str:
        """The account's balance."""
        return str(sum(map(ord, self.owner))) if self.is_open else "error: not allowed"

    def help(self) -> str:
        """General help."""
        return "This is the shop."
'''


def shop_row(n: int) -> dict[str, Any]:
    owner = f"owner{n}"
    question = f"What is the balance of {owner}?"
    return {"messages": [{"role": "user", "content": question}], "owner": owner, "answer": str(sum(map(ord, owner)))}


def shop_policy(
    item: Item, results: list[ToolResult], tools: Sequence[ToolSpec], system: str, draws: random.Random
) -> ToolCall | str:
    if not results:
        knows = "Call `login` first" in told(tools, "balance")
        return call("login") if draws.random() < (0.95 if knows else 0.3) else call("balance")
    if results[-1].output.isdigit():
        return results[-1].output
    if results[-1].output == "session open":
        return call("balance")
    if "login" in results[-1].output and draws.random() < 0.8:  # a guardrail's refusal names it
        return call("login")
    return "unknown"


# A tool that does harm

LOOKUPS = '''
def lookup(name: str) -> str:
    """Look a name up."""
    return str(sum(map(ord, name)))


def quick_lookup(name: str) -> str:
    """Look a name up, quickly."""
    return str(len(name))


def weather() -> str:
    """The weather."""
    return "rain"
'''


def lookup_policy(
    item: Item, results: list[ToolResult], tools: Sequence[ToolSpec], system: str, draws: random.Random
) -> ToolCall | str:
    if results:
        return results[-1].output
    names = [spec.name for spec in tools if "lookup" in spec.name]
    return call(draws.choice(names), name=item.fields["name"])
