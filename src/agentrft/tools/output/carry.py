"""From what a tool handed over to text within the transport limit."""

from __future__ import annotations

import codecs
from dataclasses import dataclass

from agentrft.tools.output.clean import OutputFlag
from agentrft.tools.output.spec import Keep


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """Text within the transport limit."""

    text: str
    bytes_in: int
    """Size of the whole output (UTF-8)."""
    unseen_chars: int = 0
    """Characters beyond the limit; none of them is in `text`."""
    hole: str = ""
    """What stands in `text` for them where both ends were carried."""
    flags: tuple[OutputFlag, ...] = ()


def carry(raw: str | bytes, transport_bytes: int, keep: Keep = "head") -> Carried:
    """The end of `raw` that `keep` asks for, or half of the limit from each. A character cut in half is dropped.

    Bytes that are no UTF-8 become U+FFFD, lone surrogates, which no tokenizer can encode, `?`.
    """
    if isinstance(raw, str) and raw.isascii() and len(raw) <= transport_bytes:
        return Carried(text=raw, bytes_in=len(raw))
    data, whole, flags = _read(raw)
    if len(data) <= transport_bytes:
        return Carried(text=whole, bytes_in=len(data), flags=flags)
    tail_bytes = {"head": 0, "tail": transport_bytes, "head+tail": transport_bytes // 2}[keep]
    head = _head(data, transport_bytes - tail_bytes)
    tail = _tail(data, tail_bytes)
    unseen_chars = max(len(whole) - len(head) - len(tail), 0)
    hole = f"\n[{unseen_chars} characters left out]\n" if keep == "head+tail" else ""
    return Carried(
        text=head + hole + tail,
        bytes_in=len(data),
        unseen_chars=unseen_chars,
        hole=hole,
        flags=(*flags, OutputFlag.OVER_TRANSPORT),
    )


def _read(raw: str | bytes) -> tuple[bytes, str, tuple[OutputFlag, ...]]:
    """`raw` as bytes, as text, and whether anything had to be replaced."""
    try:
        if isinstance(raw, str):
            return raw.encode(), raw, ()
        return raw, raw.decode(), ()
    except UnicodeError:
        if isinstance(raw, bytes):
            return raw, raw.decode(errors="replace"), (OutputFlag.REPLACED,)
        data = raw.encode(errors="replace")
        return data, data.decode(), (OutputFlag.REPLACED,)


def _head(data: bytes, size: int) -> str:
    # Without `final`, the decoder holds back a character that is not complete yet.
    return codecs.getincrementaldecoder("utf-8")("replace").decode(data[:size])


def _tail(data: bytes, size: int) -> str:
    start = len(data) - size
    # At most 3 bytes of a character follow its first one.
    while start < len(data) and data[start] & 0xC0 == 0x80 and start < len(data) - size + 3:
        start += 1
    return data[start:].decode(errors="replace")
