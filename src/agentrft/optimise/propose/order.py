"""Tools that must come before others: read from the calls that failed because nothing had come before them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agentrft.optimise.edit import Edit, Place
from agentrft.optimise.propose.constraints import tool_edit
from agentrft.optimise.propose.evidence import CallSeen, Evidence, episodes_of
from agentrft.tools import Guardrails
from agentrft.tools.guardrails.access import is_allowed, rules_for

FEWEST = 3


def order(evidence: Evidence) -> Iterator[Edit]:
    """For each tool that fails unless another has answered before: say so, and hold the agent to it."""
    names = [spec.name for spec in evidence.tools]
    for tool in names:
        calls = evidence.calls_of(tool)
        for first in names:
            if first == tool or not _needs(calls, first):
                continue
            failed = [call for call in calls if call.is_error and first not in call.earlier]
            why = f"{len(failed)} of {sum(call.is_error for call in calls)} failures of {tool} had no `{first}` before"
            component = f"tool:{tool}:before:{first}"
            yield tool_edit(evidence, component, tool, f"Call `{first}` first.", why, episodes_of(failed))
            yield from _rule(evidence, tool, first, why, episodes_of(failed))


def _needs(calls: Sequence[CallSeen], first: str) -> bool:
    """Failures lack it and successes have it; or, where there is no success, the failures name it."""
    failed, good = ([call for call in calls if call.is_error is is_error] for is_error in (True, False))
    lacking = [call for call in failed if first not in call.earlier]
    if len(lacking) < FEWEST or len(lacking) < 0.8 * len(failed):
        return False
    if len(good) >= FEWEST:
        return sum(first in call.earlier for call in good) >= 0.8 * len(good)
    word = re.compile(rf"(?<!\w){re.escape(first)}(?!\w)")
    return sum(bool(word.search(call.output)) for call in lacking) >= 0.5 * len(lacking)


def _rule(evidence: Evidence, tool: str, first: str, why: str, episodes: tuple[str, ...]) -> Iterator[Edit]:
    """The rule beside those that hold already; none where it would have no effect, or let a rejected tool through."""
    own = evidence.document.get("guardrails")
    guardrails = Guardrails.model_validate(own) if own else None
    if guardrails and (guardrails.mode != "enforce" or not is_allowed(tool, guardrails)):
        return
    before = [*(rules_for(tool, guardrails).require_before if guardrails else ()), first]
    place: Place = ("guardrails", "tools", tool, "require_before")
    sets = (*enforced(evidence.document), (place, before))
    yield Edit(kind="guards", component=f"guard:{tool}:before", sets=sets, why=why, evidence=episodes)


def enforced(document: Mapping[str, Any]) -> tuple[tuple[Place, Any], ...]:
    """What makes a job's first rule hold, and lets every other tool through as before."""
    own = document.get("guardrails") or {}
    if own.get("tools"):
        return ()
    return ((("guardrails", "mode"), "enforce"), (("guardrails", "unmatched"), "allow"))
