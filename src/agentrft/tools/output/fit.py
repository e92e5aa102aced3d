"""Cutting text to a token limit: which end stays, where the cut falls, and the marker that says what is left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from agentrft.tools.output.spec import Keep

Count = Callable[[str], int]

# No vocabulary's average is near 64 characters a token: a megabyte is not tokenised to learn that it is too long.
_MAX_CHARS_PER_TOKEN = 64
_SAMPLED_CHARS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """Shaped text: a header that every page repeats, then rows or lines, each on a line of its own."""

    text: str
    header_chars: int = 0
    unit: Literal["row", "line"] = "line"
    unseen_chars: int = 0
    """Characters the transport left out, less what stands in `text` for them."""
    is_marked: bool = True
    """Nothing is left out, or the text itself says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The characters of a body that may be shown, and those that are: all between `start` and `end` but a part."""

    start: int
    end: int
    head_end: int
    """What is shown goes from `start` to here …"""
    tail_start: int
    """… and from here to `end`."""

    @property
    def shown_chars(self) -> int:
        return self.head_end - self.start + self.end - self.tail_start


Mark = Callable[[str, Window], str]
"""(the text shown, where it is in the body) → the marker, one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """What fits."""

    text: str
    window: Window


def fits(text: str, limit: int, count: Count) -> bool:
    """Whether the text has at most `limit` tokens; counted only where its length leaves it open."""
    # No tokenizer makes more tokens than there are bytes, so short text (nearly every output) is never counted.
    if len(text) * 4 <= limit or len(text.encode()) <= limit:
        return True
    return len(text) <= limit * _MAX_CHARS_PER_TOKEN and count(text) <= limit


def total_tokens(text: str, limit: int, count: Count) -> str:
    """How many tokens the text has, in words: `about 290,000` where it is too long to be counted."""
    if len(text) <= limit * _MAX_CHARS_PER_TOKEN:
        return f"{count(text):,}"
    sample = text[: max(limit, 1) * _SAMPLED_CHARS_PER_TOKEN]
    return f"about {round(count(sample) * len(text) / len(sample)):,}"


def with_short_header(body: Body, limit: int, count: Count) -> Body:
    """`body`; a header that would take more than half of the limit each time becomes text like the rest."""
    header = body.text[: body.header_chars]
    return body if fits(header, limit // 2, count) else replace(body, header_chars=0, unit="line")


def page_end(body: Body, start: int, rows: int | None) -> int:
    """Where the page that begins at `start` ends: after `rows` rows, or with the text."""
    if rows is None:
        return len(body.text)
    parts = body.text[start:].split("\n", rows)
    # A line break that ends the text opens no further row.
    return len(body.text) - len(parts[rows]) if len(parts) > rows and parts[rows] else len(body.text)


def short_mark(body: Body) -> Mark:
    """`[1234 characters left out]`."""
    total = len(body.text) + body.unseen_chars
    return lambda _shown, window: f"[{total - window.shown_chars - window.start} characters left out]"


def fit(body: Body, window: tuple[int, int], *, limit: int, count: Count, keep: Keep, mark: Mark, snap: bool) -> Fit:
    """As much of `body` between the ends of `window` as fits `limit` tokens together with its marker.

    The header is put in front. `snap` cuts at line ends, except within a line that is too long itself. When not even
    the marker fits, it alone comes back.
    """
    start, end = window
    header = body.text[: body.header_chars]

    def cut_at(length: int) -> Fit:
        where = _window(body.text, start, end, length, keep, snap)
        head, tail = body.text[start : where.head_end], body.text[where.tail_start : end]
        marker = mark(header + head + tail, where)
        text = f"{(header + head).rstrip()}\n{marker}\n{tail}".rstrip("\n") if tail else _above(header + head, marker)
        return Fit(text=text.lstrip("\n"), window=where)

    low, high = 0, min(end - start, max(limit, 1))
    while count(cut_at(high).text) <= limit:
        low = high
        if high == end - start:
            break
        high = min(end - start, high * 2)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(cut_at(middle).text) <= limit else (low, middle)
    found = cut_at(low)
    return found if low or count(found.text) <= limit else replace(found, text=mark("", found.window))


def _above(head: str, marker: str) -> str:
    return f"{head.rstrip()}\n{marker}"


def _window(text: str, start: int, end: int, length: int, keep: Keep, snap: bool) -> Window:
    """`length` characters between `start` and `end`, at the ends that `keep` asks for."""
    tail_chars = {"head": 0, "tail": length, "head+tail": length // 2}[keep]
    head_end, tail_start = start + length - tail_chars, end - tail_chars
    if snap and start < head_end < end:
        line_end = text.rfind("\n", start, head_end)
        head_end = line_end + 1 if line_end >= start else head_end
    if snap and start < tail_start < end:
        line_end = text.find("\n", tail_start - 1, end - 1)
        tail_start = line_end + 1 if line_end >= 0 else tail_start
    return Window(start=start, end=end, head_end=head_end, tail_start=tail_start)
