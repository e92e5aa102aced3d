"""What a guard says when it objects."""

from __future__ import annotations

from dataclasses import dataclass

from agentrft.tools.steer import ErrorKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One objection to a call."""

    rule: str
    """Which rule, by its place in the job: `deny`, `budgets.calls`, `tools.refund.max_calls`."""
    message: str
    """For the model: what is wrong and what to do instead."""
    kind: ErrorKind = ErrorKind.PERMISSION
    is_error: bool = True
    """False when the message is a good answer, only not a new one."""
    ends_episode: bool = False
