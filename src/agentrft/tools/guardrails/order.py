"""Which tools must have come before, and which must not have."""

from __future__ import annotations

from fnmatch import fnmatchcase

from agentrft.tools.guardrails.history import History, Request
from agentrft.tools.guardrails.refusal import Refusal
from agentrft.tools.steer import ErrorKind


def check_order(request: Request, history: History) -> Refusal | None:
    """A refusal that names the missing prerequisite, or what has closed the way."""
    missing = [glob for glob in request.rules.require_before if _first(glob, history) is None]
    if missing:
        needs = ", ".join(missing)
        return Refusal(
            rule=f"tools.{request.tool}.require_before",
            kind=ErrorKind.CONFLICT,
            message=f"call {needs} first: {request.tool} needs it",
        )
    for glob in request.rules.forbid_after:
        earlier = _first(glob, history)
        if earlier is not None:
            return Refusal(
                rule=f"tools.{request.tool}.forbid_after",
                kind=ErrorKind.CONFLICT,
                message=f"{request.tool} may not follow {earlier.tool} (call #{earlier.number})",
            )
    return None


def _first(glob: str, history: History) -> Request | None:
    """The first call of such a tool that was answered."""
    matching = (p.request for p in history.past if p.answered and fnmatchcase(p.request.tool, glob))
    return next(matching, None)
