"""A live server on loopback with a home of its own, and clients of it."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import uvicorn
from fastapi import FastAPI
from openai import OpenAI

from agentrft.server.app import create_app
from agentrft.server.config import ServerConfig
from agentrft.server.engine import Engine
from agentrft.server.run import config_of
from agentrft.server.state import ServerState, open_state
from agentrft.store import open_store
from agentrft.testing.serving import ScriptedEngine, listening

sys.path.insert(0, str(Path(__file__).parent))  # for weather_tool.py

if importlib.util.find_spec("torch") is None:
    collect_ignore = ["test_real_engine.py"]


@dataclass(kw_only=True)
class LiveServer:
    """A server in a thread of this process."""

    url: str
    """Without `/v1`."""
    state: ServerState
    app: FastAPI
    _server: uvicorn.Server
    _thread: threading.Thread
    _clients: list[Any] = field(default_factory=list)

    def key(self, project: str = "proj_a", *scopes: str) -> str:
        """A new API key; from then on the server requires one."""
        return self.state.keys.create(project, scopes or ["admin"])[1]

    def http(self, key: str = "local", **options: Any) -> httpx.Client:
        """A plain client; paths start with `/v1`."""
        headers = {"Authorization": f"Bearer {key}", **options.pop("headers", {})}
        self._clients.append(httpx.Client(base_url=self.url, headers=headers, timeout=30, **options))
        return self._clients[-1]

    def openai(self, key: str = "local", **options: Any) -> OpenAI:
        """OpenAI's own client, unmodified."""
        options = {"max_retries": 0, "timeout": 30, **options}
        self._clients.append(OpenAI(base_url=f"{self.url}/v1", api_key=key, **options))
        return self._clients[-1]

    def stop(self) -> None:
        for client in self._clients:
            client.close()
        self._server.should_exit = True
        self._thread.join()
        self.state.close()


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store's file with nothing in it: making one takes longer than most tests."""
    folder = tmp_path_factory.mktemp("empty")
    open_store(folder).close()
    return folder / "store.db"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_store: Path) -> Path:
    """An AGENTRFT_HOME of this test's own."""
    return _make_home(tmp_path, monkeypatch, empty_store)


@pytest.fixture
def live(home: Path) -> Iterator[Callable[..., LiveServer]]:
    """live(ServerConfig(…)): start a server; by default one that runs no jobs. All are gone after the test."""
    started: list[LiveServer] = []

    def start(
        config: ServerConfig | None = None, *, prepare: Callable[[ServerState], None] | None = None
    ) -> LiveServer:
        """`prepare` may change the state before anything runs."""
        started.append(_start(config or ServerConfig(concurrency=0), prepare))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def server(live: Callable[..., LiveServer]) -> LiveServer:
    """A server without keys that runs no jobs."""
    return live()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[LiveServer]:
    """The same for all tests of a module, for those that leave nothing behind."""
    with pytest.MonkeyPatch.context() as patch:
        _make_home(tmp_path_factory.mktemp("shared"), patch, empty_store)
        server = _start(ServerConfig(concurrency=0), None)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerState]:
    """A server's state with one base model, `tiny`, which operators also call `o4-mini`."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AGENTRFT_HOME", str(home))
        tiny = home / "models" / "tiny"
        tiny.mkdir(parents=True)
        for name in ("config.json", "tokenizer.json", "model.safetensors"):
            (tiny / name).write_text("{}")
        state = open_state(ServerConfig(aliases={"o4-mini": "tiny"}, concurrency=0), store=open_store(home))
        yield state
        state.close()


@pytest.fixture(scope="module")
def url(state: ServerState) -> Iterator[str]:
    """Where a server with that state listens, without `/v1`."""
    with listening(create_app(state)) as url:
        yield url


@pytest.fixture
def engine(url: str, state: ServerState) -> ScriptedEngine:
    """What plays `tiny` in this test."""
    engine = ScriptedEngine("Hi.")
    state.engine = Engine(engine)
    return engine


@pytest.fixture
def client(url: str, engine: ScriptedEngine) -> Iterator[OpenAI]:
    """OpenAI's own client of that server."""
    with OpenAI(base_url=f"{url}/v1", api_key="sk-none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="session")
def is_unknown() -> Callable[[OpenAI, str], bool]:
    """is_unknown(client, response_id): so it is to every way of asking for a response."""

    def ask_all(client: OpenAI, response_id: str) -> bool:
        for ask in (client.responses.retrieve, client.responses.delete, client.responses.input_items.list):
            with pytest.raises(openai.NotFoundError) as caught:
                ask(response_id)
            assert (caught.value.code, caught.value.param) == ("not_found", "response_id")
        with pytest.raises(openai.BadRequestError) as refused:
            client.responses.create(model="tiny", input="On", previous_response_id=response_id)
        assert (refused.value.code, refused.value.param, refused.value.type) == (
            "previous_response_not_found",
            "previous_response_id",
            "invalid_request_error",
        )
        assert f"Previous response with id '{response_id}' not found" in refused.value.message
        return True

    return ask_all


def _make_home(folder: Path, patch: pytest.MonkeyPatch, empty_store: Path) -> Path:
    home = folder / "home"
    home.mkdir()
    shutil.copyfile(empty_store, home / "store.db")
    patch.setenv("AGENTRFT_HOME", str(home))
    return home


def _start(config: ServerConfig, prepare: Callable[[ServerState], None] | None) -> LiveServer:
    state = open_state(config)
    if prepare:
        prepare(state)
    sock = socket.create_server(("127.0.0.1", 0))
    options: Any = config_of(state)
    server = uvicorn.Server(options)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, name="server")
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start; its log says why"
        time.sleep(0.005)
    port = sock.getsockname()[1]
    return LiveServer(url=f"http://127.0.0.1:{port}", state=state, app=options.app, _server=server, _thread=thread)
