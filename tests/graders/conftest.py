"""A sample and an item to grade."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentrft.types import Item, Message, Sample, StopReason, ToolCall

sys.path.insert(0, str(Path(__file__).parent))  # for judge_documents.py


@pytest.fixture(scope="session")
def make_item() -> Callable[..., Item]:
    def make(**fields: Any) -> Item:
        return Item(id="row-1", messages=(Message(role="user", content="q"),), fields=fields, line=1)

    return make


@pytest.fixture(scope="session")
def make_sample() -> Callable[..., Sample]:
    def make(text: str = "", **more: Any) -> Sample:
        return Sample(output_text=text, **more)

    return make


@pytest.fixture(scope="session")
def trajectory() -> Sample:
    """Cut after a second call."""
    first = ToolCall(id="call_0_0", name="ls", arguments='{"path": "/"}')
    last = ToolCall(id="call_1_0", name="cat", arguments='{"path": "/a"}')
    return Sample(
        output_text="",
        output_tools=(last,),
        messages=(
            Message(role="user", content="q"),
            Message(role="assistant", tool_calls=(first,)),
            Message(role="tool", content="a b", tool_call_id="call_0_0"),
            Message(role="assistant", tool_calls=(last,)),
        ),
        stop_reason=StopReason.MAX_TURNS,
        n_calls=2,
    )
