"""Makes text from models and tools safe to print: what it says stays, what it could do to a terminal goes.

Covers ANSI/ECMA-48 sequences (colours, cursor moves, titles, hyperlinks, clipboard writes), other control characters
and bidirectional overrides. HTML escaping is not done here: Jinja2 does it for every value in a page.
"""

from __future__ import annotations

import re

_SEQUENCE = re.compile(
    r"(?:\x1b[\]P_^X]|[\x9d\x90\x9f\x9e\x98]).*?(?:\x07|\x1b\\|\x9c|$)"  # OSC, DCS, APC, PM, SOS to their terminator
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"  # CSI
    r"|\x1b[ -/]*[0-~]?",  # two-character escapes
    re.DOTALL,
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")


def printable(text: str) -> str:
    """`text` without escape sequences, control characters (newline and tab stay) and bidirectional overrides."""
    return _CONTROL.sub("", _SEQUENCE.sub("", text.replace("\r\n", "\n")))


def one_line(text: str, width: int = 100) -> str:
    """`text` printable, on one line, cut to `width` characters with an ellipsis."""
    line = " ".join(printable(text).split())
    return line if len(line) <= width else line[: width - 1] + "…"
