"""`alpha/tool/run`: one call of an HTTP tool as an episode makes it, under the server's network policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agentrft.server.config import Network, ServerConfig

PATH = "/v1/fine_tuning/alpha/tool/run"
SECRET = "Bearer sk-canary-0123456789"


@pytest.fixture
def near(live: Callable[..., Any]) -> Callable[[str], Any]:
    """near(url): a client of a server whose operator lets tools ask that address."""

    def start(url: str) -> Any:
        config = ServerConfig(concurrency=0, network=Network(allow=(url.removeprefix("http://"),)))
        return live(config).http()

    return start


def body(url: str, **more: Any) -> dict[str, Any]:
    return {
        "type": "function_call",
        "name": "look",
        "server_url": f"{url}/look",
        "headers": {"Authorization": SECRET},
        "arguments": '{"word": "red"}',
        "item": {"messages": [{"role": "user", "content": "?"}], "word": "red"},
        "trace_id": "trace_mine",
        "id": "fc_1",
        "call_id": "call_1",
        **more,
    }


def test_the_tool_gets_what_an_episode_sends(near: Any, serve: Any, answer: Any) -> None:
    tool = serve(lambda asked: answer(body={"output": "blue", "call_id": "call_1", "id": "fc_x"}))
    answered = near(tool.url).post(PATH, json=body(tool.url))
    assert answered.status_code == 200, answered.text
    assert answered.json() == {
        "type": "function_call_output",
        "id": "fc_1",
        "call_id": "call_1",
        "output": "blue",
        "is_error": False,
    }
    (asked,) = tool.asked
    assert (asked.path, asked.headers["authorization"]) == ("/look", SECRET)
    sent = asked.json()
    assert {name: sent[name] for name in ("type", "name", "arguments", "trace_id", "call_id")} == {
        "type": "function_call",
        "name": "look",
        "arguments": '{"word": "red"}',
        "trace_id": "trace_mine",
        "call_id": "call_1",
    }
    assert sent["item"]["word"] == "red"


def test_ids_are_made_where_none_are_given(near: Any, serve: Any, answer: Any) -> None:
    tool = serve(lambda asked: answer(body={"output": {"n": 1}}))
    asked = {"name": "look", "server_url": tool.url, "arguments": {"word": "red"}}
    answered = near(tool.url).post(PATH, json=asked).json()
    assert answered["output"] == '{"n":1}'
    assert answered["call_id"].startswith("call_")
    assert tool.asked[0].json()["trace_id"].startswith("trace_")


def test_a_refusal_is_what_the_model_would_read(near: Any, serve: Any, answer: Any) -> None:
    tool = serve(lambda asked: answer(status=404, body=f"no such word, {SECRET}".encode()))
    answered = near(tool.url).post(PATH, json=body(tool.url)).json()
    assert (answered["is_error"], answered["output"]) == (True, "404: no such word, **********")


@pytest.mark.parametrize(
    ("status", "content"), [(500, b"broken"), (503, b""), (200, b"<html>"), (200, b'{"result": 1}'), (302, b"")]
)
def test_a_tool_that_is_no_use_is_a_400_with_its_reason(
    near: Any, serve: Any, answer: Any, status: int, content: bytes
) -> None:
    tool = serve(lambda asked: answer(status=status, body=content))
    answered = near(tool.url).post(PATH, json=body(tool.url))
    error = answered.json()["error"]
    assert (answered.status_code, error["param"], error["code"]) == (400, "server_url", "tool_unreachable")
    assert str(status) in error["message"]
    assert len(tool.asked) == 1


def test_a_tool_that_hangs_up_is_a_400(near: Any, serve: Any, answer: Any) -> None:
    tool = serve(lambda asked: answer(drops=True))
    assert near(tool.url).post(PATH, json=body(tool.url)).json()["error"]["code"] == "tool_unreachable"


def test_inner_addresses_are_refused_unless_the_operator_lists_them(server: Any, serve: Any, answer: Any) -> None:
    tool = serve(lambda asked: answer(body={"output": "blue"}))
    http = server.http()
    for url in (tool.url, "http://169.254.169.254", "https://[::1]:443", "http://example.com"):
        answered = http.post(PATH, json=body(url))
        assert (answered.status_code, answered.json()["error"]["param"]) == (400, "server_url"), url
        assert SECRET not in answered.text
    assert tool.asked == []


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"arguments": "{"}, "arguments"),
        ({"arguments": "[1]"}, "arguments"),
        ({"name": "no spaces"}, "name"),
        ({"server_url": "ftp://x"}, "server_url"),
        ({"headers": {"Host": "x"}}, "headers"),
        ({"headers": {"Authorization": f"{SECRET}\r\nX: y"}}, "headers"),
        ({"item": {"tools": 3}}, "item"),
        ({"type": "other"}, "type"),
    ],
)
def test_bad_requests_name_the_field_and_no_secret(server: Any, more: Any, param: str) -> None:
    answered = server.http().post(PATH, json=body("https://example.com", **more))
    assert (answered.status_code, answered.json()["error"]["param"]) == (400, param)
    assert "canary" not in answered.text
