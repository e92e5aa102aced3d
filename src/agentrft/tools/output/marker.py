"""The full marker: what is shown of how much, and how to get the rest."""

from __future__ import annotations

from collections.abc import Callable

from agentrft.tools.output.fit import Body, Count, Mark, Window

NARROW = "Narrow the call."


def full_mark(body: Body, how: Callable[[Window], str], *, tokens: tuple[Count, str] | None = None) -> Mark:
    """`[showing 1,500 of 23,410 tokens: rows 1-40 of 612. Narrow the call.]`.

    `how` says the last sentence. `tokens` is a way to count and the text's total; None leaves tokens out. Where the cut
    falls within a line, characters take the place of rows and lines.
    """
    n_lines = _line_of(body, len(body.text))
    unread = "" if body.is_marked else f"; {body.unseen_chars:,} characters more were not read"

    def mark(shown: str, window: Window) -> str:
        what = f"{_shown(body, window, n_lines)}{unread}. {how(window)}"
        return f"[showing {tokens[0](shown):,} of {tokens[1]} tokens: {what}]" if tokens else f"[{what}]"

    return mark


def call_for_more(output_id: str, position: int) -> str:
    """The sentence that says how to go on; `position` counts characters from 0, the tool's `start` from 1."""
    return f'For more call read_output with id "{output_id}" and start {position + 1}.'


def _shown(body: Body, window: Window, n_lines: int) -> str:
    parts = [(window.start, window.head_end), (window.tail_start, window.end)]
    parts = [(start, end) for start, end in parts if start < end]
    total = n_lines
    unit = body.unit
    if all(_starts_line(body, edge) for part in parts for edge in part):
        ranges = [(_line_of(body, start + 1), _line_of(body, end)) for start, end in parts]
    else:
        unit, total = "character", len(body.text) - body.header_chars
        ranges = [(max(start - body.header_chars, 0) + 1, end - body.header_chars) for start, end in parts]
    words = " and ".join(f"{first:,}-{last:,}" for first, last in ranges) or "none"
    return f"{unit}s {words} of {total:,}"


def _starts_line(body: Body, position: int) -> bool:
    """Whether a line begins at `position`, or the text ends there."""
    return position in (body.header_chars, len(body.text)) or body.text[position - 1 : position] == "\n"


def _line_of(body: Body, end: int) -> int:
    """Which line the character before `end` is in, from 1; 0 before the first."""
    return body.text.count("\n", body.header_chars, end - 1) + 1 if end > body.header_chars else 0
