"""Messages as rows carry them: OpenAI's shape, without keys that say nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agentrft.errors import UserError
from agentrft.types import Message, ToolSpec


def message_object(message: Message) -> dict[str, Any]:
    """One message, as `data.rows` reads it back."""
    made: dict[str, Any] = {"role": message.role}
    if message.content is not None or not message.tool_calls:
        made["content"] = message.content or ""
    if message.tool_calls:
        made["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        made["tool_call_id"] = message.tool_call_id
    return made


def tool_objects(tools: Sequence[ToolSpec]) -> list[dict[str, Any]]:
    """Tools, as `data.rows` reads them back."""
    return [
        {
            "type": "function",
            "function": {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)},
        }
        for tool in tools
    ]


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]], *, param: str) -> None:
    """A JSONL file, whole or not there; raises UserError, naming `param`, where it cannot be written."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        # Half a surrogate pair, which a tool may have said, is in no file that can be read back.
        with draft.open("w", encoding="utf-8", errors="replace") as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        draft.replace(path)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror}; expected a place for a file; next step: make the folder, or give "
            "another path",
            param=param,
            code="file_not_writable",
        ) from None
    finally:
        draft.unlink(missing_ok=True)
