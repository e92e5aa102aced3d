"""A well-behaved MCP server, made with the official SDK: `sdk_server.py` speaks stdio, `sdk_server.py --http` HTTP.

Over HTTP it prints its port on the first line of stdout.
"""

from __future__ import annotations

import socket
import sys
from typing import Any

import anyio
import uvicorn
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp_types import ImageContent, TextContent, ToolAnnotations

server = MCPServer("sdk", log_level="WARNING")
counts: dict[object, int] = {}


@server.tool(annotations=ToolAnnotations(readOnlyHint=True))
def echo(text: str) -> str:
    """Give the text back."""
    return text


@server.tool(annotations=ToolAnnotations(readOnlyHint=False, destructiveHint=False, idempotentHint=True))
def count(context: Context[Any, Any]) -> str:
    """Count the calls of this session."""
    headers = context.headers or {}
    session = headers.get("mcp-session-id")
    counts[session] = counts.get(session, 0) + 1
    return str(counts[session])


@server.tool()
def add(a: int, b: int) -> int:
    """Add."""
    return a + b


@server.tool()
async def wait(seconds: float, mark: str) -> str:
    """Answer later."""
    await anyio.sleep(seconds)
    return mark


@server.tool()
def fail(reason: str) -> str:
    """Raise."""
    raise ValueError(reason)


@server.tool()
def rows(number: int) -> list[dict[str, int]]:
    """Make rows."""
    return [{"n": n} for n in range(number)]


@server.tool()
def picture() -> list[TextContent | ImageContent]:
    """Text and an image."""
    image = ImageContent(type="image", data="aGVsbG8=", mime_type="image/png")
    return [TextContent(type="text", text="a dot:"), image]


@server.tool()
async def ask(context: Context[Any, Any]) -> str:
    """Ask the client's model."""
    try:
        await context.session.list_roots()  # pyright: ignore[reportDeprecated]
    except Exception as error:
        return f"refused: {error}"
    return "answered"


def main() -> None:
    if sys.argv[1:] != ["--http"]:
        return server.run("stdio")
    listener = socket.create_server(("127.0.0.1", 0))
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    config = uvicorn.Config(server.streamable_http_app(), log_level="error", lifespan="on")
    return uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
