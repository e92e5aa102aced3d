"""How much of a tool's output the model sees: more where the end was missing, less where nobody needed it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from agentrft.optimise.edit import Edit
from agentrft.optimise.propose.evidence import CallSeen, Evidence, episodes_of

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
    limits = evidence.document.get("agent", {}).get("limits") or {}
    for tool in dict.fromkeys(call.tool for call in evidence.calls):
        own = (evidence.document.get("agent", {}).get("outputs") or {}).get(tool) or {}
        limit = own.get("max_tokens") or limits.get("tool_output_tokens") or _DEFAULT_LIMIT
        calls = evidence.calls_of(tool)
        cut = [call for call in calls if call.is_cut and not call.passed]
        if len(cut) >= FEWEST_CUT:
            why = f"{len(cut)} outputs of {tool} in failed episodes were cut at {limit} tokens"
            yield from (_limit(tool, limit * factor, why, episodes_of(cut)) for factor in GROWTH)
        elif not any(call.is_cut for call in calls):
            yield from _less(tool, limit, calls)


def _less(tool: str, limit: int, calls: Sequence[CallSeen]) -> Iterator[Edit]:
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
            yield _limit(tool, smaller, why, episodes_of(long))
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


def _limit(tool: str, tokens: int, why: str, episodes: tuple[str, ...]) -> Edit:
    place = ("agent", "outputs", tool, "max_tokens")
    return Edit(kind="outputs", component=f"output:{tool}", sets=((place, tokens),), why=why, evidence=episodes)
