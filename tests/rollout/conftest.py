from collections.abc import Callable, Sequence

import pytest

from agentrft.rollout import Agent, EpisodeKey, GeneratorActor, Limits
from agentrft.testing import CharFormat, ScriptedGenerator, ScriptedTools
from agentrft.types import Item, Message

FORMAT = CharFormat()


@pytest.fixture
def item() -> Item:
    return Item(id="row-1", messages=(Message(role="system", content="S"), Message(role="user", content="Q?")))


@pytest.fixture
def key() -> EpisodeKey:
    return EpisodeKey(run="ftjob-t", step=0, item="row-1", member=0)


@pytest.fixture
def agent() -> Callable[..., Agent]:
    """agent("!look", "4"): says these replies in turn; the turn is told from the number of tool results seen."""

    def build(*replies: str, limits: Limits | None = None, tools: ScriptedTools | None = None, **generator) -> Agent:
        def policy(tokens: Sequence[int], rng: object) -> list[int]:
            turn = list(tokens).count(4)  # CharFormat's opening of a tool result
            return FORMAT.encode(replies[turn])

        return Agent(
            actor=GeneratorActor(generator=ScriptedGenerator(policy, **generator), chat_format=FORMAT),
            tools=tools or ScriptedTools({"look": lambda arguments, item: "seen"}),
            limits=limits or Limits(),
        )

    return build
