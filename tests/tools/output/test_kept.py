"""Whole outputs of an episode: what is kept, and reading on in them."""

from __future__ import annotations

import itertools
from contextlib import nullcontext

import pytest

from agentrft.protocols import ToolContext
from agentrft.tools.output import READ_OUTPUT, KeptOutputs, ReadOutput
from agentrft.tools.output.fit import Body
from agentrft.types import Item


class Limits:
    output_tokens = 90
    transport_bytes = 1_000_000
    count_tokens = staticmethod(len)


def known(kept: KeptOutputs) -> str:
    with pytest.raises(ValueError) as raised:
        kept.read("?", 1, limit=100, count=len)
    return str(raised.value)


def test_the_newest_are_kept_within_number_and_memory() -> None:
    kept = KeptOutputs(max_outputs=3, max_bytes=100)
    for number in range(5):
        kept.keep(number, Body(text="é" * 10))
    assert known(kept) == "no output '?' is kept; kept: out_2, out_3, out_4"
    assert kept.bytes_held == 60
    kept.keep(5, Body(text="x" * 70))  # 20 + 20 + 70 is too much
    assert known(kept) == "no output '?' is kept; kept: out_4, out_5"
    kept.keep(6, Body(text="x" * 101))  # too much by itself
    assert known(kept) == "no output '?' is kept; kept: none"


def test_what_is_kept_does_not_depend_on_the_order_in_which_calls_end() -> None:
    sizes = {1: 10, 2: 60, 3: 30, 4: 20}
    found = set()
    for order in itertools.permutations(sizes):
        kept = KeptOutputs(max_bytes=100)
        for number in order:
            kept.keep(number, Body(text="x" * sizes[number]))
        found.add(known(kept))
    # 20 + 30 fit 100, 60 more do not; 1 would fit again, but is older than one that is gone.
    assert found == {"no output '?' is kept; kept: out_3, out_4"}


async def test_the_tool_reads_pages_and_says_where_they_are() -> None:
    kept = KeptOutputs()
    kept.keep(0, Body(text="head\nrow 1\nrow 2\nrow 3", header_chars=5, unit="row"), page_rows=2)
    tool = ReadOutput(kept, Limits())
    assert tool.spec is READ_OUTPUT
    assert isinstance(tool.turn, nullcontext)
    context = ToolContext(trace_id="t", call_id="c", item=Item(id="i", messages=()), deadline_s=1.0)
    first = await tool.call({"id": "out_0", "start": 1}, context)
    assert first == 'head\nrow 1\nrow 2\n[rows 1-2 of 3. For more call read_output with id "out_0" and start 18.]'
    assert await tool.call({"id": "out_0", "start": 18.0}, context) == "head\nrow 3\n[rows 3-3 of 3. The end.]"
    with pytest.raises(ValueError, match="out_0 ends at 22, start 23 is beyond; start 1 is its beginning"):
        await tool.call({"id": "out_0", "start": 23}, context)


def test_one_endless_line_is_read_in_pieces_without_a_gap() -> None:
    text = "".join(chr(0x61 + n % 26) for n in range(1000))
    kept = KeptOutputs()
    kept.keep(3, Body(text=text))
    start, seen = 1, ""
    while start <= len(text):
        page = kept.read("out_3", start, limit=120, count=len)
        assert len(page) <= 120
        seen += page.splitlines()[0]
        start = len(seen) + 1
    assert seen == text


def test_a_limit_too_small_to_read_on_is_said() -> None:
    kept = KeptOutputs()
    kept.keep(0, Body(text="x" * 100))
    with pytest.raises(ValueError, match="20 tokens an output are too few to read on"):
        kept.read("out_0", 1, limit=20, count=len)


def test_what_the_transport_left_out_is_said_at_the_end() -> None:
    kept = KeptOutputs()
    kept.keep(0, Body(text="abc", unseen_chars=7, is_marked=False))
    page = kept.read("out_0", 1, limit=200, count=len)
    assert page == "abc\n[lines 1-1 of 1; 7 characters more were not read. The end.]"
