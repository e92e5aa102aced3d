"""Calls that go round in circles. Writes by other calls break a circle: what a tool says may have changed.

Thresholds as in OpenHands' stuck detector (4, 3, 3, 6), ours counted so that the refused call is the one after them;
`polling: true` exempts a tool whose answer is expected to change.
"""

from __future__ import annotations

from agentrft.tools.guardrails.history import History, Past, Request
from agentrft.tools.guardrails.refusal import Refusal
from agentrft.tools.guardrails.spec import Loops
from agentrft.tools.steer import ErrorKind

_SHOWN_CHARS = 400


def check_loops(request: Request, history: History, loops: Loops) -> Refusal | None:
    """A refusal with the earlier result for a call that has given it often enough."""
    if request.is_polling:
        return None
    ends = loops.action == "end_episode"
    same = history.since_last_write([past for past in history.same(request) if not _is_own(past)])
    errors = _tail(same, is_error=True)
    if loops.same_call_error is not None and len(errors) >= loops.same_call_error:
        told = _cut(errors[-1].output.removeprefix("error: "))
        message = f"this call has failed {len(errors)} times in the same way: {told}; change it"
        return Refusal(rule="loops.same_call_error", kind=ErrorKind.CONFLICT, message=message, ends_episode=ends)
    results = _tail(same, is_error=False)
    if loops.same_call_same_result is not None and len(results) >= loops.same_call_same_result:
        message = (
            f"identical call; result unchanged since call #{results[0].request.number}: {_cut(results[-1].output)}"
        )
        return Refusal(rule="loops.same_call_same_result", message=message, is_error=False, ends_episode=ends)
    if loops.alternating is not None and _alternates(request, history, loops.alternating):
        message = f"{loops.alternating} calls in turn between the same two, with the same results; do something else"
        return Refusal(rule="loops.alternating", kind=ErrorKind.CONFLICT, message=message, ends_episode=ends)
    return None


def _tail(same: list[Past], *, is_error: bool) -> list[Past]:
    """The latest of them that ended alike."""
    tail: list[Past] = []
    for past in reversed(same):
        if past.is_error != is_error or (tail and past.output != tail[0].output):
            break
        tail.insert(0, past)
    return tail


def _alternates(request: Request, history: History, length: int) -> bool:
    """Whether the last `length` calls were A, B, A, B, … with a result each, and this is the next of them."""
    recent = [past for past in history.past if not _is_own(past)][-length:]
    if len(recent) < length:
        return False
    calls = [(past.request.tool, past.request.canonical, past.output) for past in recent]
    even, odd = set(calls[0::2]), set(calls[1::2])
    if len(even) != 1 or len(odd) != 1 or even == odd:
        return False
    return (request.tool, request.canonical) == calls[0][:2]


def _is_own(past: Past) -> bool:
    """What this guard said before is no new result."""
    return (past.refused_by or "").startswith("loops.")


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"
