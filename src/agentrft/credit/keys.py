"""State keys: texts that are equal when two episodes of one item stand at the same point."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence

from agentrft.types import Turn

_TIME = re.compile(r"\b\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}([.,]\d+)?)?(Z|[+-]\d{2}:?\d{2})?")
_UUID = re.compile(r"\b[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b")
_BLANK = re.compile(r"\s+")


def state_keys(turns: Sequence[Turn], state_hashes_K: Sequence[str | None] | None = None) -> list[str]:
    """The key of the state before each turn.

    Where the tools tell their state (`state_hash`), that is the key. Else it is the last observation, in canonical
    form, with the multiset of calls so far: episodes that made the same calls in another order and now read the same
    are in one state. The item is not in it: keys are compared within a group only.
    """
    keys: list[str] = []
    seen: list[str] = []
    observed: list[str] = []
    for turn, told in zip(turns, state_hashes_K or [None] * len(turns), strict=True):
        made = ["told", told] if told is not None else ["seen", observed, sorted(seen)]
        keys.append(hashlib.sha256(json.dumps(made).encode()).hexdigest()[:24])
        seen += calls_of(turn)
        observed = [canonical(result.output) for result in turn.results]
    return keys


def calls_of(turn: Turn) -> tuple[str, ...]:
    """The turn's calls as `name {"argument": value}`, arguments in a fixed order; a reply nobody could read is one."""
    if turn.malformed is not None:
        return (f"unreadable {_one_layout(turn.reply.content or '')}",)
    return tuple(f"{call.name} {_one_layout(call.arguments)}" for call in turn.reply.tool_calls)


def canonical(observation: str) -> str:
    """The text without what differs between equal answers: JSON layout, white space, ISO times, UUIDs."""
    return _UUID.sub("<id>", _TIME.sub("<time>", _one_layout(observation)))


def _one_layout(text: str) -> str:
    try:
        return json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))
    except (ValueError, RecursionError):
        return _BLANK.sub(" ", text).strip()
