"""Which tools may be called at all. Deny wins over everything; a tool that no entry names is rejected."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from agentrft.tools.guardrails.history import Request
from agentrft.tools.guardrails.refusal import Refusal
from agentrft.tools.guardrails.spec import Guardrails, ToolRules


def check_access(request: Request, guardrails: Guardrails, available: Iterable[str]) -> Refusal | None:
    """A refusal for a denied tool, and for one that no entry of `tools` matches."""
    name = request.tool
    rule = next((glob for glob in guardrails.deny if fnmatchcase(name, glob)), None)
    if rule is not None:
        return _not_available(name, "deny", available)
    if is_unmatched(name, guardrails):
        return _not_available(name, "unmatched", available)
    return None


def is_allowed(name: str, guardrails: Guardrails) -> bool:
    """Whether a tool may be called at all."""
    return not any(fnmatchcase(name, glob) for glob in guardrails.deny) and not is_unmatched(name, guardrails)


def is_unmatched(name: str, guardrails: Guardrails) -> bool:
    """Whether there are entries for tools and none is for this one."""
    if guardrails.unmatched == "allow" or not guardrails.tools:
        return False
    return not any(fnmatchcase(name, glob) for glob in guardrails.tools)


def rules_for(name: str, guardrails: Guardrails) -> ToolRules:
    """The entries that match, merged; the later one wins field by field.

    A field counts where it differs from its default, not where it was written: a stored job writes all of them.
    """
    merged, defaults = dict(ToolRules()), dict(ToolRules())
    for glob, rules in guardrails.tools.items():
        if fnmatchcase(name, glob):
            merged |= {field: value for field, value in rules if value != defaults[field]}
    return ToolRules.model_construct(**merged)


def _not_available(name: str, rule: str, available: Iterable[str]) -> Refusal:
    others = ", ".join(available) or "none"
    return Refusal(rule=rule, message=f"{name} is not available; available: {others}")
