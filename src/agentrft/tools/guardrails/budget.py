"""How much an episode may call, and what the model is told of it."""

from __future__ import annotations

from collections.abc import Iterator

from agentrft.tools.guardrails.history import History, Request
from agentrft.tools.guardrails.refusal import Refusal
from agentrft.tools.guardrails.spec import Budgets
from agentrft.tools.steer import ErrorKind

_TELL_FROM = 0.8
"""Share of a budget from which on the model is told what is left."""


def check_budgets(request: Request, history: History, budgets: Budgets) -> Refusal | None:
    """A refusal once a budget is used up."""
    most = request.rules.max_calls
    if most is not None and _calls_of(request.tool, history) >= most:
        said = f"may be called {most} times in all, and was" if most else "is switched off"
        return Refusal(
            rule=f"tools.{request.tool}.max_calls",
            kind=ErrorKind.LIMIT,
            message=f"{request.tool} {said}; go on without it",
        )
    for name, used, limit, is_concerned in _state(history, budgets, request.writes):
        if is_concerned and used >= limit:
            words = _WORDS[name].format(limit=limit)
            return Refusal(
                rule=f"budgets.{name}",
                kind=ErrorKind.LIMIT,
                message=f"all {words} are used up; answer with what you have",
            )
    return None


def what_is_left(history: History, budgets: Budgets) -> str:
    """One line about the budgets that are nearly used up; empty when none is, or the model is not to be told."""
    if not budgets.tell_model:
        return ""
    nearly = [
        f"{max(limit - used, 0):.0f} of {_WORDS[name].format(limit=limit)} left"
        for name, used, limit, is_concerned in _state(history, budgets, writes=True)
        if is_concerned and used >= _TELL_FROM * limit
    ]
    return f"[{', '.join(nearly)}]" if nearly else ""


_WORDS = {
    "calls": "{limit} calls",
    "mutating_calls": "{limit} changes",
    "tool_seconds": "{limit:.0f} seconds of tools",
    "result_tokens": "{limit} tokens of tool output",
}


def _state(history: History, budgets: Budgets, writes: bool) -> Iterator[tuple[str, float, float, bool]]:
    """Name, used, limit, and whether a call that writes or not is concerned."""
    if budgets.calls is not None:
        yield "calls", len(history.let_through), budgets.calls, True
    if budgets.mutating_calls is not None:
        yield "mutating_calls", sum(r.writes for r in history.let_through), budgets.mutating_calls, writes
    if budgets.tool_seconds is not None:
        yield "tool_seconds", sum(past.wall_s for past in history.past), budgets.tool_seconds, True
    if budgets.result_tokens is not None:
        yield "result_tokens", sum(past.tokens for past in history.past), budgets.result_tokens, True


def _calls_of(tool: str, history: History) -> int:
    return sum(request.tool == tool for request in history.let_through)
