"""Tiny chat models, and engine processes over them that are gone after their test."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentrft.jobs.models import Weights
from agentrft.runtime.serving.client import EngineClient
from agentrft.runtime.serving.wire import CallMade, ChatRequest, DrawnToken, Ended, Started, TextDelta

if importlib.util.find_spec("torch") is None:
    collect_ignore = ["test_bounds.py", "test_client.py", "test_replies.py", "test_real_model.py"]


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """chat_model("hermes"): a random-weight model folder whose tokenizer asks for that format, made once."""
    from chat_models import save_chat_model

    made: dict[str, Path] = {}

    def make(family: str) -> Path:
        if family not in made:
            made[family] = save_chat_model(family, tmp_path_factory.mktemp("chat") / family)
        return made[family]

    return make


@pytest.fixture
def asked(chat_model: Callable[[str], Path]) -> Callable[..., ChatRequest]:
    """asked("hermes", content="Hi", …): a request to one of the tiny models."""

    def make(family: str = "hermes", *, content: str = "Where is it?", **fields: Any) -> ChatRequest:
        fields.setdefault("weights", Weights(name=family, folder=chat_model(family)))
        fields.setdefault("messages", [{"role": "user", "content": content}])
        return ChatRequest(**{"max_tokens": 24, "seed": 1, **fields})

    return make


@pytest.fixture
async def client() -> AsyncIterator[Callable[..., EngineClient]]:
    """client(…): an EngineClient that is closed after the test."""
    clients: list[EngineClient] = []

    def make(**options: Any) -> EngineClient:
        clients.append(EngineClient(**{"threads": 1, "dtype": "float32", **options}))
        return clients[-1]

    yield make
    for one in clients:
        await one.close()


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineClient]:
    """One engine process for all tests of a file: starting one takes seconds."""
    shared = EngineClient(threads=1, dtype="float32", max_models=4)
    yield shared
    asyncio.run(shared.close())


class Heard:
    """The events of one reply, put together."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, TextDelta))

    @property
    def texts(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, TextDelta)]

    @property
    def calls(self) -> list[CallMade]:
        return [event for event in self.events if isinstance(event, CallMade)]

    @property
    def tokens(self) -> list[DrawnToken]:
        return [token for event in self.events if isinstance(event, TextDelta) for token in event.tokens]

    @property
    def end(self) -> Ended:
        assert isinstance(self.events[0], Started)
        assert isinstance(self.events[-1], Ended)
        return self.events[-1]


@pytest.fixture
def hear() -> Callable[..., Any]:
    """await hear(engine, request): all of a reply."""

    async def play(engine: EngineClient, request: ChatRequest) -> Heard:
        heard = Heard()
        async for event in engine.chat(request):
            heard.events.append(event)
        return heard

    return play
