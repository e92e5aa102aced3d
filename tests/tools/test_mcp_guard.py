"""MCP services behind the network policy."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from agentrft.errors import UserError
from agentrft.net.policy import NetworkPolicy
from agentrft.protocols import ToolContext
from agentrft.tools.mcp_binding import McpBinding
from agentrft.tools.mcp_guard import guarded_client
from agentrft.tools.mcp_tool import McpSource
from agentrft.types import Item

ITEM = Item(id="row-1", messages=())


@pytest.fixture
def service(serve: Callable[[Any], Any], answer: Any) -> Any:
    """A server with one tool, which says what it was called with."""

    def reply(asked: Any) -> Any:
        message = asked.json()
        results: dict[str, Any] = {
            "initialize": {
                "protocolVersion": message.get("params", {}).get("protocolVersion"),
                "serverInfo": {"name": "lab", "version": "1"},
                "capabilities": {"tools": {}},
            },
            "tools/list": {"tools": [{"name": "look", "inputSchema": {"type": "object"}}]},
            "tools/call": {"content": [{"type": "text", "text": f"from {asked.headers['host']}"}]},
        }
        if message["method"] not in results:
            return answer(status=202)
        body = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": results[message["method"]]}).encode()
        return answer(body=body, headers={"content-type": "application/json"})

    return serve(reply)


async def to_loopback(host: str, port: int) -> Sequence[str]:
    return ["127.0.0.1"]


async def look(url: str, policy: NetworkPolicy) -> str:
    binding = McpBinding(type="mcp", server_label="lab", server_url=url)
    client = guarded_client(policy, to_loopback)
    source = await McpSource.load(binding, Path.cwd(), param="agent.tools.0", open_http_client=client)
    session = await source.open(ITEM, "trace_a", 30.0)
    context = ToolContext(trace_id="trace_a", call_id="call_1", item=ITEM, deadline_s=30.0)
    text = await session.tools[0].call({}, context)
    await source.close()
    return text


async def test_what_the_policy_allows_is_reached(service: Any) -> None:
    port = service.url.rpartition(":")[2]
    assert await look(f"{service.url}/mcp", NetworkPolicy.local()) == f"from 127.0.0.1:{port}"
    listed = NetworkPolicy.public([f"tools.example:{port}"])
    assert await look(f"http://tools.example:{port}/mcp", listed) == f"from tools.example:{port}"


async def test_what_it_does_not_allow_gets_no_request(service: Any) -> None:
    port = service.url.rpartition(":")[2]
    for url in (f"{service.url}/mcp", f"http://tools.example:{port}/mcp", "https://tools.example/mcp"):
        with pytest.raises(UserError, match=r"gave no session: ConnectError: could not be reached; check `server_url`"):
            await look(url, NetworkPolicy.public())
    with pytest.raises(UserError, match=r"Forbidden: .* is a cloud's metadata service"):
        await look("http://169.254.169.254/mcp", NetworkPolicy.local())
    assert service.asked == []
