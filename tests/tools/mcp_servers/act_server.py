"""An MCP server with one tool, which fails as it is told: `act_server.py FOLDER`; `test_fault_table.py` binds it.

`dies_once` dies at the first call with an `n`, and notes that in the folder for its successor.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

TOOL = {
    "name": "act",
    "description": "Do it well, or badly.",
    "inputSchema": {
        "type": "object",
        "properties": {"how": {"type": "string"}, "n": {"type": "integer"}},
        "required": ["how", "n"],
    },
}


def act(how: str, n: int) -> dict[str, Any] | None:
    """The result, or None when there is to be none."""
    mark = Path(sys.argv[1], f"died-{n}")
    if how == "dies" or (how == "dies_once" and not mark.exists()):
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "hangs":
        return None
    text = "not to be had" if how == "refuses" else f"well {n}"
    return {"content": [{"type": "text", "text": text}], "isError": how == "refuses"}


def result_of(method: str, params: dict[str, Any]) -> dict[str, Any] | None:
    if method == "initialize":
        info = {"name": "act", "version": "1"}
        return {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": info}
    if method == "tools/list":
        return {"tools": [TOOL]}
    return act(**params["arguments"]) if method == "tools/call" else None


for line in sys.stdin:
    message = json.loads(line)
    result = result_of(message["method"], message.get("params", {}))
    if result is not None:
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}) + "\n")
        sys.stdout.flush()
