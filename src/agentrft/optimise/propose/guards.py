"""Guardrails that tell the agent what it does not notice itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from agentrft.optimise.edit import Edit
from agentrft.optimise.propose.evidence import Evidence
from agentrft.optimise.propose.order import enforced
from agentrft.types import Episode

FEWEST = 3
_SAME = 3


def guards(evidence: Evidence) -> Iterator[Edit]:
    """The loop hint, for a job without guardrails whose agent repeats itself."""
    if evidence.document.get("guardrails"):
        return
    looping = [one.episode for one in evidence.played if not evidence.passed(one) and _loops(one.episode)]
    if len(looping) >= FEWEST:
        yield Edit(
            kind="guards",
            component="guard:loops",
            sets=(*enforced(evidence.document), (("guardrails", "loops", "action"), "hint")),
            why=f"{len(looping)} failed episodes made one call {_SAME} times or more",
            evidence=tuple(episode.id for episode in looping),
        )


def _loops(episode: Episode) -> bool:
    calls = Counter((call.name, call.arguments) for turn in episode.turns for call in turn.reply.tool_calls)
    return max(calls.values(), default=0) >= _SAME
