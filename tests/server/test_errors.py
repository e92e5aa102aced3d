"""Every error has OpenAI's body and a request id, whatever goes wrong; and says nothing that it should not."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest
from fastapi import APIRouter, FastAPI
from fastapi.testclient import TestClient

from agentrft.errors import StoreFault, UserError
from agentrft.server.app import create_app
from agentrft.server.config import ServerConfig
from agentrft.server.errors import ApiError
from agentrft.server.state import open_state

JSON = {"Content-Type": "application/json"}


def check_body(answer: httpx.Response, status: int, code: str | None, param: str | None = None) -> str:
    """The message of an error that is as OpenAI's are."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"].startswith("req_")
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert (body["error"]["code"], body["error"]["param"]) == (code, param)
    assert body["error"]["type"]
    return body["error"]["message"]


def test_the_framework_s_own_errors(shared: Any) -> None:
    client = shared.http()
    check_body(client.get("/v1/nothing"), 404, "unknown_url")
    check_body(client.get("/nothing"), 404, "unknown_url")
    check_body(client.get("/v1/files/"), 404, "unknown_url")
    check_body(client.get("/"), 404, "unknown_url")
    answer = client.put("/v1/files")
    assert "GET, POST" in check_body(answer, 405, "method_not_supported")
    assert answer.headers["allow"] == "GET, POST"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"{", "line 1, column 2"),
        (b'{"a": 1,}', "not JSON"),
        (b'{"a": \xff}', "byte 6 is not UTF-8"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b'{"a": NaN}', "NaN is no JSON number"),
        (b'{"a": -Infinity}', "-Infinity is no JSON number"),
        (b'{"a": 1e999}', "beyond what a float holds"),
        (b'{"bytes": 1, "bytes": 2}', "'bytes' is given twice"),
        (b'{"a": {"b": 1, "b": 2}}', "'b' is given twice"),
        (b'{"a": "\\ud83d"}', "half a surrogate pair"),
        (b"[" * 101 + b"]" * 101, "nested deeper than 100"),
        (b'[[], {"a": ' + b"[" * 99 + b"1" + b"]" * 99 + b"}]", "nested deeper than 100"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested deeper than 100"),
        (b"[" * 1_000_000, "nested deeper than 100"),
        (b'{"a": ' + b"9" * 301 + b"}", "301 digits"),
        (b"nul", "not JSON"),
    ],
)
def test_ambiguous_or_broken_json_is_refused(shared: Any, body: bytes, why: str) -> None:
    answer = shared.http().post("/v1/uploads", content=body, headers=JSON)
    assert why in check_body(answer, 400, "invalid_json")


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"", "missing_required_parameter", "body"),
        (b"[]", "invalid_value", "body"),
        (b"null", "missing_required_parameter", "body"),
        (b'"text"', "invalid_value", "body"),
        (b"{}", "missing_required_parameter", "bytes"),
        (b'{"bytes": "1", "filename": "a", "mime_type": "b", "purpose": "batch"}', "invalid_value", "bytes"),
        (b'{"bytes": true, "filename": "a", "mime_type": "b", "purpose": "batch"}', "invalid_value", "bytes"),
        (b'{"bytes": 1.5, "filename": "a", "mime_type": "b", "purpose": "batch"}', "invalid_value", "bytes"),
        (b'{"bytes": 1, "filename": "a", "mime_type": "b", "purpose": "x"}', "invalid_value", "purpose"),
        (b'{"bytes": 1, "filename": "a", "mime_type": "b", "purpose": "batch", "x": 1}', "unknown_parameter", "x"),
        (
            b'{"bytes": 1, "filename": "a", "mime_type": "b", "purpose": "batch", "expires_after": {"seconds": 3600}}',
            "missing_required_parameter",
            "expires_after.anchor",
        ),
    ],
)
def test_fields_are_named_with_a_dotted_path(shared: Any, body: bytes, code: str, param: str) -> None:
    check_body(shared.http().post("/v1/uploads", content=body, headers=JSON), 400, code, param)


