"""What fits a token limit, and the markers."""

from __future__ import annotations

import pytest

from agentrft.tools.output.fit import (
    Body,
    Fit,
    Window,
    fit,
    fits,
    page_end,
    short_mark,
    total_tokens,
    with_short_header,
)
from agentrft.tools.output.marker import full_mark
from agentrft.tools.output.spec import Keep

LINES = "\n".join(f"line {n:02}" for n in range(1, 101))  # 99 lines of 7 characters, one of 8, 99 breaks: 800


def cut(text: str, limit: int, keep: Keep) -> str:
    body = Body(text=text)
    return fit(body, (0, len(text)), limit=limit, count=len, keep=keep, mark=short_mark(body), snap=False).text


def full(body: Body, limit: int, keep: Keep, end: int | None = None) -> Fit:
    window = (body.header_chars, len(body.text) if end is None else end)
    mark = full_mark(body, lambda _: "Narrow the call.", tokens=(len, "many"))
    return fit(body, window, limit=limit, count=len, keep=keep, mark=mark, snap=True)


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        # The marker with its line break takes 25 of 50 characters, with two line breaks 26.
        ("head", "a" * 25 + "\n[75 characters left out]"),
        ("tail", "[75 characters left out]\n" + "b" * 25),
        ("head+tail", "a" * 12 + "\n[76 characters left out]\n" + "b" * 12),
    ],
)
def test_the_asked_end_stays(keep: Keep, expected: str) -> None:
    assert cut("a" * 50 + "b" * 50, 50, keep) == expected


def test_the_marker_stands_alone_when_nothing_fits() -> None:
    assert [cut("x" * 100, 3, keep) for keep in ("head", "tail", "head+tail")] == ["[100 characters left out]"] * 3


def test_the_full_marker_counts_lines_and_cuts_between_them() -> None:
    # 9 lines are 72 characters with their breaks, the last of which stands before the marker's 63: 135. A tenth is too
    # much.
    found = full(Body(text=LINES), 136, "head")
    marker = "[showing 72 of many tokens: lines 1-9 of 100. Narrow the call.]"
    assert found.text == "\n".join(f"line {n:02}" for n in range(1, 10)) + f"\n{marker}"
    assert found.window == Window(start=0, end=800, head_end=72, tail_start=800)


def test_the_full_marker_of_both_ends() -> None:
    # 5 lines are 40 characters, the marker 75 with its break, the last 4 lines 32: 147.
    found = full(Body(text=LINES), 150, "head+tail")
    assert found.text.splitlines() == [
        *(f"line {n:02}" for n in range(1, 6)),
        "[showing 72 of many tokens: lines 1-5 and 97-100 of 100. Narrow the call.]",
        *(f"line {n:02}" for n in range(97, 101)),
    ]
    assert len(found.text) == 147


def test_within_a_line_that_is_too_long_characters_are_counted() -> None:
    found = full(Body(text="x" * 1000), 100, "head")
    # The marker has 71 characters: 28 and a line break are left.
    assert found.text == "x" * 28 + "\n[showing 28 of many tokens: characters 1-28 of 1,000. Narrow the call.]"


def test_the_header_is_repeated_and_not_counted_as_a_row() -> None:
    body = Body(text=f"id,name\n{LINES}", header_chars=8, unit="row")
    found = full(body, 120, "tail")
    assert found.text.startswith("id,name\n[showing")
    # The header has 8 characters, the marker 65 with its line break 66, 5 rows 40: 114 with a break less.
    assert "rows 96-100 of 100" in found.text
    assert found.text.endswith("]\nline 96\nline 97\nline 98\nline 99\nline 100")
    assert len(found.text) <= 120


def test_a_header_of_more_than_half_of_the_limit_is_text_like_the_rest() -> None:
    body = Body(text="header\nrow", header_chars=7, unit="row")
    assert with_short_header(body, 14, len) == body
    assert with_short_header(body, 13, len) == Body(text="header\nrow")


def test_a_page_ends_after_its_rows() -> None:
    body = Body(text="h\na\nb\nc\n", header_chars=2)
    assert [page_end(body, 2, rows) for rows in (1, 2, 3, 4, None)] == [4, 6, 8, 8, 8]
    assert page_end(body, 4, 1) == 6


def test_what_the_transport_left_out_is_said() -> None:
    body = Body(text="abc", unseen_chars=2_000_000, is_marked=False)
    assert full(body, 200, "head").text == (
        "abc\n[showing 3 of many tokens: lines 1-1 of 1; 2,000,000 characters more were not read. Narrow the call.]"
    )


def test_a_megabyte_is_neither_counted_nor_tokenised_to_cut_it() -> None:
    counted: list[int] = []

    def count(text: str) -> int:
        counted.append(len(text))
        return len(text)

    text = "z" * 1_000_000
    assert not fits(text, 1024, count)
    assert total_tokens(text, 1024, count) == "about 1,000,000"
    body = Body(text=text)
    found = fit(body, (0, len(text)), limit=1024, count=count, keep="head", mark=short_mark(body), snap=False)
    assert len(found.text) == 1024
    assert sum(counted) < 40_000


def test_short_text_is_not_even_counted() -> None:
    def count(text: str) -> int:
        raise AssertionError("counted")

    assert fits("short", 20, count)
    assert fits("é" * 10, 20, count)
