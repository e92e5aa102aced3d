"""Keys: made, checked, scoped, expired, revoked; what a server without any does, and what it refuses."""

from __future__ import annotations

import logging
import re
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from agentrft.errors import UserError
from agentrft.server.config import ServerConfig
from agentrft.server.logs import CleanFormatter
from agentrft.server.run import listen
from agentrft.testing import FakeClock


def test_without_keys_any_bearer_token_is_the_local_project(server: Any) -> None:
    file = server.openai("anything").files.create(file=("a.jsonl", b"x"), purpose="batch")
    assert server.openai("else").files.retrieve(file.id).id == file.id
    assert server.state.files.get("proj_local", file.id).project == "proj_local"


@pytest.mark.parametrize("header", [None, "", "Basic eDp5", "Bearer", "Bearer\tx", "sk-1"])
def test_a_bearer_token_is_always_needed(shared: Any, header: str | None) -> None:
    """A web page cannot set this header without asking first, which a server that answers nobody refuses."""
    answer = httpx.get(f"{shared.url}/v1/files", headers={} if header is None else {"Authorization": header})
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert answer.headers["www-authenticate"] == "Bearer"


def test_once_a_key_exists_it_is_required(server: Any) -> None:
    assert server.http("any").get("/v1/files").status_code == 200
    key = server.key()
    assert server.http("any").get("/v1/files").status_code == 401
    assert server.http(key).get("/v1/files").status_code == 200


def test_revoking_works_at_once_and_the_last_key_opens_nothing(server: Any) -> None:
    key = server.key()
    client = server.http(key)
    assert client.get("/v1/files").status_code == 200
    server.state.keys.revoke(key[3:11])
    assert client.get("/v1/files").status_code == 401
    assert server.http("any").get("/v1/files").status_code == 401


def test_keys_expire(live: Callable[..., Any]) -> None:
    clock = FakeClock()
    server = live(prepare=lambda state: setattr(state.store.database, "clock", clock))
    _, key = server.state.keys.create("proj_a", ["admin"], expires_at=clock.now() + 60)
    client = server.http(key)
    assert client.get("/v1/files").status_code == 200
    clock.advance(60)
    assert client.get("/v1/files").status_code == 401


def test_a_key_does_what_its_scopes_say(server: Any) -> None:
    reader = server.openai(server.key("proj_a", "files:read"))
    assert reader.files.list().data == []
    with pytest.raises(openai.PermissionDeniedError) as error:
        reader.files.create(file=("a.jsonl", b"x"), purpose="batch")
    assert error.value.code == "missing_scope"
    assert "files:write" in error.value.message
    writer = server.openai(server.key("proj_a", "files:write"))
    file = writer.files.create(file=("a.jsonl", b"x"), purpose="batch")
    with pytest.raises(openai.PermissionDeniedError):
        writer.files.list()
    assert reader.files.retrieve(file.id).id == file.id


def test_a_key_has_its_form_and_is_kept_as_a_hash(server: Any, home: Path) -> None:
    key = server.key()
    assert re.fullmatch(r"sk-[0-9A-Za-z]{8}-[0-9A-Za-z]{43}-[0-9A-Za-z]{6}", key)
    server.http(key).get("/v1/files")
    rows = sqlite3.connect(home / "store.db").execute("SELECT * FROM keys").fetchall()
    assert len(rows) == 1
    assert key not in str(rows)
    assert key[12:55] not in str(rows)


@pytest.mark.parametrize("change", ["x", "sk-", "{key}x", "{key}\u00e9", "sk-{id}-{zeros}-000000", "{other}"])
def test_other_texts_are_no_keys(server: Any, change: str) -> None:
    key = server.key()
    other = key[:20] + ("A" if key[20] != "A" else "B") + key[21:]
    text = change.format(key=key, id=key[3:11], zeros="0" * 43, other=other)
    answer = httpx.get(f"{server.url}/v1/files", headers={"Authorization": f"Bearer {text}".encode()})
    assert answer.status_code == 401
    assert text not in answer.text or text == "x"


def test_using_a_key_is_noted_to_the_minute(live: Callable[..., Any]) -> None:
    clock = FakeClock(now=1_000_000.0)
    server = live(prepare=lambda state: setattr(state.store.database, "clock", clock))
    key = server.key()
    used = []
    for _ in range(3):
        server.http(key).get("/v1/files")
        used.append(server.state.keys.get(key[3:11]).last_used_at)
        clock.advance(40)
    # At 0 s, not again at 40 s, again at 80 s.
    assert used == [1_000_000.0, 1_000_000.0, 1_000_080.0]


