"""MCP servers over streamable HTTP, well-behaved and not."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from agentrft.errors import ToolFault, ToolOutage, UserError
from agentrft.protocols import ToolContext
from agentrft.tools.mcp_binding import McpBinding
from agentrft.tools.mcp_http import plain_client
from agentrft.tools.mcp_tool import McpSession, McpSource
from agentrft.types import Item

SERVERS = Path(__file__).parent / "mcp_servers"
ITEM = Item(id="row-1", messages=())


async def load(url: str, *, timeout_s: float = 60.0, open_http_client: Any = None, **binding: Any) -> McpSource:
    bound = McpBinding(type="mcp", server_label="lab", server_url=url, **binding)
    return await McpSource.load(
        bound, SERVERS, param="agent.tools.0", timeout_s=timeout_s, open_http_client=open_http_client
    )


async def call(session: McpSession, name: str, **arguments: Any) -> str:
    tool = next(tool for tool in session.tools if tool.spec.name == name)
    context = ToolContext(trace_id="trace_a", call_id="call_1", item=ITEM, deadline_s=30.0)
    return await tool.call(arguments, context)


async def opened(source: McpSource) -> McpSession:
    return await source.open(ITEM, "trace_a", 60.0)


@pytest.fixture(scope="module")
def sdk_url() -> Iterator[str]:
    """A server made with the SDK, in a process of its own."""
    command = [sys.executable, "sdk_server.py", "--http"]
    with subprocess.Popen(command, cwd=SERVERS, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/mcp"
        process.terminate()


@pytest.fixture(autouse=True)
async def nothing_stays() -> AsyncIterator[None]:
    gc.collect()
    before = len(asyncio.all_tasks())
    yield
    assert len(asyncio.all_tasks()) == before


async def test_sessions_over_http_keep_their_own_state(sdk_url: str) -> None:
    source = await load(sdk_url)
    connections = len(psutil.Process().net_connections())
    one, two = await opened(source), await opened(source)
    assert [await call(session, "count") for session in (one, one, two)] == ["1", "2", "1"]
    assert await call(one, "echo", text="<|im_end|> é 𝄞") == "<|im_end|> é 𝄞"
    assert "left out: image/png" in await call(one, "picture")
    with pytest.raises(ValueError, match="Error executing tool fail"):
        await call(one, "fail", reason="no")
    await one.close()
    assert await call(two, "count") == "2"
    await source.close()
    assert len(psutil.Process().net_connections()) == connections


async def test_calls_over_http_run_side_by_side_and_one_is_given_up(sdk_url: str) -> None:
    source = await load(sdk_url)
    session = await opened(source)
    async with asyncio.TaskGroup() as tasks:
        late = tasks.create_task(call(session, "wait", seconds=60, mark="late"))
        made = [tasks.create_task(call(session, "wait", seconds=0.3, mark=str(n))) for n in range(20)]
        await asyncio.sleep(0.1)
        late.cancel()
    assert [task.result() for task in made] == [str(n) for n in range(20)]
    assert await call(session, "echo", text="still there") == "still there"
    await source.close()


async def test_a_long_answer_as_an_event_is_survived(sdk_url: str) -> None:
    source = await load(sdk_url)
    session = await opened(source)
    with pytest.raises(ValueError, match="the output has more than 4 MB"):
        await call(session, "echo", text="x" * 2_000_001)  # the SDK writes text twice, once as structured content
    assert len(await call(session, "echo", text="x" * 1_000_000)) == 1_000_000
    await source.close()


class Lab:
    """A server over HTTP whose next answer to a call can be anything."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer
        self.next: Any = None
        self.sessions = 0

    def __call__(self, asked: Any) -> Any:
        message = asked.json()
        method = message.get("method", "")
        if "id" not in message:
            return self._answer(status=202)
        headers = {}
        if method == "initialize":
            self.sessions += 1
            headers = {"mcp-session-id": f"session-{self.sessions}"}
            info = {"serverInfo": {"name": "lab", "version": "1"}, "capabilities": {"tools": {}}}
            result: Any = {"protocolVersion": message["params"]["protocolVersion"], **info}
        elif method == "tools/list":
            result = {"tools": [{"name": "look", "inputSchema": {"type": "object"}}]}
        elif self.next is not None:
            made, self.next = self.next, None
            return made
        else:
            result = {"content": [{"type": "text", "text": asked.headers["mcp-session-id"]}]}
        body = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode()
        return self._answer(body=body, headers={"content-type": "application/json", **headers})


@pytest.fixture
def lab(serve: Callable[[Any], Any], answer: Any) -> tuple[Lab, Any]:
    made = Lab(answer)
    return made, serve(made)


JSON = {"content-type": "application/json"}
FAILURES: dict[str, tuple[Mapping[str, Any], type[Exception], str]] = {
    "busy": ({"status": 503, "headers": {"Retry-After": "7"}}, ToolOutage, "look of MCP server lab: HTTP 503"),
    "asked to wait": ({"status": 429}, ToolOutage, "HTTP 429"),
    "no entry": ({"status": 401}, ToolFault, r"HTTP 401 .*JSON-RPC error"),
    "elsewhere": ({"status": 307, "headers": {"Location": "http://127.0.0.2:9/mcp"}}, ToolFault, "not followed"),
    "dropped": ({"drops": True}, ToolOutage, "RemoteProtocolError|ReadError"),
    "no JSON": ({"body": b"{oops", "headers": JSON}, ToolFault, "Failed to parse JSON response"),
    "a page": ({"body": b"<html>", "headers": {"content-type": "text/html"}}, ToolFault, "content type: text/html"),
    "50 MB": ({"body": b" " * 50_000_000, "headers": JSON}, ValueError, "has more than 4 MB"),
    "a bomb": (
        {"body": gzip.compress(b" " * 10_000_000), "headers": {**JSON, "content-encoding": "gzip"}},
        ToolFault,
        "compresses its answers, although it was asked not to",
    ),
    "its own error": (
        {"status": 400, "body": {"jsonrpc": "2.0", "id": None, "error": {"code": -32602, "message": "bad x"}}}
        | {"headers": JSON},
        ValueError,
        "^bad x$",
    ),
}


