"""Who must agree to a call. Training cannot wait for a person, so whoever is asked is a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from agentrft.tools.guardrails.history import Request
from agentrft.tools.guardrails.refusal import Refusal
from agentrft.tools.guardrails.spec import ApprovalByPlace, ToolRules
from agentrft.types import Item

Place = Literal["sandbox", "production"]
Approver = Callable[[str, Mapping[str, Any], Item], bool]
"""(tool, arguments, item) → whether the call may be made."""


def needed_approval(rules: ToolRules, place: Place) -> Literal["allow", "ask", "deny", "dry_run"]:
    """What the rules say for this place."""
    if isinstance(rules.approval, ApprovalByPlace):
        return getattr(rules.approval, place)
    return rules.approval or "allow"


def check_approval(request: Request, place: Place, approver: Approver | None, item: Item) -> Refusal | None:
    """A refusal for a call that is denied, or that the approver does not agree to."""
    needed = needed_approval(request.rules, place)
    is_refused = needed == "deny" or (
        needed == "ask" and (approver is None or not approver(request.tool, request.arguments, item))
    )
    if not is_refused:
        return None
    return Refusal(rule=f"tools.{request.tool}.approval", message=f"{request.tool} was not approved; do not repeat it")


def arguments_to_send(request: Request, place: Place) -> Mapping[str, Any]:
    """The arguments, turned into a preview where the rules ask for a dry run."""
    if needed_approval(request.rules, place) != "dry_run" or request.rules.dry_run_argument is None:
        return request.arguments
    return {**request.arguments, request.rules.dry_run_argument: True}
