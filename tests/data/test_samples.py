"""Samples to grade: what a row may say, and what is refused with its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agentrft.data.samples import gradable, read_samples
from agentrft.errors import UserError
from agentrft.types import StopReason

PROMPT = {"role": "user", "content": "q"}
CALL = {"id": "c1", "type": "function", "function": {"name": "ls", "arguments": "{}"}}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "a"}


def test_an_answer_alone() -> None:
    row = gradable({"item": {"answer": "42"}, "model_sample": "41"})
    assert (row.item.fields, row.sample.output_text, row.sample.stop_reason) == (
        {"answer": "42"},
        "41",
        StopReason.ANSWERED,
    )


def test_a_conversation_is_read_as_the_episode_it_was() -> None:
    calling = {"role": "assistant", "tool_calls": [CALL]}
    answer = {"role": "assistant", "content": "a"}
    sample = gradable({"sample": {"messages": [PROMPT, calling, RESULT, answer]}}).sample
    assert (sample.output_text, sample.output_tools, sample.n_calls, len(sample.messages)) == ("a", (), 1, 4)
    cut = gradable({"sample": {"messages": [PROMPT, calling]}}).sample
    assert (cut.output_text, [call.name for call in cut.output_tools], cut.stop_reason) == (
        "",
        ["ls"],
        StopReason.MAX_TURNS,
    )


def test_what_is_said_wins() -> None:
    sample = gradable(
        {"sample": {"output_text": "x", "output_tools": [CALL], "stop_reason": "max_reply_tokens"}}
    ).sample
    assert (sample.output_text, sample.n_calls, sample.stop_reason) == ("x", 1, StopReason.MAX_REPLY_TOKENS)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"item": 3, "model_sample": ""}, "`item` is 3, expected an object"),
        ({"item": {}}, "expected either `model_sample` or `sample`"),
        ({"model_sample": "", "sample": {}}, "expected either `model_sample` or `sample`"),
        ({"model_sample": 4}, "`model_sample` is 4, expected text"),
        ({"sample": "x"}, '`sample` is "x", expected an object'),
        ({"sample": {"text": "x"}}, "`sample` has the key 'text', expected messages, output_text"),
        ({"sample": {"messages": []}}, "expected `messages`, a list of messages"),
        ({"sample": {"stop_reason": "fault"}}, "`sample.stop_reason` is 'fault', expected one of answered"),
        ({"samples": {}, "model_sample": ""}, "the row has the key 'samples'"),
    ],
)
def test_a_bad_row_is_refused_with_its_line(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    file = tmp_path / "samples.jsonl"
    file.write_text('{"model_sample": ""}\n' * 16 + json.dumps(row) + "\n")
    with pytest.raises(UserError) as refused:
        list(read_samples(file))
    assert "samples.jsonl, line 17: " in refused.value.message
    assert message in refused.value.message
    assert "next step: " in refused.value.message
