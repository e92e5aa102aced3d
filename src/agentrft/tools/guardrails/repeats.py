"""A write that was done is not done again: the same call gets the first result back, marked."""

from __future__ import annotations

from agentrft.tools.guardrails.history import History, Past, Request, is_same
from agentrft.tools.guardrails.refusal import Refusal


def check_repeat(request: Request, history: History) -> Refusal | None:
    """The earlier result, for a tool with `idempotent: by_args` that was called with the same arguments."""
    if request.rules.idempotent != "by_args":
        return None
    done = next((past for past in history.same(request) if past.answered), None)
    if done is not None:
        return already_done(request, done)
    if any(is_same(other, request) for other in history.let_through):
        # Let through without a result yet: it stands in the same reply.
        message = "the same call stands in this reply already; its result is there"
        return Refusal(rule=f"tools.{request.tool}.idempotent", message=message, is_error=False)
    return None


def already_done(request: Request, done: Past) -> Refusal:
    """The answer to a repeated write."""
    message = f"already done at call #{done.request.number}: {done.output}"
    return Refusal(rule=f"tools.{request.tool}.idempotent", message=message, is_error=False)
