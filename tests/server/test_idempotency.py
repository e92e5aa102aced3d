"""A request that is sent twice is carried out once, whatever gets lost in between."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from sqlalchemy import select

from agentrft.errors import StoreFault, UserError
from agentrft.jobs.vault import open_vault
from agentrft.server.auth import LOCAL_CALLER
from agentrft.server.config import ServerConfig
from agentrft.server.envelope import send_json
from agentrft.server.idempotency import Idempotent
from agentrft.server.state import ServerState
from agentrft.store import open_store
from agentrft.store.idempotency import Answered, Busy, Idempotency, Turn
from agentrft.store.schema import UPLOADS
from agentrft.testing import FakeClock

UPLOAD: Any = {"bytes": 1, "filename": "a.jsonl", "mime_type": "text/plain", "purpose": "batch"}


def post(server: Any, headers: dict[str, str], *, key: str = "local", **changes: Any) -> httpx.Response:
    return server.http(key, headers=headers).post("/v1/uploads", json={**UPLOAD, **changes})


def test_the_same_key_gives_the_same_answer(server: Any) -> None:
    first = post(server, {"Idempotency-Key": "k"})
    again = post(server, {"Idempotency-Key": "k"})
    assert (first.status_code, again.status_code) == (200, 200)
    assert again.content == first.content
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert post(server, {"Idempotency-Key": "other"}).json()["id"] != first.json()["id"]
    assert post(server, {}).json()["id"] != first.json()["id"]


def test_a_key_is_for_one_request(server: Any) -> None:
    post(server, {"Idempotency-Key": "k"})
    answer = post(server, {"Idempotency-Key": "k"}, bytes=2)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "idempotency_key_reused")
    assert answer.headers["x-should-retry"] == "false"


def test_keys_of_other_projects_are_others(server: Any) -> None:
    first = post(server, {"Idempotency-Key": "k"}, key=server.key("proj_a"))
    assert post(server, {"Idempotency-Key": "k"}, key=server.key("proj_b")).json()["id"] != first.json()["id"]


def test_another_key_of_the_project_is_given_no_answer_that_it_may_not_have(server: Any) -> None:
    retry = {"Idempotency-Key": "k"}, {"X-Stainless-Retry-Count": "1"}
    writer, reader = server.key("proj_a", "files:write"), server.key("proj_a", "files:read")
    for headers in retry:
        assert post(server, headers, key=writer).status_code == 200
        answer = post(server, headers, key=reader)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "missing_scope")


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_odd_keys_are_refused(server: Any, key: str) -> None:
    assert post(server, {"Idempotency-Key": key}).status_code == 400


def test_errors_are_not_kept(server: Any) -> None:
    assert post(server, {"Idempotency-Key": "k"}, purpose="x").status_code == 400
    assert post(server, {"Idempotency-Key": "k"}).status_code == 200


def test_a_hundred_at_once_make_one(server: Any) -> None:
    ids: list[str] = []
    client = server.http(headers={"Idempotency-Key": "k"}, limits=httpx.Limits(max_connections=100))

    def ask() -> None:
        ids.append(client.post("/v1/uploads", json=UPLOAD).json()["id"])

    threads = [threading.Thread(target=ask) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 100
    assert len(set(ids)) == 1


def test_the_sdks_retries_make_one(server: Any) -> None:
    first = post(server, {"X-Stainless-Retry-Count": "0"})
    retry = post(server, {"X-Stainless-Retry-Count": "1"})
    assert retry.json()["id"] == first.json()["id"]
    # The same body as a new intention.
    new = post(server, {"X-Stainless-Retry-Count": "0"})
    assert new.json()["id"] != first.json()["id"]
    assert post(server, {"X-Stainless-Retry-Count": "2"}).json()["id"] == new.json()["id"]


class LosesAnswers(httpx2.HTTPTransport):
    """Sends requests, and loses the first answers on their way back."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.left = n

    def handle_request(self, request: Any) -> Any:
        response = super().handle_request(request)
        if self.left:
            self.left -= 1
            response.read()
            raise httpx2.ReadTimeout("lost", request=request)
        return response


def test_the_sdk_itself_makes_one_when_answers_get_lost(server: Any) -> None:
    transport = LosesAnswers(2)
    with httpx2.Client(transport=transport) as http:
        client = server.openai(max_retries=3, http_client=http)
        made = client.uploads.create(**UPLOAD)
        assert transport.left == 0
        uploads = [row.id for row in _rows(server)]
    assert uploads == [made.id]


def _rows(server: Any) -> list[Any]:
    with server.state.store.database.read() as connection:
        return list(connection.execute(select(UPLOADS.c.id)))


def test_a_retry_of_what_never_arrived_is_carried_out(server: Any) -> None:
    assert post(server, {"X-Stainless-Retry-Count": "1"}).status_code == 200