def test_texts_that_were_sent_are_not_shown_unless_they_are_one_of_few_words(shared: Any) -> None:
    body = {"bytes": "sk-secret", "filename": {"a": "sk-secret"}, "mime_type": ["sk-secret"], "purpose": "batch"}
    answer = shared.http().post("/v1/uploads", json=body)
    assert "sk-secret" not in answer.text


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_other_content_types_are_refused(shared: Any, content_type: str) -> None:
    answer = shared.http().post("/v1/uploads", content=b"{}", headers={"Content-Type": content_type})
    assert "application/json" in check_body(answer, 415, "unsupported_media_type")


def test_compressed_bodies_are_refused(shared: Any) -> None:
    answer = shared.http().post("/v1/uploads", content=b"{}", headers={**JSON, "Content-Encoding": "gzip"})
    check_body(answer, 415, "unsupported_media_type")


@pytest.fixture
def failing(home: Any) -> Callable[[Exception], httpx.Client]:
    """failing(error): a client of an application whose `/v1/fails` raises it."""

    def make(error: Exception) -> Any:
        app: FastAPI = create_app(open_state(ServerConfig(concurrency=0)))
        router = APIRouter()

        @router.get("/fails")
        def fails() -> None:
            raise error

        app.include_router(router, prefix="/v1")
        client = TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)
        client.headers["Authorization"] = "Bearer x"
        return client

    return make


def test_a_bug_says_its_id_only_and_is_logged(failing: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "agentrft.server"):
        answer = failing(ZeroDivisionError("in /home/me/secret.py")).get("/v1/fails")
    message = check_body(answer, 500, "server_error")
    assert answer.headers["x-request-id"] in message
    assert "secret" not in answer.text
    logged = next(record for record in caplog.records if record.exc_info)
    assert answer.headers["x-request-id"] in logged.getMessage()


@pytest.mark.parametrize(
    ("error", "status", "code", "param"),
    [
        (UserError("no", param="a.b", code="invalid_row"), 400, "invalid_row", "a.b"),
        (UserError("no", param="job", code="not_found"), 404, "not_found", "job"),
        (UserError("no", param="job", code="job_is_held"), 409, "job_is_held", "job"),
        (StoreFault("/home/me/store.db is full"), 503, "unavailable", None),
        (ApiError(418, "no", param="p", code="c"), 418, "c", "p"),
    ],
)
def test_our_own_errors_have_their_status(
    failing: Any, error: Exception, status: int, code: str, param: str | None
) -> None:
    answer = failing(error).get("/v1/fails")
    check_body(answer, status, code, param)
    assert "/home/me" not in answer.text


def test_messages_cannot_move_a_cursor(failing: Any) -> None:
    answer = failing(UserError("a\x1b[2Jb\x00c\ud83d", param="x\x1b[1m")).get("/v1/fails")
    assert check_body(answer, 400, "invalid_request", "x") == "abc?"


def test_the_sdk_maps_them(shared: Any) -> None:
    client = shared.openai()
    with pytest.raises(openai.NotFoundError) as error:
        client.files.retrieve("file-x")
    assert error.value.request_id
    assert (error.value.code, error.value.type) == ("not_found", "invalid_request_error")


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /v1/files HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil\r\n\r\n",
        b"GET /v1/files HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00garbage",
        b"GET / HTTP/1.1\r\n" + b"X: " + b"a" * 100_000 + b"\r\n\r\n",
        b"POST /v1/files HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_what_is_no_http_ends_the_connection(shared: Any, raw: bytes) -> None:
    with socket.create_connection(("127.0.0.1", int(shared.url.rpartition(":")[2])), timeout=10) as connection:
        connection.sendall(raw)
        head = connection.recv(100)
        assert head.startswith((b"HTTP/1.1 400", b"HTTP/1.1 401", b"HTTP/1.1 403")), head
    assert httpx.get(f"{shared.url}/healthz").status_code == 200
