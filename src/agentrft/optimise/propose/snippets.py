"""Short instructions that have helped other agents, each tried as an addition to the system message."""

from __future__ import annotations

from collections.abc import Iterator

from agentrft.optimise.edit import Edit
from agentrft.optimise.propose.evidence import Evidence

SNIPPETS = {
    "check": "Check the result against the question before you answer.",
    "no_guess": "Never guess names, ids or numbers; look them up with a tool.",
    "errors": "When a tool reports an error, read it and change the call before you try again.",
    "plan": "First decide which tools you need, then call them in that order.",
    "one_call": "Make one call at a time and read its result.",
    "stop": "Stop calling tools as soon as you know the answer.",
    "format": "Answer with the value alone, exactly as the tool shows it.",
    "all_parts": "Make sure that every part of the question is answered.",
}
"""By the name under which reports show them."""


def snippets(evidence: Evidence) -> Iterator[Edit]:
    """One edit a snippet; none where every item brings a system message of its own, which the job's cannot change."""
    system = str(evidence.document.get("agent", {}).get("system") or "")
    shown = [one.episode.messages for one in evidence.played]
    if shown and not system and all(any(message.role == "system" for message in messages) for messages in shown):
        return
    for name, text in SNIPPETS.items():
        if text not in system:
            yield Edit(
                kind="prompt",
                component=f"system:{name}",
                adds=((("agent", "system"), "", text),),
                why=f"the instruction `{name}` of the library",
            )
