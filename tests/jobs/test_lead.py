"""What a job puts in front of every task: system message, worked examples, its words for tools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agentrft.errors import UserError
from agentrft.jobs.load import parse_job
from agentrft.jobs.rows import demonstrations_of, items_of

CALL = {"id": "c", "type": "function", "function": {"name": "find", "arguments": '{"day": "x"}'}}
TOOL = {"type": "function", "function": {"name": "find", "parameters": {"properties": {"day": {}}}}}
EXAMPLE: list[dict[str, Any]] = [
    {"role": "system", "content": "of the example"},
    {"role": "user", "content": "1?"},
    {"role": "assistant", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c", "content": "one"},
    {"role": "assistant", "content": "1!"},
]


def write(path: Path, *rows: dict[str, Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def spec_of(folder: Path, **agent: Any) -> Any:
    write(folder / "demos.jsonl", {"messages": EXAMPLE})
    write(
        folder / "train.jsonl",
        {"messages": [{"role": "user", "content": "2?"}], "tools": [TOOL]},
        {"messages": [{"role": "system", "content": "own"}, {"role": "user", "content": "3?"}]},
    )
    write(folder / "shown.jsonl", {"messages": EXAMPLE, "tools": [TOOL]})
    data = {"train": "train.jsonl", "demonstrations": "shown.jsonl"}
    return parse_job({"model": "m", "data": data, "agent": {"system": "job's", "demos": "demos.jsonl", **agent}})


def test_examples_stand_between_system_message_and_task(tmp_path: Path) -> None:
    first, second = items_of(spec_of(tmp_path), tmp_path, "train")
    told = [(message.role, message.content) for message in first.messages]
    shown = [("user", "1?"), ("assistant", None), ("tool", "one"), ("assistant", "1!")]
    assert told == [("system", "job's"), *shown, ("user", "2?")]
    assert [(one.role, one.content) for one in second.messages] == [("system", "own"), *shown, ("user", "3?")]


def test_nothing_is_learnt_from_examples(tmp_path: Path) -> None:
    (demonstration,) = demonstrations_of(spec_of(tmp_path), tmp_path)
    assert [message.role for message in demonstration.messages].count("assistant") == 4
    assert demonstration.learnt == (False, False, True, True)
    (plain,) = demonstrations_of(spec_of(tmp_path, demos=None), tmp_path)
    assert plain.learnt == ()


def test_tools_of_rows_get_the_jobs_words(tmp_path: Path) -> None:
    docs = {"find": {"parameters": {"day": "ISO date"}}}
    item = items_of(spec_of(tmp_path, tool_docs=docs), tmp_path, "train")[0]
    assert item.tools[0].parameters["properties"] == {"day": {"description": "ISO date"}}
    (demonstration,) = demonstrations_of(spec_of(tmp_path, tool_docs=docs), tmp_path)
    assert demonstration.tools == item.tools
    hidden = spec_of(tmp_path, tool_docs={"find": {"hidden": True}})
    assert items_of(hidden, tmp_path, "train")[0].tools == ()


def test_examples_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    write(tmp_path / "demos.jsonl", {"messages": EXAMPLE[:2]})
    with pytest.raises(UserError, match=r"demos\.jsonl, line 1") as caught:
        items_of(spec, tmp_path, "train")
    assert caught.value.param == "agent.demos"