@pytest.mark.parametrize(
    ("project", "scopes", "param"),
    [("a b", ["admin"], "project"), ("", ["admin"], "project"), ("p", ["jobs"], "scope"), ("p", [], "scope")],
)
def test_impossible_keys_are_refused(shared: Any, project: str, scopes: list[str], param: str) -> None:
    with pytest.raises(UserError) as error:
        shared.state.keys.create(project, scopes)
    assert error.value.param == param


def test_nothing_beyond_loopback_without_keys(server: Any) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.test"):
        with pytest.raises(UserError) as error:
            listen(host, 0, server.state.keys)
        assert error.value.code == "keys_missing"
        assert "agentrft keys create" in error.value.message
    server.key()
    listen("localhost", 0, server.state.keys).close()


def test_a_taken_port_is_a_users_mistake(server: Any) -> None:
    with pytest.raises(UserError) as error:
        listen("127.0.0.1", int(server.url.rpartition(":")[2]), server.state.keys)
    assert error.value.code == "address_unavailable"


@pytest.mark.parametrize(
    ("host", "is_good"),
    [
        ("127.0.0.1", True),
        ("127.0.0.1:8000", True),
        ("localhost:1", True),
        ("LOCALHOST", True),
        ("[::1]:8000", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.nip.io", False),
        ("10.0.0.1", False),
        ("localhost:80:80", False),
        ("", False),
    ],
)
def test_other_hosts_names_are_refused(shared: Any, host: str, is_good: bool) -> None:
    answer = shared.http().get("/v1/files", headers={"Host": host})
    assert (answer.status_code == 200) is is_good
    if not is_good:
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "host_not_allowed")


def test_operators_list_hosts_and_origins(live: Callable[..., Any]) -> None:
    server = live(ServerConfig(concurrency=0, hosts=("box.internal",), origins=("https://app.example",)))
    client = server.http()
    assert client.get("/v1/files", headers={"Host": "box.internal:8000"}).status_code == 200
    answer = client.get("/v1/files", headers={"Origin": "https://app.example"})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    assert "access-control-allow-credentials" not in answer.headers
    asked = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    assert client.options("/v1/files", headers=asked).status_code == 200
    # What goes wrong is shown to the page too.
    answer = client.get("/v1/files/file-x", headers={"Origin": "https://app.example"})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (404, "https://app.example")


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://[::1"])
def test_other_pages_are_refused(shared: Any, origin: str) -> None:
    answer = shared.http().post(
        "/v1/files", headers={"Origin": origin}, files={"file": b"x"}, data={"purpose": "batch"}
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "origin_not_allowed")
    assert "access-control-allow-origin" not in answer.headers
    assert shared.state.files.list("proj_local") == ([], False)


def test_the_servers_own_pages_may_call_it(shared: Any) -> None:
    assert shared.http().get("/v1/files", headers={"Origin": shared.url}).status_code == 200


def test_metrics_are_for_this_machine_or_a_key_with_the_scope(server: Any) -> None:
    url = f"{server.url}/metrics"
    assert httpx.get(url).status_code == 200
    assert httpx.get(url, headers={"X-Forwarded-For": "203.0.113.1"}).status_code == 401
    assert server.http(server.key("p", "files:read")).get("/metrics").status_code == 403
    assert server.http(server.key("p", "metrics:read")).get("/metrics").status_code == 200


def test_health_needs_no_key(server: Any) -> None:
    server.key()
    answer = httpx.get(f"{server.url}/healthz")
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")


def test_checking_a_key_is_fast(server: Any) -> None:
    key = server.key()
    server.state.keys.check(key)
    began = time.perf_counter()
    for _ in range(100):
        server.state.keys.check(key)
    assert time.perf_counter() - began < 1.0


def test_logs_hold_no_keys_and_no_escapes() -> None:
    secret = "sk-AbCdEfGh-" + "x" * 43 + "-123456"
    record = logging.LogRecord(
        "agentrft", logging.INFO, "", 0, "%s", (f"\x1b]0;t\x07got {secret} whsec_abcdefgh123",), None
    )
    text = CleanFormatter().format(record)
    assert text.endswith("got ********** **********")
    assert "\x1b" not in text