def test_answers_survive_a_restart_and_are_kept_unreadable(live: Any, home: Path) -> None:
    first = post(live(), {"Idempotency-Key": "k"})
    again = post(live(), {"Idempotency-Key": "k"})
    assert again.content == first.content
    text = (home / "store.db").read_bytes() + b"".join(path.read_bytes() for path in home.glob("store.db-*"))
    assert b'\\"object\\":\\"upload\\"' not in text


def test_answers_are_forgotten_after_their_days(live: Any) -> None:
    clock = FakeClock()
    config = ServerConfig(concurrency=0, idempotency_days=2)
    server = live(config, prepare=lambda state: setattr(state.store.database, "clock", clock))
    first = post(server, {"Idempotency-Key": "k"})
    clock.advance(2 * 24 * 3600 - 1)
    assert post(server, {"Idempotency-Key": "k"}).content == first.content
    clock.advance(2)
    assert post(server, {"Idempotency-Key": "k"}).content != first.content


def test_a_turn_of_a_server_that_died_is_taken_over_under_its_token(live: Any) -> None:
    clock = FakeClock()
    state: ServerState = live(prepare=lambda state: setattr(state.store.database, "clock", clock)).state
    turn = state.idempotency.begin("p", "k", "digest")
    assert isinstance(turn, Turn)
    assert state.idempotency.begin("p", "k", "digest") == Busy()
    clock.advance(15)
    state.idempotency.refresh("p", "k", turn)
    clock.advance(15)
    assert state.idempotency.begin("p", "k", "digest") == Busy()
    clock.advance(20)
    assert state.idempotency.begin("p", "k", "digest") == turn
    state.idempotency.finish("p", "k", turn, 200, "answer")
    assert state.idempotency.begin("p", "k", "digest") == Answered(200, "answer")
    anew = state.idempotency.begin("p", "k", "digest", anew=True)
    assert isinstance(anew, Turn)
    state.idempotency.finish("p", "k", turn, 200, "late")  # whoever was replaced changes nothing
    assert state.idempotency.begin("p", "k", "digest") == Busy()


class Inside:
    """What a request is carried out by: notes its token, and does what `then` says."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.then: Callable[[], Any] = lambda: None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.tokens.append(scope["state"]["once"])
        await asyncio.to_thread(self.then)
        await send_json(send, 200, {}, {})


class Flaky(Idempotency):
    """Loses its store when it is told to."""

    lost: frozenset[str] = frozenset()
    n_refreshed = 0

    def finish(self, project: str, key: str, turn: Turn, status: int, answer: str) -> None:
        if "finish" in self.lost:
            raise StoreFault("the disk is full")
        super().finish(project, key, turn, status, answer)

    def refresh(self, project: str, key: str, turn: Turn) -> None:
        self.n_refreshed += 1
        if self.n_refreshed == 1:
            raise StoreFault("the store is busy")
        super().refresh(project, key, turn)


def ask_once(answers: Idempotency, inside: Inside) -> list[Any]:
    """What one request under the same key is sent."""
    state = {"body": b"{}", "caller": LOCAL_CALLER}
    headers = [(b"idempotency-key", b"k")]
    scope = {"type": "http", "method": "POST", "path": "/x", "query_string": b"", "headers": headers, "state": state}
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("the body was read already")

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(Idempotent(inside, answers, open_vault())(scope, receive, send))
    return sent


@pytest.fixture
def flaky(home: Path) -> Iterator[Flaky]:
    store = open_store(home)
    yield Flaky(store.database, keep_s=1000)
    store.close()


def test_what_may_have_been_made_is_tried_again_under_its_token(flaky: Flaky) -> None:
    inside = Inside()
    flaky.lost = frozenset({"finish"})  # after the handler has made something
    with pytest.raises(StoreFault):
        ask_once(flaky, inside)

    def lose() -> None:
        raise StoreFault("the disk is full")

    inside.then = lose
    with pytest.raises(StoreFault):
        ask_once(flaky, inside)
    inside.then, flaky.lost = (lambda: None), frozenset()
    assert ask_once(flaky, inside)[0]["status"] == 200
    assert len(inside.tokens) == 3
    assert len(set(inside.tokens)) == 1
    ask_once(flaky, inside)  # answered from what was kept
    assert len(inside.tokens) == 3


def test_what_was_refused_is_tried_again_as_something_new(flaky: Flaky) -> None:
    inside = Inside()

    def refuse() -> None:
        raise UserError("no")

    inside.then = refuse
    with pytest.raises(UserError):
        ask_once(flaky, inside)
    inside.then = lambda: None
    ask_once(flaky, inside)
    assert len(set(inside.tokens)) == 2


def test_a_store_that_is_busy_for_a_moment_ends_no_refreshing(flaky: Flaky, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentrft.server.idempotency.STALE_S", 0.04)
    inside = Inside()

    def wait() -> None:
        deadline = time.monotonic() + 10
        while flaky.n_refreshed < 3 and time.monotonic() < deadline:
            time.sleep(0.01)

    inside.then = wait
    ask_once(flaky, inside)
    assert flaky.n_refreshed >= 3
