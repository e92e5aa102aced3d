"""Output → text → within limits."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from agentrft.tools import OutputSpec, ToolLimits, estimate_tokens, to_text
from agentrft.tools.output import ShapedOutput, shape_output


def shape(raw: str, limits: ToolLimits) -> ShapedOutput:
    return shape_output(raw, OutputSpec(), limits)


def cut(text: str, *, limit: int, count: Callable[[str], int]) -> str:
    return shape(text, ToolLimits(output_tokens=limit, count_tokens=count)).text


def test_strings_stay_and_the_rest_becomes_json() -> None:
    assert to_text("a\nb") == "a\nb"
    assert to_text({"name": "é", "n": [1, None]}) == '{"name": "é", "n": [1, null]}'
    assert to_text(None) == "null"
    with pytest.raises(ValueError, match="Out of range"):
        to_text(float("nan"))
    with pytest.raises(TypeError):
        to_text(object())


def test_short_output_is_not_even_counted() -> None:
    def count(text: str) -> int:
        raise AssertionError("counted")

    assert shape("short", ToolLimits(output_tokens=16, count_tokens=count)).text == "short"


def test_cut_in_characters_says_how_much_is_left_out() -> None:
    # 100 characters, 50 allowed: the marker "\n[NN characters left out]" takes 25, so 25 stay and 75 are left out.
    assert cut("x" * 100, limit=50, count=len) == "x" * 25 + "\n[75 characters left out]"


def test_cut_in_tokens_uses_the_longest_beginning_that_fits() -> None:
    def words(text: str) -> int:
        return len(text.split())

    # The marker is 4 words, so 6 of the 40 words stay; each word is 3 characters and a space: 24 characters with the
    # space behind the sixth, 159 in all.
    text = " ".join(["abc"] * 40)
    assert cut(text, limit=10, count=words) == " ".join(["abc"] * 6) + "\n[135 characters left out]"
    assert cut(text, limit=40, count=words) == text


def test_the_marker_stands_alone_when_nothing_fits() -> None:
    assert cut("x" * 100, limit=3, count=len) == "[100 characters left out]"


def test_cut_finds_the_place_far_beyond_a_token_a_character() -> None:
    # `estimate_tokens` gives a token per 4 characters: 16 tokens are 64 characters, the marker takes 27 of them.
    shown = shape("y" * 5000, ToolLimits(output_tokens=16)).text
    assert shown == "y" * 37 + "\n[4963 characters left out]"
    assert estimate_tokens(shown) == 16
    assert estimate_tokens("") == 0


def test_transport_limit_keeps_the_true_size() -> None:
    limits = ToolLimits(output_tokens=100, transport_bytes=10, count_tokens=len)
    # 8 characters of 2 bytes: 10 bytes carry 5 of them.
    shaped = shape("é" * 8, limits)
    assert shaped.text == "é" * 5 + "\n[3 characters left out]"
    assert shaped.bytes_in == 16


def test_a_character_cut_in_half_by_the_transport_is_dropped() -> None:
    assert shape("aé", ToolLimits(transport_bytes=2, count_tokens=len)).text == "a\n[1 characters left out]"


def test_lone_surrogates_become_question_marks() -> None:
    assert shape("a\ud800b", ToolLimits()).text == "a?b"


def test_a_megabyte_is_cut_quickly() -> None:
    counted: list[int] = []

    def count(text: str) -> int:
        counted.append(len(text))
        return len(text)

    shaped = shape("z" * 3_000_000, ToolLimits(output_tokens=1024, count_tokens=count))
    assert len(shaped.text) == 1024
    assert sum(counted) < 40_000  # characters tokenised, of three million
