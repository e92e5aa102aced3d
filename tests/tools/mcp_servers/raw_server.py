"""An MCP server in plain Python that misbehaves as its arguments say; starts in 30 ms.

`raw_server.py MODE…` with the modes: slow (answers after a second), mute (never answers), garbage (prints what is no
message), stubborn (ignores end of input and SIGTERM), dies (ends at once), child (leaves a process behind), many (its
list has two pages), endless (its list does not end), old (`id` comes last in its messages), modern (knows no
handshake), badschema, badname, twice (its list cannot be used).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

modes = sys.argv[1:]
calls = 0
cancelled: list[object] = []
meta: dict[str, Any] = {}
notes: dict[str, list[str]] = {}


def send(message: dict[str, Any]) -> None:
    ordered = {"result": message["result"], "jsonrpc": "2.0", "id": message["id"]} if "old" in modes else message
    sys.stdout.write(json.dumps(ordered) + "\n")
    sys.stdout.flush()


def tool(name: str, **properties: Any) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": properties, "required": list(properties)}
    return {"name": name, "description": f"Do {name}.", "inputSchema": schema}


NAMES = (
    "count",
    "crash",
    "exit",
    "hang",
    "stderr",
    "env",
    "meta",
    "cancelled",
    "changed",
    "invalid",
    "broken",
    "nonsense",
)
MODERN = "2026-07-28"
STRING = {"type": "string"}
TOOLS = [
    tool("echo", text=STRING),
    tool("note", episode=STRING, text=STRING),
    tool("big", size={"type": "integer"}),
    *map(tool, NAMES),
]
REFERRING = {
    "name": "place",
    "inputSchema": {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": {"at": {"$ref": "#/definitions/point"}},
        "required": ["at"],
        "definitions": {"point": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}},
    },
}


def listing(params: dict[str, Any]) -> dict[str, Any]:
    if "badschema" in modes:
        return {"tools": [{"name": "odd", "inputSchema": {"type": "object", "properties": {"a": {"pattern": "("}}}}]}
    if "badname" in modes:
        return {"tools": [tool("read file")]}
    if "twice" in modes:
        return {"tools": [tool("echo"), tool("echo")]}
    if "endless" in modes:
        return {"tools": [], "nextCursor": str(int(params.get("cursor", "0")) + 1)}
    if "many" in modes and "cursor" not in params:
        return {"tools": TOOLS[:1], "nextCursor": "2"}
    return {"tools": TOOLS[1:] if "many" in modes else [*TOOLS, REFERRING]}


def call(request_id: object, name: str, arguments: dict[str, Any]) -> str | None:
    """The answer's text, or None when there is to be none."""
    global calls
    calls += 1
    if name == "crash":
        sys.stderr.write("segfault ahead: token s3cret-t0ken\n")
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "exit":
        sys.exit(3)
    if name == "hang":
        return None
    if name == "stderr":
        for number in range(20_000):
            sys.stderr.write(f"line {number} {'x' * 100}\n")
        sys.stderr.flush()
    if name == "changed":
        send({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
    if name in ("invalid", "broken"):
        error = {"code": -32602 if name == "invalid" else -32603, "message": f"{name} it is"}
        send({"jsonrpc": "2.0", "id": request_id, "error": error})
        return None
    if name == "nonsense":
        send({"jsonrpc": "2.0", "id": request_id, "result": {"content": "no list"}})
        return None
    if name == "big":
        return "é" * arguments["size"]
    if name == "note":
        notes.setdefault(arguments["episode"], []).append(arguments["text"])
        return " ".join(notes[arguments["episode"]])
    known = {"env": dict(os.environ), "meta": meta, "cancelled": cancelled}
    if name in known:
        return json.dumps(known[name])
    return str(calls) if name == "count" else arguments.get("text", "done")


def answer(message: dict[str, Any]) -> None:
    method, params = message.get("method"), message.get("params", {})
    if method == "notifications/cancelled":
        cancelled.append(params["requestId"])
    if "modern" in modes and method == "initialize":
        error = {"code": -32022, "message": "no handshake", "data": {"supported": [MODERN], "requested": "2025-11-25"}}
        return send({"jsonrpc": "2.0", "id": message["id"], "error": error})
    if method == "initialize":
        result: dict[str, Any] = {
            "protocolVersion": params["protocolVersion"],
            "capabilities": {"tools": {"listChanged": True}},
            "serverInfo": {"name": "raw", "version": "1"},
        }
    elif method == "server/discover":
        result = {"supportedVersions": [MODERN], "capabilities": {"tools": {}}, "ttlMs": 0, "cacheScope": "private"}
    elif method == "tools/list":
        result = listing(params)
    elif method == "tools/call":
        meta.update(params.get("_meta", {}))
        text = call(message["id"], params["name"], params.get("arguments", {}))
        if text is None:
            return None
        result = {"content": [{"type": "text", "text": text}]}
    else:
        return None
    if "modern" in modes:
        result["resultType"] = "complete"
        if method == "tools/list":
            result.update(ttlMs=0, cacheScope="private")
    return send({"jsonrpc": "2.0", "id": message["id"], "result": result})


def main() -> None:
    if "dies" in modes:
        sys.exit("no configuration")
    if "child" in modes:
        subprocess.Popen(["sleep", "300"])
    if "stubborn" in modes:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "garbage" in modes:
        sys.stdout.write("Welcome to the server!\n{broken\n")
        sys.stdout.flush()
    if "mute" in modes:
        time.sleep(300)
    if "slow" in modes:
        time.sleep(1)
    for line in sys.stdin:
        answer(json.loads(line))
    if "stubborn" in modes:
        time.sleep(300)


if __name__ == "__main__":
    main()
