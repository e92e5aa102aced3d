"""A baseline without a model: a scripted policy that peeks at an item's digit with a tool, or guesses."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import pytest

from agentrft.diagnose import BaselinePlan
from agentrft.protocols import EpisodeRecord
from agentrft.rollout import Agent, GeneratorActor, Limits
from agentrft.testing import CharFormat, ScriptedGenerator, ScriptedGrader, ScriptedTools
from agentrft.types import Episode, Grade, Group, Item, Message, Sample, StopReason, ToolCall, ToolResult, Turn

FORMAT = CharFormat()


def make_items(n: int) -> list[Item]:
    return [
        Item(id=f"row-{i}", messages=(Message(role="user", content=f"{i % 10}?"),), fields={"digit": str(i % 10)})
        for i in range(n)
    ]


def policy(context: Sequence[int], rng: random.Random) -> list[int]:
    """Peeks in 7 of 10 episodes; answers what it saw, else a random digit."""
    seen = FORMAT.decode(context)
    if "<4>" not in seen:
        return FORMAT.encode("!p") if rng.random() < 0.7 else FORMAT.encode(str(rng.randrange(10)))
    return FORMAT.encode(seen.rsplit("<4>", 1)[1][0])


def reward(sample: Sample, item: Item) -> float:
    return float(sample.output_text == item.fields["digit"])


def make_agent(**tools: Callable[..., object]) -> Agent:
    generator = ScriptedGenerator(policy)
    return Agent(
        actor=GeneratorActor(generator=generator, chat_format=FORMAT),
        tools=ScriptedTools({"p": lambda arguments, item: item.fields["digit"]}, **tools),  # type: ignore[arg-type]
        limits=Limits(max_turns=3, max_reply_tokens=4),
    )


def make_episode(
    item: Item,
    member: int = 0,
    *,
    calls: Sequence[tuple[str, str]] = (),
    errors: Sequence[int] = (),
    answer: str | None = "done",
    stop: StopReason = StopReason.ANSWERED,
    fault: str | None = None,
) -> Episode:
    """An episode with one call a turn, then an answer; the results numbered in `errors` are errors."""
    turns = []
    for n, (name, arguments) in enumerate(calls):
        call = ToolCall(id=f"call_{n}_0", name=name, arguments=arguments)
        result = ToolResult(call_id=call.id, output=f"out {n}", is_error=n in errors, wall_s=0.1 * (n + 1), bytes_in=10)
        broke = fault is not None and n == len(calls) - 1
        turns.append(Turn(reply=Message(role="assistant", tool_calls=(call,)), results=() if broke else (result,)))
    if answer is not None and stop is StopReason.ANSWERED:
        turns.append(Turn(reply=Message(role="assistant", content=answer)))
    said = []
    for turn in turns:
        said.append(turn.reply)
        said += [Message(role="tool", content=r.output, tool_call_id=r.call_id) for r in turn.results]
    return Episode(
        id=f"ep_{item.id}_{member}",
        trace_id=f"trace_{item.id}_{member}",
        item_id=item.id,
        step=0,
        member=member,
        attempt=0,
        messages=(*item.messages, *said),
        turns=tuple(turns),
        stop_reason=stop,
        fault=fault,
    )


def make_group(item: Item, values: Sequence[float | None], **episode: object) -> Group:
    """A group with these grades; None is an episode without a number."""
    episodes = tuple(make_episode(item, member, **episode) for member in range(len(values)))  # type: ignore[arg-type]
    grades = tuple(Grade(value=None, reason="no idea") if v is None else Grade(value=v) for v in values)
    return Group(item=item, episodes=episodes, grades=grades)


def make_record(episode: Episode, value: float | None) -> EpisodeRecord:
    grade = Grade(value=None, reason="no idea") if value is None else Grade(value=value)
    return EpisodeRecord(job_id="ftjob-t", phase="test", stage="s", episode=episode, grade=grade, reward=value)


def make_plan(items: Sequence[Item], samples: int = 4, **changes: object) -> BaselinePlan:
    settings = {"job_id": "ftjob-t", "stage": "diagnose", "split": "train", "items": items, "samples": samples}
    return BaselinePlan(**(settings | changes))  # type: ignore[arg-type]


@pytest.fixture
def peek() -> SimpleNamespace:
    """The parts above; test modules cannot import this file."""
    return SimpleNamespace(
        items=make_items,
        agent=make_agent,
        grader=ScriptedGrader(reward),
        plan=make_plan,
        episode=make_episode,
        group=make_group,
        record=make_record,
    )
