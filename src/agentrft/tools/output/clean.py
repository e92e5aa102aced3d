"""Text without what a reader cannot see and a tokenizer should not: escapes, controls, invisibles, template tokens.

This keeps outputs readable and takes away hiding places. It is no defence against instructions in plain words, and role
boundaries do not hang on it: untrusted text is encoded with special tokens off in any case.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from functools import lru_cache


class OutputFlag(StrEnum):
    """What was found in an output; for logs and reports."""

    REPLACED = "replaced"
    """Bytes that are no UTF-8 became U+FFFD, or lone surrogates `?`."""
    ANSI = "ansi"
    """Terminal escapes were taken away."""
    CONTROLS = "controls"
    """Control characters were taken away."""
    INVISIBLE = "invisible"
    """Zero-width, bidi or tag characters were taken away."""
    TEMPLATE_TOKENS = "template_tokens"
    """Template tokens, such as `<|im_start|>`, were taken away."""
    OVER_TRANSPORT = "over_transport"
    """Larger than the transport limit: part of it was never looked at."""
    NOT_JSON = "not_json"
    """Settings ask for JSON (project, table), but this is none that can be written again: left as it is."""
    DUPLICATE_KEYS = "duplicate_keys"
    """A JSON object has a key twice: left as it is, because one of the two would be lost."""
    TOO_DEEP = "too_deep"
    """JSON nested deeper than 64 levels: left as it is."""
    KEPT_NOTHING = "kept_nothing"
    """No `keep` path reaches anything (an error in place of the usual answer, perhaps): nothing was projected."""
    PAGED = "paged"
    TRUNCATED = "truncated"


_ASCII_CONTROLS = bytes(code for code in (*range(32), 127) if code not in (9, 10))
_STRING = "[^\x00-\x1f\x7f-\x9f]*+"
_END = "(?:\x07|\x1b\\\\|\x9c)"
_ANSI = re.compile(
    f"(?:\x1b[PX^_\\]]|[\x90\x98\x9d-\x9f]){_STRING}{_END}"  # a title, a link, a device string, up to its end
    "|(?:\x1b\\[|\x9b)[0-?]*+[ -/]*+[@-~]"  # colours, cursor
    "|\x1b[ -/]*+[0-~]"
)
_LINE_BREAK = re.compile("\r\n?|[\x0b\x0c\x85]")
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f]")

_HIDDEN = (
    "\u00ad\u034f\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U0001d173-\U0001d17a\U000e0000-\U000e007f"
)
_JOINERS = "\u200c\u200d"
_SELECTORS = "\ufe00-\ufe0f\U000e0100-\U000e01ef"
# Persian and Indic spelling and joined emoji need a joiner between two of their characters, and a selector behind one;
# beside ASCII, or in runs, both hide things.
_JOINED = f"[^\x00-\u02ff{_HIDDEN}{_JOINERS}{_SELECTORS}]"
_INVISIBLE = re.compile(
    f"[{_HIDDEN}]"
    f"|(?<!{_JOINED})(?<!{_JOINED}\ufe0f)[{_JOINERS}]"
    f"|[{_JOINERS}](?!{_JOINED})"
    f"|(?<=[{_HIDDEN}{_JOINERS}{_SELECTORS}])[{_SELECTORS}]"
)
_SUSPECT = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f{_HIDDEN}{_JOINERS}{_SELECTORS}]")


def clean(text: str, template_tokens: Sequence[str] = ()) -> tuple[str, tuple[OutputFlag, ...]]:
    """`text` as a reader would see it, and what was found; text without anything of the kind comes back as it is.

    Line breaks of any kind become `\\n`. Lone surrogates are not its business.
    """
    flags: list[OutputFlag] = []
    if _is_suspect(text):
        text = _strip(_ANSI, text, OutputFlag.ANSI, flags)
        text = _LINE_BREAK.sub("\n", text)
        text = _strip(_CONTROL, text, OutputFlag.CONTROLS, flags)
        text = _strip(_INVISIBLE, text, OutputFlag.INVISIBLE, flags)
    if template_tokens:
        pattern = _any_of(tuple(template_tokens))
        text = _strip(pattern, text, OutputFlag.TEMPLATE_TOKENS, flags)
        # What is left can close up into a token again (`<|im_<|im_start|>start|>`); a replacement cannot.
        text = pattern.sub("\ufffd", text)
    return text, tuple(flags)


def _is_suspect(text: str) -> bool:
    if text.isascii():
        data = text.encode()
        return len(data.translate(None, _ASCII_CONTROLS)) < len(data)
    return _SUSPECT.search(text) is not None


def _strip(pattern: re.Pattern[str], text: str, flag: OutputFlag, flags: list[OutputFlag]) -> str:
    text, count = pattern.subn("", text)
    if count:
        flags.append(flag)
    return text


@lru_cache(maxsize=16)
def _any_of(tokens: tuple[str, ...]) -> re.Pattern[str]:
    if not all(tokens):
        raise ValueError(f"template_tokens has an empty text: {tokens!r}")
    return re.compile("|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True)))
