"""Bytes or text → text within the transport limit."""

from __future__ import annotations

import pytest

from agentrft.tools.output.carry import Carried, carry
from agentrft.tools.output.clean import OutputFlag
from agentrft.tools.output.spec import Keep

OVER, REPLACED = OutputFlag.OVER_TRANSPORT, OutputFlag.REPLACED


def test_text_and_bytes_within_the_limit_stay() -> None:
    assert carry("abc", 3) == Carried(text="abc", bytes_in=3)
    assert carry("é", 2) == Carried(text="é", bytes_in=2)
    assert carry("é".encode(), 2) == Carried(text="é", bytes_in=2)
    assert carry(b"", 0) == Carried(text="", bytes_in=0)


def test_what_is_no_utf8_is_replaced_and_flagged() -> None:
    assert carry(b"a\xffb\xc3", 10) == Carried(text="a\ufffdb\ufffd", bytes_in=4, flags=(REPLACED,))
    assert carry("a\ud800b", 10) == Carried(text="a?b", bytes_in=3, flags=(REPLACED,))


@pytest.mark.parametrize(
    ("keep", "text", "hole"),
    [
        # 8 characters of 2 bytes each, 5 bytes allowed: 2 whole characters, or 1 from each end (3 and 2 bytes).
        ("head", "éè", ""),
        ("tail", "öü", ""),
        ("head+tail", "é\n[6 characters left out]\nü", "\n[6 characters left out]\n"),
    ],
)
@pytest.mark.parametrize("as_bytes", [False, True])
def test_beyond_the_limit_the_asked_end_stays(keep: Keep, text: str, hole: str, as_bytes: bool) -> None:
    whole = "éèàùâêöü"
    carried = carry(whole.encode() if as_bytes else whole, 5, keep)
    assert carried == Carried(text=text, bytes_in=16, unseen_chars=6, hole=hole, flags=(OVER,))


def test_a_tail_of_bytes_that_are_no_utf8_is_read_too() -> None:
    # Continuation bytes without a beginning: 3 at most are taken for the rest of a character.
    carried = carry(b"\x80" * 10, 6, "tail")
    assert carried.text == "\ufffd" * 3
    assert carried.flags == (REPLACED, OVER)
