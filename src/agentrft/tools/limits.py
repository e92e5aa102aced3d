"""What one tool call may cost, and how its result becomes text."""

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


def to_text(value: Any) -> str:
    """A string as it is, anything else as compact JSON. Raises TypeError or ValueError for what JSON cannot hold."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, allow_nan=False)
