"""Samples to grade, one JSON object a line: `{"item": {…}, "model_sample": "text"}` or `{"item": {…}, "sample": {…}}`.

`model_sample` is the final answer alone, as OpenAI's `graders/run` takes it. `sample` may hold `messages` (the whole
conversation, the prompt included), `output_text`, `output_tools` and `stop_reason`; what is absent is read from the
last assistant message: an answer, or calls that were never played (`max_turns`). `item` is any object: what templates
read as `item.<key>`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentrft.data.jsonl import RowFault, read_objects, row_error
from agentrft.data.rows import calls_of, messages_of
from agentrft.errors import UserError
from agentrft.types import Item, Message, Sample, StopReason

_KEYS = frozenset({"item", "model_sample", "sample"})
_SAMPLE_KEYS = frozenset({"messages", "output_text", "output_tools", "stop_reason"})
_REASONS = [str(reason) for reason in StopReason if reason is not StopReason.FAULT]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gradable:
    """One sample with the item it is about."""

    item: Item
    sample: Sample
    line: int = 0
    """Line in the source file, 1-based; 0 when made in memory."""


def read_samples(path: Path, *, param: str = "samples") -> Iterator[Gradable]:
    """Samples of a file, one by one; raises UserError at the first bad row."""
    for line, row in read_objects(path, param):
        try:
            yield _gradable(row, line)
        except RowFault as fault:
            raise row_error(path, line, fault, param) from None


def gradable(row: Mapping[str, Any], *, param: str = "sample") -> Gradable:
    """One row that is already decoded; raises UserError."""
    try:
        return _gradable(row, 0)
    except RowFault as fault:
        raise UserError(f"{fault.what}; next step: {fault.step}", param=param, code="invalid_row") from None


def _gradable(row: Mapping[str, Any], line: int) -> Gradable:
    _known(row, _KEYS, "the row")
    fields = row.get("item", {})
    if not isinstance(fields, dict):
        raise RowFault(f"`item` is {json.dumps(fields)[:60]}, expected an object", 'write "item": {"answer": …}')
    if ("model_sample" in row) == ("sample" in row):
        raise RowFault(
            f"got the keys {', '.join(map(repr, row))}, expected either `model_sample` or `sample`",
            'write "model_sample": "the answer", or "sample": {"messages": […]}',
        )
    if "sample" in row:
        sample = _sample(row["sample"])
    else:
        sample = Sample(output_text=_text(row["model_sample"], "model_sample"))
    prompt = tuple(message for message in sample.messages if message.role in ("system", "user"))
    return Gradable(item=Item(id=f"row-{line}", messages=prompt, fields=fields, line=line), sample=sample, line=line)


def _sample(value: Any) -> Sample:
    if not isinstance(value, dict):
        raise RowFault(
            f"`sample` is {json.dumps(value)[:60]}, expected an object", 'write "sample": {"output_text": "the answer"}'
        )
    _known(value, _SAMPLE_KEYS, "`sample`")
    messages = messages_of(value) if "messages" in value else ()
    last = messages[-1] if messages and messages[-1].role == "assistant" else Message(role="assistant")
    tools = calls_of(value["output_tools"], "sample.output_tools") if "output_tools" in value else last.tool_calls
    text = _text(value["output_text"], "sample.output_text") if "output_text" in value else _answer(last)
    default = StopReason.MAX_TURNS if last.tool_calls else StopReason.ANSWERED
    n_calls = sum(len(message.tool_calls) for message in messages)
    return Sample(
        output_text=text,
        output_tools=tools,
        messages=messages,
        stop_reason=_reason(value.get("stop_reason", default)),
        n_calls=n_calls or len(tools),
    )


def _answer(last: Message) -> str:
    """What an episode that ended with this message answered: with a call outstanding, nothing."""
    return "" if last.tool_calls else last.content or ""


def _known(value: Mapping[str, Any], keys: frozenset[str], what: str) -> None:
    unknown = next((key for key in value if key not in keys), None)
    if unknown is not None:
        raise RowFault(f"{what} has the key {unknown!r}, expected {', '.join(sorted(keys))}", f"remove {unknown!r}")


def _text(value: Any, at: str) -> str:
    if not isinstance(value, str):
        raise RowFault(f"`{at}` is {json.dumps(value)[:60]}, expected text", f"mend `{at}`")
    return value


def _reason(value: Any) -> StopReason:
    if value not in _REASONS:
        raise RowFault(
            f"`sample.stop_reason` is {value!r}, expected one of {', '.join(_REASONS)}", "mend it or leave it out"
        )
    return StopReason(value)
