"""Errors that steer: what is wrong with a call, in words from which the model can make a better one.

    line         error: user_id "usr_9" does not exist; user_id: expected user_<name>_<4 digits>; try search_users(…)
    structured   error: not_found: user_id "usr_9" does not exist. where: user_id. expected: …. received: …. try: …

Never a traceback: of one inside a message, only what it says at its end stays.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from agentrft.tools.output.clean import clean

MAX_LINE_CHARS = 240
MAX_STRUCTURED_TOKENS = 200
_MAX_FIELD_CHARS = {"what": 240, "where": 80, "expected": 160, "received": 80, "try": 240}
_TRACEBACK = "Traceback (most recent call last)"
_FOREIGN_FRAME = re.compile(r"^[ \t]+at \S.*:\d+\)?[ \t]*$", re.MULTILINE)

ErrorStyle = Literal["line", "structured"]


class ErrorKind(StrEnum):
    """What kind of thing is wrong."""

    SCHEMA = "schema"
    """The arguments do not fit the tool's schema, or are not JSON."""
    NOT_FOUND = "not_found"
    """No such tool, object or output."""
    PERMISSION = "permission"
    """A rule or the tool forbids it."""
    CONFLICT = "conflict"
    """It contradicts what was done or has to be done first."""
    REJECTED = "rejected"
    """The tool itself rejects what it was asked."""
    TIMEOUT = "timeout"
    LIMIT = "limit"
    """A budget is used up, or something is too large."""
    TRANSIENT = "transient"
    """The same call may work later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallError:
    """What is wrong with a call; fields that are empty are not shown."""

    kind: ErrorKind
    what: str
    """For the model, a sentence without its full stop."""
    where: str = ""
    """Path of the argument: `filter.days[2]`."""
    expected: str = ""
    received: str = ""
    try_next: str = ""
    """One call that would work, or one thing to do; shown whole or not at all."""


def steer(
    error: CallError,
    style: ErrorStyle = "line",
    *,
    count_tokens: Callable[[str], int] | None = None,
    template_tokens: Sequence[str] = (),
) -> str:
    """The error for the model, on one line.

    `line` is cut to 240 characters. `structured` clips each part, and has at most 200 tokens by `count_tokens` (a token
    per 4 characters where None is given). The parts may hold a tool's own words: they are cleaned as outputs are.
    """
    parts = {
        "what": _line_of(_without_frames(error.what), template_tokens) or error.kind.value,
        "where": _line_of(error.where, template_tokens),
        "expected": _line_of(error.expected, template_tokens),
        "received": _line_of(error.received, template_tokens),
        "try": _line_of(error.try_next, template_tokens),
    }
    if style == "line":
        return _as_line(parts)
    count = count_tokens or _estimate
    share = 1.0
    while count(text := _as_structured(error.kind, parts, share)) > MAX_STRUCTURED_TOKENS and share > 0.01:
        share /= 2
    return text


def _as_line(parts: dict[str, str]) -> str:
    found = ", ".join(
        part
        for part in (
            f"expected {parts['expected']}" if parts["expected"] else "",
            f"got {parts['received']}" if parts["received"] else "",
        )
        if part
    )
    place = f"{parts['where'] or 'arguments'}: {found}" if found else parts["where"] and f"at {parts['where']}"
    text = "; ".join(part for part in (parts["what"], place, parts["try"] and f"try {parts['try']}") if part)
    return f"error: {_clipped(text, MAX_LINE_CHARS)}"


def _as_structured(kind: ErrorKind, parts: dict[str, str], share: float) -> str:
    """The error with each part clipped to `share` of its room."""
    room = {name: max(int(limit * share), 1) for name, limit in _MAX_FIELD_CHARS.items()}
    shown = [f"{kind.value}: {_clipped(parts['what'], room['what'])}"]
    shown += [
        f"{name}: {_clipped(parts[name], room[name])}" for name in ("where", "expected", "received") if parts[name]
    ]
    # Half a call is no call.
    shown += [f"try: {parts['try']}"] if 0 < len(parts["try"]) <= room["try"] else []
    return f"error: {'. '.join(part.removesuffix('.') for part in shown)}."


def _clipped(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]}…"


def _line_of(text: str, template_tokens: Sequence[str]) -> str:
    text = clean(text.encode(errors="replace").decode(), template_tokens)[0]
    return " ".join(text.split())


def _without_frames(text: str) -> str:
    """What a traceback says at its end, with the words in front of it; other text as it is."""
    if _TRACEBACK in text:
        before, _, rest = text.partition(_TRACEBACK)
        last = rest.rpartition(_TRACEBACK)[2]
        # Frames are indented; what is not, behind the last of them, is the exception and its message.
        said = [line for line in last.splitlines()[1:] if line.strip() and not line[0].isspace()]
        text = "\n".join([before.rstrip(), *said])
    return _FOREIGN_FRAME.sub("", text)


def _estimate(text: str) -> int:
    return -(-len(text) // 4)
