"""Programs of MCP servers end with whoever started them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

SERVERS = Path(__file__).parent / "mcp_servers"
LEAVE = """
import asyncio
from pathlib import Path
import psutil
from agentrft.tools.mcp_binding import McpBinding
from agentrft.tools.mcp_tool import McpSource
from agentrft.types import Item

async def leave():
    command = ("python", "raw_server.py", "stubborn")
    binding = McpBinding(type="mcp", server_label="lab", command=command, allowed_tools=("echo",))
    source = await McpSource.load(binding, Path.cwd(), param="tools", timeout_s=20)
    session = await source.open(Item(id="a", messages=()), "trace_a", 20)
    print(psutil.Process().children()[0].pid, flush=True)
    return session

"""


@pytest.mark.parametrize(
    "end", ["asyncio.run(leave())", "loop = asyncio.new_event_loop(); kept = loop.run_until_complete(leave())"]
)
def test_a_loop_that_ends_takes_the_servers_along(end: str) -> None:
    done = subprocess.run([sys.executable, "-c", LEAVE + end], cwd=SERVERS, capture_output=True, text=True, timeout=120)
    assert not psutil.pid_exists(int(done.stdout)), done.stderr
