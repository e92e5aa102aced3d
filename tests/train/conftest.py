"""A task that a softmax table learns in a blink: peek at a hidden digit with a tool, then say it.

The best an agent can do is `!p` (a call), read the digit, answer with it: reward 1. A reply that starts right earns
a part, so that there is something to climb.
"""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from agentrft.data.rows import Demonstration
from agentrft.rollout import Agent, GeneratorActor, Limits
from agentrft.store import open_store
from agentrft.store.sql_store import SqlStore
from agentrft.testing import CharFormat, ScriptedGrader, ScriptedLearner, ScriptedTools
from agentrft.train import Progress, RftPlan, RunLog, SftPlan, demonstration_row
from agentrft.types import Item, Message, Sample, ToolCall

FORMAT = CharFormat()
DIGITS = "012"
IDS = [0, *FORMAT.encode("!p" + DIGITS)]


def make_items(n: int, start: int = 0) -> list[Item]:
    question = (Message(role="user", content="?"),)
    return [
        Item(id=f"row-{i}", messages=question, fields={"digit": DIGITS[i % len(DIGITS)]})
        for i in range(start, start + n)
    ]


def demonstration(item: Item) -> Demonstration:
    messages = (
        *item.messages,
        Message(role="assistant", tool_calls=(ToolCall(id="c", name="p", arguments="{}"),)),
        Message(role="tool", content=item.fields["digit"], tool_call_id="c"),
        Message(role="assistant", content=item.fields["digit"]),
    )
    return Demonstration(id=item.id, messages=messages)


def reward(sample: Sample, item: Item) -> float:
    if sample.output_text == item.fields["digit"] and sample.n_calls:
        return 1.0
    return 0.2 if sample.n_calls else 0.0


def make_learner(max_delay_s: float = 0.0) -> ScriptedLearner:
    """Knows nothing: every reply is babble."""
    return ScriptedLearner(IDS, order=3, max_delay_s=max_delay_s)


def warm(learner: ScriptedLearner) -> ScriptedLearner:
    """As after a short supervised start: calls the tool in about 3 of 10 episodes, and answers at random."""
    path = [2, *FORMAT.encode("?"), 0, 3, *FORMAT.encode("!p"), 0]
    for t in (4, 5, 6):  # each token of the call, after the three before it
        learner.table[tuple(path[t - 3 : t])] = 2.3 * np.eye(len(IDS))[sorted(IDS).index(path[t])]
    return learner


def make_agent(learner: ScriptedLearner, *, max_delay_s: float = 0.0, tools: ScriptedTools | None = None) -> Agent:
    tools = tools or ScriptedTools({"p": lambda arguments, item: item.fields["digit"]}, max_delay_s=max_delay_s)
    actor = GeneratorActor(generator=learner.generator, chat_format=FORMAT)
    return Agent(actor=actor, tools=tools, limits=Limits(max_turns=3, max_reply_tokens=4, max_malformed=0))


@pytest.fixture
def peek() -> SimpleNamespace:
    """The task's parts; test modules cannot import this file."""
    return SimpleNamespace(
        items=make_items,
        learner=make_learner,
        warm=warm,
        ids=IDS,
        agent=make_agent,
        reward=reward,
        grader=ScriptedGrader(reward),
        demonstration=demonstration,
        format=FORMAT,
    )


@pytest.fixture
def store(tmp_path: Path):
    with_jobs = open_store(tmp_path / "home")
    with_jobs.create_job({"id": "ftjob-t"})
    yield with_jobs
    with_jobs.close()


@pytest.fixture
def seen() -> list[Progress]:
    """Every progress record, in order."""
    return []


@pytest.fixture
def log(store: SqlStore, seen: list[Progress]) -> RunLog:
    return RunLog(store, "ftjob-t", watch=seen.append)


@pytest.fixture
def sft_plan(tmp_path: Path) -> Callable[..., SftPlan]:
    def build(**changes) -> SftPlan:
        demos = [demonstration(item) for item in make_items(9)]
        rows = [demonstration_row(demo, [], FORMAT, max_tokens=64) for demo in demos]
        return SftPlan(
            **{"run": "ftjob-t", "folder": tmp_path / "sft", "rows": rows, "batch_size": 3, "n_epochs": 2.0}
            | {"learning_rate": 2.0, "checkpoint_interval": 2}
            | changes
        )

    return build


@pytest.fixture
def rft_plan(tmp_path: Path) -> Callable[..., RftPlan]:
    def build(**changes) -> RftPlan:
        return RftPlan(
            **{"run": "ftjob-t", "folder": tmp_path / "rft", "items": make_items(12)}
            | {"validation": make_items(6, start=100), "steps": 6, "batch_size": 3, "group_size": 4}
            | {"learning_rate": 3.0, "eval_interval": 2, "eval_samples": 2, "warmup_steps": 1}
            | changes
        )

    return build
