"""Rates, sizes, paces and how many at once; and what the operator's file may say of them."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from agentrft.errors import UserError
from agentrft.server.config import Limits, ServerConfig, load_config

UPLOAD: Any = {"bytes": 1, "filename": "a.jsonl", "mime_type": "text/plain", "purpose": "batch"}


def limited(live: Callable[..., Any], **limits: Any) -> Any:
    return live(ServerConfig(concurrency=0, limits=Limits(**limits)))


def connect(server: Any) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=10)


def test_a_key_may_ask_so_often(live: Any) -> None:
    server = limited(live, requests_per_minute=5)
    one, other = server.http(server.key("proj_a")), server.http(server.key("proj_a"))
    answers = [one.get("/v1/files") for _ in range(6)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers[:5]] == ["4", "3", "2", "1", "0"]
    assert answers[5].json()["error"]["code"] == "rate_limit_exceeded"
    assert 1 <= int(answers[5].headers["retry-after"]) <= 13
    assert other.get("/v1/files").status_code == 200
    assert httpx.get(f"{server.url}/healthz").status_code == 200


def test_json_bodies_are_small(live: Any) -> None:
    client = limited(live, json_bytes=2000).http()
    body = json.dumps({**UPLOAD, "filename": "a" * 900})
    assert client.post("/v1/uploads", content=body, headers={"Content-Type": "application/json"}).status_code == 200
    for content in (b"x" * 2001, iter([b"x" * 1500, b"x" * 1500])):
        answer = client.post("/v1/uploads", content=content, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


def test_a_refused_body_does_not_hide_the_refusal(live: Any) -> None:
    """OpenAI's SDK reads the answer only when it has sent everything."""
    server = limited(live, file_bytes=1000)
    server.key()
    big = ("a.jsonl", b"x" * 30_000_000)
    with pytest.raises(openai.AuthenticationError):
        server.openai("sk-wrong").files.create(file=big, purpose="batch")


def test_slow_bodies_are_cut_off(live: Any) -> None:
    server = limited(live, json_s=0.3, progress_s=0.3)
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    for path, kind, first in (
        ("uploads", "application/json", b"{"),
        ("files", "multipart/form-data; boundary=b", part),
    ):
        with connect(server) as connection:
            head = f"POST /v1/{path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer x\r\nContent-Type: {kind}\r\n"
            connection.sendall(f"{head}Content-Length: 5000\r\n\r\n".encode() + first)
            answer = b""
            for _ in range(100):
                try:
                    connection.sendall(b" ")
                    connection.settimeout(0.05)
                    answer += connection.recv(4096)
                    break
                except TimeoutError:
                    continue
            connection.settimeout(10)
            with contextlib.suppress(ConnectionResetError):  # a byte of ours came after its answer, as it closed
                while piece := connection.recv(4096):
                    answer += piece
            assert answer.startswith(b"HTTP/1.1 408"), (path, answer)
            assert b"request_timeout" in answer


def test_slow_heads_and_idle_connections_are_cut_off(live: Any) -> None:
    server = limited(live, header_s=0.3)
    for first in (b"", b"GET /healthz HTTP/1.1\r\nHo"):
        with connect(server) as connection:
            connection.sendall(first)
            assert connection.recv(100) == b""
    with connect(server) as connection:  # the next head on a connection that was used
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        time.sleep(0.5)  # no deadline between requests but the keep-alive's
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: loc")
        rest = b""
        while piece := connection.recv(4096):
            rest += piece
        assert b"HTTP/1.1" not in rest


def test_connections_are_bounded(live: Any) -> None:
    server = limited(live, connections=3)
    held = [connect(server) for _ in range(3)]
    time.sleep(0.2)
    with connect(server) as connection:
        connection.settimeout(5)
        try:
            assert connection.recv(1) == b""
        except ConnectionResetError:
            """As good as closed."""
    for connection in held:
        connection.close()
    time.sleep(0.2)
    assert httpx.get(f"{server.url}/healthz").status_code == 200


def test_requests_at_once_are_bounded(live: Any) -> None:
    server = limited(live, concurrent_requests=1)
    with connect(server) as connection:  # one that waits for its body
        head = "POST /v1/uploads HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer x\r\n"
        connection.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 5\r\n\r\n".encode())
        deadline = time.monotonic() + 10
        while (answer := server.http().get("/v1/files")).status_code == 200 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "server_busy")
        assert answer.headers["retry-after"] == "1"
        assert httpx.get(f"{server.url}/healthz").status_code == 200


# server.yaml


def test_every_option_has_a_default(tmp_path: Path) -> None:
    path = tmp_path / "server.yaml"
    path.write_text("")
    assert load_config(path) == load_config(None) == ServerConfig()


def test_options_are_read(tmp_path: Path) -> None:
    path = tmp_path / "server.yaml"
    path.write_text(
        "aliases: {o4-mini: smollm2-135m-instruct}\n"
        "models: [smollm2-135m-instruct]\n"
        "network:\n  allow: ['10.0.0.0/8']\n"
        "limits: {json_bytes: 5000}\n"
        "hosts: [Box.Internal]\n"
        "origins: ['https://app.example']\n"
        "concurrency: 2\n"
    )
    config = load_config(path)
    assert config.aliases == {"o4-mini": "smollm2-135m-instruct"}
    assert (config.hosts, config.origins, config.concurrency) == (("box.internal",), ("https://app.example",), 2)
    assert config.limits.json_bytes == 5000
    config.policy().check_url("http://10.1.2.3:9000/x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("concurrency: 1\nlimitz: {}\n", "line 2: unknown key `limitz`; expected one of aliases"),
        (
            "limits:\n  json_bytes: 5000\n  josn_s: 1\n",
            "line 3: unknown key `limits.josn_s`; expected one of file_bytes",
        ),
        ("concurrency: many\n", "line 1: `concurrency`"),
        ("limits: {file_bytes: 0}\n", "line 1: `limits.file_bytes`"),
        ("hosts:\n- a\n- 'b:80'\n", "line 3: `hosts.1`: expected a host name"),
        ("origins: ['example.com']\n", "expected an origin"),
        ("concurrency: 1\nconcurrency: 2\n", "line 2: `concurrency` is given twice"),
        ("- 1\n", "expected a mapping"),
        ("a: [\n", "not valid YAML"),
        ("network: {allow: ['nonsense']}\n", "`network.allow` lists 'nonsense'"),
    ],
)
def test_mistakes_are_named_with_their_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "server.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        load_config(path)
    assert message in error.value.message


def test_a_missing_file_is_a_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        load_config(tmp_path / "none.yaml")
