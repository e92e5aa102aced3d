"""The MCP server behind the tools of staff, over stdin and stdout: `python server.py data/people.json`.

One process serves all episodes of a job, as an SDK server takes half a second and 70 MB to start. Which search `page`
goes on with is kept per episode: the client names the episode in `_meta`, under `episode` (`state_key` in job.yaml). A
client that names none is one reader.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from directory import Directory, Reader
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations

KEPT_READERS = 1000
"""Nobody says when an episode ends, so the longest unused are forgotten; far more than a job plays at a time."""
READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)


class Readers:
    """The readers of the running episodes, the longest unused first."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._readers: dict[str, Reader] = {}

    def of(self, episode: str) -> Reader:
        """The episode's reader, which its first call makes."""
        reader = self._readers.pop(episode, None) or Reader(self._directory)
        self._readers[episode] = reader
        if len(self._readers) > KEPT_READERS:
            del self._readers[next(iter(self._readers))]
        return reader


def make_server(directory: Directory) -> MCPServer:
    """The server over this directory."""
    server: MCPServer = MCPServer("staff", log_level="WARNING")
    readers = Readers(directory)

    # Coroutines stay on the event loop, one after the other; plain functions would run in threads.
    @server.tool(annotations=READS)
    async def search(text: str, context: Context[Any, Any]) -> str:
        """Find people by words, three a page."""
        with _mistakes_told():
            return readers.of(_episode(context)).search(text)

    @server.tool(annotations=READS)
    async def page(number: int, context: Context[Any, Any]) -> str:
        """Show a page of the last search."""
        with _mistakes_told():
            return readers.of(_episode(context)).page(number)

    @server.tool(annotations=READS)
    async def read(id: str, context: Context[Any, Any]) -> str:
        """Show all about a person."""
        with _mistakes_told():
            return readers.of(_episode(context)).read(id)

    return server


def _episode(context: Context[Any, Any]) -> str:
    return str((context.request_context.meta or {}).get("episode", ""))


@contextmanager
def _mistakes_told() -> Iterator[None]:
    """Of any other error than its own the SDK tells the agent nothing but that there was one."""
    try:
        yield
    except ValueError as mistake:
        raise ToolError(str(mistake)) from mistake


def main() -> None:
    people = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    make_server(Directory(people)).run("stdio")


if __name__ == "__main__":
    main()