@pytest.mark.parametrize("kind", FAILURES)
async def test_a_failed_call_leaves_the_session_usable(kind: str, lab: tuple[Lab, Any], answer: Any) -> None:
    made, expected, message = FAILURES[kind]
    server, http = lab
    source = await load(f"{http.url}/mcp")
    session = await opened(source)
    server.next = answer(**made)
    with pytest.raises(expected, match=message) as caught:
        await call(session, "look")
    assert isinstance(caught.value, ToolOutage) == (expected is ToolOutage)
    if kind == "busy":
        assert isinstance(caught.value, ToolOutage)
        assert caught.value.wait_s == 7.0
    assert await call(session, "look") == "session-2"
    await source.close()


@pytest.mark.parametrize("sessions", ["episode", "job"])
async def test_a_session_the_server_forgot(sessions: str, lab: tuple[Lab, Any], answer: Any) -> None:
    server, http = lab
    source = await load(f"{http.url}/mcp", sessions=sessions)
    session = await opened(source)
    server.next = answer(status=404)
    with pytest.raises(ToolFault, match="does not know the session any more") as caught:
        await call(session, "look")
    assert isinstance(caught.value, ToolOutage) == (sessions == "job")
    if sessions == "job":
        assert await call(session, "look") == "session-3"
    else:
        with pytest.raises(ToolFault, match="is lost"):
            await call(session, "look")
    await source.close()


async def test_a_hanging_call_is_given_up_and_the_session_closes(lab: tuple[Lab, Any], answer: Any) -> None:
    server, http = lab
    source = await load(f"{http.url}/mcp")
    session = await opened(source)
    server.next = answer(delay_s=60.0)
    hanging = asyncio.create_task(call(session, "look"))
    for _ in range(3000):
        await asyncio.sleep(0.01)
        if server.next is None:  # the server has it
            break
    hanging.cancel()
    await asyncio.wait({hanging})
    assert hanging.cancelled()
    assert await call(session, "look") == "session-2"
    await source.close()


async def test_headers_are_sent_and_never_shown(lab: tuple[Lab, Any], answer: Any) -> None:
    server, http = lab
    source = await load(f"{http.url}/mcp", headers={"Authorization": "Bearer s3cret-t0ken"})
    session = await opened(source)
    assert {asked.headers["authorization"] for asked in http.asked} == {"Bearer s3cret-t0ken"}
    assert {asked.headers["accept-encoding"] for asked in http.asked} == {"identity"}
    body = {"jsonrpc": "2.0", "id": None, "error": {"code": -32603, "message": "no entry for s3cret-t0ken"}}
    server.next = answer(status=400, body=body, headers=JSON)
    with pytest.raises(ToolFault, match=r"no entry for \*{10}"):
        await call(session, "look")
    await source.close()


async def test_a_server_that_says_nothing_is_given_up(lab: tuple[Lab, Any], answer: Any) -> None:
    http = lab[1]
    http.answer = lambda asked: answer(delay_s=60.0)
    with pytest.raises(UserError, match=r"did not start within 0\.2 s"):
        await load(f"{http.url}/mcp", start_timeout_s=0.2)


async def test_a_farewell_that_is_not_heard_is_cut_short(lab: tuple[Lab, Any]) -> None:
    async def slow(request: httpx2.Request) -> None:
        if request.method == "DELETE" and request.headers["mcp-session-id"] == "session-2":
            await asyncio.sleep(60)

    def open_client(headers: Mapping[str, str]) -> httpx2.AsyncClient:
        client = plain_client(headers)
        client.event_hooks = {"request": [slow], "response": []}
        return client

    source = await load(f"{lab[1].url}/mcp", open_http_client=open_client)
    await opened(source)
    start = time.monotonic()
    await source.close()
    assert 1.5 < time.monotonic() - start < 20


async def test_the_client_may_come_from_outside(lab: tuple[Lab, Any]) -> None:
    asked: list[str] = []

    def open_client(headers: Mapping[str, str]) -> httpx2.AsyncClient:
        async def refuse(request: httpx2.Request) -> None:
            asked.append(request.method)
            if len(asked) > 3:
                raise PermissionError("not on the list")

        client = plain_client(headers)
        client.event_hooks = {"request": [refuse], "response": []}
        return client

    with pytest.raises(UserError, match="PermissionError: not on the list; check `server_url`"):
        await load(f"{lab[1].url}/mcp", open_http_client=open_client)
    assert "POST" in asked


async def test_a_server_that_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match=r"lab gave no session: ConnectError: .*; check `server_url`") as caught:
        await load("http://127.0.0.1:9/mcp")
    assert (caught.value.code, caught.value.param) == ("tool_unreachable", "agent.tools.0")
