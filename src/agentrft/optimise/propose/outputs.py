"""How much of a tool's output the model sees: more where the end was missing, less where nobody needed it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agentrft.optimise.edit import Edit
from agentrft.optimise.propose.evidence import CallSeen, Evidence, episodes_of
from agentrft.tools import OutputSpec
from agentrft.tools.output import output_spec_for

FEWEST_CUT = 3
GROWTH = (4, 16)
COVERAGE = 0.9
"""Share of outputs of which everything that was used later must lie within a smaller limit."""
_SMALLER = (64, 128, 256, 512)
_CHARACTERS = 4
"""Of a token, roughly; only to compare lengths."""
_DEFAULT_LIMIT = 1024


def outputs(evidence: Evidence) -> Iterator[Edit]:
    """Larger limits for tools whose outputs were cut in failed episodes, smaller ones that would have been enough."""
    agent = evidence.document.get("agent", {})
    limits = agent.get("limits") or {}
    settings = {name: OutputSpec.model_validate(entry) for name, entry in (agent.get("outputs") or {}).items()}
    for tool in dict.fromkeys(call.tool for call in evidence.calls):
        spec = output_spec_for(tool, settings)
        # An entry under the tool's name hides what a glob says of it, so that goes into the entry.
        own = {} if tool in settings else spec.model_dump(mode="json", exclude_unset=True)
        limit = spec.max_tokens or limits.get("tool_output_tokens") or _DEFAULT_LIMIT
        calls = evidence.calls_of(tool)
        cut = [call for call in calls if call.is_cut and not call.passed]
        if len(cut) >= FEWEST_CUT:
            why = f"{len(cut)} outputs of {tool} in failed episodes were cut at {limit} tokens"
            yield from (_limit(tool, own, limit * factor, why, episodes_of(cut)) for factor in GROWTH)
        elif not any(call.is_cut for call in calls):
            yield from _less(tool, own, limit, calls)


def _less(tool: str, own: Mapping[str, Any], limit: int, calls: Sequence[CallSeen]) -> Iterator[Edit]:
    """The smallest limit within which lies what was used of nearly every output, if outputs are longer than that."""
    long = [call for call in calls if not call.is_error and len(call.output) > _SMALLER[0] * _CHARACTERS]
    if len(long) < 10:
        return
    used = [_used(call) for call in long]
    for smaller in _SMALLER:
        covered = sum(end <= smaller * _CHARACTERS for end in used) / len(used)
        saves = sum(len(call.output) > 2 * smaller * _CHARACTERS for call in long) >= 0.5 * len(long)
        if covered >= COVERAGE and saves and smaller < limit:
            why = f"{covered:.0%} of {len(long)} outputs of {tool} were used only within their first {smaller} tokens"
            yield _limit(tool, own, smaller, why, episodes_of(long))
            return


def _used(call: CallSeen) -> int:
    """Where the last piece of the output ends that the model wrote again later; 0 where it wrote none."""
    turns = call.episode.turns
    at = next((n for n, turn in enumerate(turns) if any(r.output == call.output for r in turn.results)), len(turns))
    later = " ".join(
        f"{turn.reply.content or ''} {' '.join(one.arguments for one in turn.reply.tool_calls)}"
        for turn in turns[at + 1 :]
    )
    pieces = {word for word in re.findall(r"[\w.-]+", later) if len(word) >= 4 or word.isdigit()}
    ends = (call.output.find(piece) + len(piece) for piece in pieces if piece in call.output)
    return max(ends, default=0)


def _limit(tool: str, own: Mapping[str, Any], tokens: int, why: str, episodes: tuple[str, ...]) -> Edit:
    """The limit, and the other settings of the tool's new entry."""
    settings = {**own, "max_tokens": tokens}
    sets = tuple((("agent", "outputs", tool, name), value) for name, value in settings.items())
    return Edit(kind="outputs", component=f"output:{tool}", sets=sets, why=why, evidence=episodes)
