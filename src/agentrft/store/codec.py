"""Episode records as compressed JSON, without loss: floats come back bit for bit, NaN and infinities included.

JSON writes a float with as many digits as give it back exactly. Sequences of tokens come back as lists, everything
that the types call a tuple as tuples. Nothing here reads pickles.
"""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Mapping
from typing import Any

from agentrft.errors import StoreFault
from agentrft.protocols import EpisodeRecord
from agentrft.types import (
    Episode,
    Grade,
    GradeError,
    Intervention,
    Message,
    OutputStep,
    StopReason,
    TokenTrace,
    TokenUsage,
    ToolCall,
    ToolResult,
    Turn,
)

FORMAT = 4
"""Raised when an older reader could misunderstand what is written.

1: grades without error, clipping, tokens. 2: tool results without guardrails and shaping.
3: grades of `multi` graders without those of their parts.
"""


def encode(record: EpisodeRecord) -> bytes:
    """The record as zlib-compressed JSON."""
    return zlib.compress(json.dumps(to_json(record), separators=(",", ":")).encode(), level=6)


def decode(data: bytes) -> EpisodeRecord:
    """What `encode` was given; StoreFault when the bytes are damaged or of a newer format."""
    try:
        document = json.loads(zlib.decompress(data))
    except (zlib.error, ValueError) as error:
        raise StoreFault(f"a stored episode is damaged ({error}); restore the store from a backup") from error
    return from_json(document)


def to_json(record: EpisodeRecord) -> dict[str, Any]:
    """The record as plain JSON data; the journal and the API write the same."""
    return {"format": FORMAT, **dataclasses.asdict(record)}


def from_json(document: Mapping[str, Any]) -> EpisodeRecord:
    """The record of `to_json`'s data; StoreFault when it is of a newer format."""
    if document["format"] > FORMAT:
        raise StoreFault(
            f"a stored episode has format {document['format']}, this agentrft reads up to {FORMAT}; upgrade agentrft"
        )
    fields = {name: value for name, value in document.items() if name != "format"}
    return EpisodeRecord(**{**fields, "episode": _episode(fields["episode"]), "grade": _grade(fields["grade"])})


def _episode(data: Mapping[str, Any]) -> Episode:
    tokens = data["tokens"]
    return Episode(
        **{
            **data,
            "messages": tuple(_message(message) for message in data["messages"]),
            "turns": tuple(_turn(turn) for turn in data["turns"]),
            "stop_reason": StopReason(data["stop_reason"]),
            "tokens": None if tokens is None else TokenTrace(**tokens),
        }
    )


def _grade(data: Mapping[str, Any]) -> Grade:
    error = data.get("error")
    usage = {model: TokenUsage(**tokens) for model, tokens in data.get("token_usage", {}).items()}
    parts = {name: _grade(part) for name, part in data.get("parts", {}).items()}
    kind = None if error is None else GradeError(error)
    return Grade(**{**data, "error": kind, "token_usage": usage, "parts": parts})


def _turn(data: Mapping[str, Any]) -> Turn:
    results = tuple(_result(result) for result in data["results"])
    return Turn(**{**data, "reply": _message(data["reply"]), "results": results})


def _result(data: Mapping[str, Any]) -> ToolResult:
    interventions = tuple(Intervention(**one) for one in data.get("interventions", ()))
    shaping = tuple(OutputStep(**step) for step in data.get("shaping", ()))
    return ToolResult(**{**data, "interventions": interventions, "shaping": shaping})


def _message(data: Mapping[str, Any]) -> Message:
    return Message(**{**data, "tool_calls": tuple(ToolCall(**call) for call in data["tool_calls"])})
