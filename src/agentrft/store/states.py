"""A job's status, in OpenAI's words, and which may follow which.

validating_files → queued → running → succeeded
                     ↑ ↓      ↓ ↑ (queued again: its process died or it was resumed)
                    paused ←──┘
failed and cancelled can follow everything that is not final.
"""

from __future__ import annotations

from agentrft.errors import UserError

INITIAL = "validating_files"
FINAL = frozenset({"succeeded", "failed", "cancelled"})

FOLLOWS: dict[str, frozenset[str]] = {
    "validating_files": frozenset({"queued", "failed", "cancelled"}),
    "queued": frozenset({"running", "paused", "failed", "cancelled"}),
    "running": frozenset({"queued", "paused", "succeeded", "failed", "cancelled"}),
    "paused": frozenset({"queued", "failed", "cancelled"}),
    "succeeded": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
}
"""Status → what may follow it."""


def check_transition(job_id: str, before: str, after: str) -> None:
    """Raise UserError when `after` may not follow `before`, ValueError when it is no status at all."""
    if after not in FOLLOWS:
        raise ValueError(f"{after!r} is not a job status; expected one of {', '.join(FOLLOWS)}")
    if after in FOLLOWS[before]:
        return
    if before in FINAL:
        raise UserError(
            f"job {job_id} is {before}, which is final, and cannot become {after}; create a new job instead",
            param="status",
            code="illegal_transition",
        )
    allowed = ", ".join(status for status in FOLLOWS if status in FOLLOWS[before])
    raise UserError(
        f"job {job_id} is {before} and cannot become {after}; expected one of {allowed}; bring it there first",
        param="status",
        code="illegal_transition",
    )
