"""Recorded episodes, made by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from agentrft.protocols import EpisodeRecord
from agentrft.types import Episode, Grade, Message, StopReason, TokenTrace, ToolCall, ToolResult, Turn

DEFAULTS: dict[str, Any] = {
    "prompt": "Where?",
    "tokens": None,
    "phase": "train",
    "split": None,
    "stop": StopReason.ANSWERED,
    "malformed": None,
    "step": 1,
}


def make_record(
    name: str, item: str, calls: Sequence[str], answer: str | None, reward: float | None, **options: Any
) -> EpisodeRecord:
    """`calls` are values of the argument `at`; each result is what stands there, in capitals. Options: `DEFAULTS`."""
    given = SimpleNamespace(**DEFAULTS | options)
    prompt, tokens, malformed = given.prompt, given.tokens, given.malformed
    messages, turns = [Message(role="user", content=prompt)], []
    for k, at in enumerate(calls):
        call = ToolCall(id=f"call_{k}_0", name="look", arguments=f'{{"at": "{at}"}}')
        reply = Message(role="assistant", tool_calls=(call,))
        result = ToolResult(call_id=call.id, output=at.upper())
        messages += [reply, Message(role="tool", content=at.upper(), tool_call_id=call.id)]
        turns.append(Turn(reply=reply, results=(result,), malformed="unreadable" if malformed == k else None))
    if answer is not None:
        messages.append(Message(role="assistant", content=answer))
        turns.append(Turn(reply=messages[-1]))
    trace = None
    if tokens is not None:
        trace = TokenTrace(
            ids=[1] * tokens, trained=[True] * tokens, log_probs=[-1.0] * tokens, prompt_tokens=0, policy_version=0
        )
    episode = Episode(
        id=f"ep_{name}",
        trace_id=f"trace_{name}",
        item_id=item,
        step=given.step,
        member=0,
        attempt=0,
        messages=tuple(messages),
        turns=tuple(turns),
        stop_reason=given.stop,
        tokens=trace,
    )
    grade = Grade(value=reward) if reward is not None else Grade(value=None, reason="no")
    extra = {} if given.split is None else {"split": given.split}
    return EpisodeRecord(
        job_id="ftjob-t", phase=given.phase, stage="rft", episode=episode, grade=grade, reward=reward, extra=extra
    )


@pytest.fixture
def record() -> Callable[..., EpisodeRecord]:
    """record(name, item, calls, answer, reward, …): test modules cannot import this file."""
    return make_record
