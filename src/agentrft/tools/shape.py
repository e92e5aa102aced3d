"""Tool output on its way to the model: made text, held to the transport limit, cut to a token budget."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


def estimate_tokens(text: str) -> int:
    """About how many tokens the text has: a token per 4 characters, rounded up; for when no tokenizer is at hand."""
    return -(-len(text) // 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolLimits:
    """What one tool call may cost."""

    timeout_s: float = 30.0
    output_tokens: int = 1024
    """Shown to the model; the rest is cut with a marker. Counted by `count_tokens`."""
    transport_bytes: int = 1_000_000
    """Read from the tool at most (UTF-8)."""
    count_tokens: Callable[[str], int] = estimate_tokens
    """Pass the tokenizer's own count where there is one, `len` to count characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shaped:
    """Output as the model will see it."""

    text: str
    bytes_in: int
    """Size of the raw output (UTF-8)."""


def to_text(value: Any) -> str:
    """A string as it is, anything else as compact JSON. Raises TypeError or ValueError for what JSON cannot hold."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, allow_nan=False)


def shape(raw: str, limits: ToolLimits) -> Shaped:
    """Cut `raw` to the limits. Lone surrogates, which no tokenizer can encode, become `?`."""
    data = raw.encode("utf-8", "replace")
    carried = data[: limits.transport_bytes].decode("utf-8", "ignore")
    total = len(carried) if len(data) <= limits.transport_bytes else len(data.decode("utf-8"))
    text = cut(carried, limit=limits.output_tokens, count=limits.count_tokens, total_chars=total)
    return Shaped(text=text, bytes_in=len(data))


def cut(text: str, *, limit: int, count: Callable[[str], int], total_chars: int | None = None) -> str:
    """The longest beginning of `text` that fits `limit` with a marker of how many characters are left out.

    `total_chars` is the length before an earlier cut, when there was one. Text that fits comes back as it is; when not
    even the marker fits, the marker alone comes back.
    """
    total = len(text) if total_chars is None else total_chars
    # No tokenizer makes more tokens than there are bytes, so short text (nearly every output) is never counted.
    if total == len(text) and (len(text.encode()) <= limit or _fits(text, limit, count)):
        return text

    def cut_at(length: int) -> str:
        return f"{text[:length].rstrip()}\n[{total - length} characters left out]".lstrip("\n")

    low, high = 0, min(len(text), max(limit, 1))
    while count(cut_at(high)) <= limit:
        low = high
        if high == len(text):
            break
        high = min(len(text), high * 2)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(cut_at(middle)) <= limit else (low, middle)
    return cut_at(low)


def _fits(text: str, limit: int, count: Callable[[str], int]) -> bool:
    # 64 characters a token is far beyond any vocabulary's average: a megabyte is not tokenised to learn it is too long.
    return len(text) <= limit * 64 and count(text) <= limit
