"""Values in texts: when two are the same, whether a text shows one, and which look like an id."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from typing import Any

_MAX_DEPTH = 50
_EDGES = " \t\n\r\"'`*.,;:!?()[]{}<>“”‘’«»。、！？；："
_NUMBER = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?|[+-]?\d+(\.\d+)?")
_DATE = re.compile(
    r"\d{4}[-/.]\d{1,2}([-/.]\d{1,2})?([T ]\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?)?(Z|[+-]\d{2}:?\d{2})?"
    r"|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}|\d{1,2}:\d{2}(:\d{2})?(\s*[ap]m)?",
    re.IGNORECASE,
)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_CODE = re.compile(r"(?=[^\W\d_]*[\W_]*\d|.*\d)(?=.*[^\W\d_])[\w#@.:-]{2,64}")
_MEASURE = re.compile(r"[+-]?\d+([.,]\d+)?\s?[^\W\d_]{1,3}\b|[^\W\d_]{1,3}\s?\d+[.,]\d+", re.UNICODE)
_RUNS = (re.compile(r"\d+"), re.compile(r"[^\W\d_]+"))


def plain(text: str) -> str:
    """The text as it is compared: NFKC, one case, white space collapsed, no punctuation or quotes around it."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).strip(_EDGES)


def is_same_value(one: str, other: str) -> bool:
    """Whether two texts say the same value; `1,200.0` and `1200` do."""
    if plain(one) == plain(other):
        return True
    first, second = _as_number(plain(one)), _as_number(plain(other))
    return first is not None and first == second


def shows(text: str, value: str) -> bool:
    """Whether `value` stands in `text`, not as a part of a longer word or number."""
    text, value = " ".join(unicodedata.normalize("NFKC", text).casefold().split()), plain(value)
    if not value:
        return False
    start = text.find(value)
    while start >= 0:
        end = start + len(value)
        if not _joined(text, start - 1, start, -1) and not _joined(text, end, end - 1, 1):
            return True
        start = text.find(value, start + 1)
    return False


def _joined(text: str, outside: int, inside: int, step: int) -> bool:
    """Whether the character outside the match belongs to the same word or number as the one inside."""
    if not 0 <= outside < len(text):
        return False
    char, edge = text[outside], text[inside]
    if char.isdigit() and edge.isdigit():
        return True
    beyond = outside + step
    if char in ".," and edge.isdigit() and 0 <= beyond < len(text) and text[beyond].isdigit():
        return True  # the 3 of 3.5
    return char.isalnum() and edge.isalnum() and not (_has_no_spaces(char) or _has_no_spaces(edge))


def _has_no_spaces(char: str) -> bool:
    """Of a script that puts no space between words: Thai, Han, kana, Hangul syllables before a particle."""
    return "\u0e00" <= char <= "\u0eff" or "\u2e80" <= char <= "\u9fff" or "\uac00" <= char <= "\ud7ff"


def is_specific(value: str) -> bool:
    """Whether finding the value in a text says something: `7`, `no` and `true` stand everywhere."""
    value = plain(value)
    wide = sum(2 if _has_no_spaces(char) else 1 for char in value)
    return wide >= 3 and value not in {"yes", "true", "false", "none", "null", "not"}


def is_id(value: str) -> bool:
    """Whether the text looks like an identifier: letters with digits, a UUID, a long number; no date, no amount."""
    value = value.strip()
    if _DATE.fullmatch(value) or any(char.isspace() for char in value) or len(value) > 64:
        return False
    if _UUID.fullmatch(value) or re.fullmatch(r"\d{5,}", value):
        return True
    if _MEASURE.fullmatch(value) and not re.fullmatch(r"[^\W\d_]{1,3}\d{2,}", value):
        return False
    digits = sum(char.isdigit() for char in value)
    return digits >= 2 and bool(_CODE.fullmatch(value)) and not re.fullmatch(r"v?\d+(\.\d+)+", value)


def shape(value: str) -> str:
    """The form of a text: runs of digits as `9`, runs of letters as `a`, the rest as it is; `2025-03-14` is `9-9-9`.

    Lengths of digit runs are kept up to 4, so that 3/14/25 and 2025/03/14 differ.
    """
    text = _RUNS[1].sub("a", value.strip())
    return _RUNS[0].sub(lambda run: "9" * min(len(run[0]), 4), text)[:60]


def canonical(arguments: str) -> str:
    """JSON text with sorted keys and one layout; other text with white space collapsed."""
    try:
        return json.dumps(json.loads(arguments), sort_keys=True, ensure_ascii=False)
    except (ValueError, RecursionError):
        return " ".join(arguments.split())


def leaves(arguments: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Every scalar inside JSON data with its dotted path; list positions are left out of paths, and the 50th level."""
    if depth > _MAX_DEPTH:
        return
    if isinstance(arguments, dict):
        for name, value in arguments.items():
            yield from leaves(value, f"{path}.{name}" if path else str(name), depth + 1)
    elif isinstance(arguments, list):
        for value in arguments:
            yield from leaves(value, path, depth + 1)
    else:
        yield path, arguments


def text_of(value: Any) -> str:
    """A scalar as text."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _as_number(text: str) -> float | None:
    return float(text.replace(",", "")) if _NUMBER.fullmatch(text) else None
