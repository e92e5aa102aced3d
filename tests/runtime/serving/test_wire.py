"""Requests and events survive the wire."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agentrft.errors import EngineFault, UserError
from agentrft.jobs.models import Weights
from agentrft.runtime.serving.wire import (
    CallMade,
    ChatRequest,
    DrawnToken,
    Ended,
    LikelyToken,
    Started,
    TextDelta,
    check_bundle,
    error_line,
    event_line,
    read_event,
    read_request,
    request_line,
)
from agentrft.types import TokenUsage

WEIGHTS = Weights(name="n", folder=Path("/a"), trained=Path("/b"), rank=2, alpha=4.0, bundle="a" * 64)


def asked(**fields: Any) -> ChatRequest:
    return ChatRequest(weights=WEIGHTS, messages=[{"role": "user", "content": "Hi\n\ud83d"}], **fields)


def test_requests_survive_the_wire() -> None:
    request = asked(stop=["é\n"], tools=[{"type": "function"}], temperature=0.5, seed=2**63)
    line = request_line(request)
    assert line.count(b"\n") == 1
    assert read_request(line) == request


def test_events_survive_the_wire() -> None:
    likely = LikelyToken(token="é", bytes=(195, 169), log_prob=-0.5)
    drawn = DrawnToken(token="�", bytes=(195,), log_prob=-9999.0, top=(likely,))
    usage = TokenUsage(prompt_tokens=3, completion_tokens=2, cached_tokens=1)
    for event in (
        Started(prompt_tokens=3),
        TextDelta(text='\u2028🙂 "', tokens=(drawn,)),
        CallMade(index=0, id="call_1", name="look", arguments="{}"),
        Ended(finish_reason="stop", usage=usage, policy_version=2, bundle=None, malformed="why"),
    ):
        line = event_line(event)
        assert line.count(b"\n") == 1
        assert json.loads(line)
        assert read_event(line) == event


def test_errors_survive_the_wire() -> None:
    with pytest.raises(UserError, match="bad") as refused:
        read_event(error_line(UserError("bad", param="p", code="c")))
    assert (refused.value.param, refused.value.code) == ("p", "c")
    with pytest.raises(EngineFault, match="gone"):
        read_event(error_line(EngineFault("gone")))
    with pytest.raises(EngineFault, match="KeyError: 'x'"):
        read_event(error_line(KeyError("x")))
    with pytest.raises(EngineFault, match="no event"):
        read_event(b"junk\n")


@pytest.mark.parametrize(
    ("own", "force", "passes"), [("a" * 64, False, True), (None, False, True), ("b", True, True), ("b", False, False)]
)
def test_a_model_is_played_by_the_agent_it_was_trained_as(own: str | None, force: bool, passes: bool) -> None:
    if passes:
        check_bundle(asked(bundle=own, force=force))
        return
    with pytest.raises(UserError) as refused:
        check_bundle(asked(bundle=own, force=force))
    assert refused.value.code == "bundle_changed"
