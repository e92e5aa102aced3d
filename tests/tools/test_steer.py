"""Errors in words from which the model can make a better call."""

from __future__ import annotations

import traceback

import pytest

from agentrft.tools.steer import CallError, ErrorKind, steer

MISSING = CallError(
    kind=ErrorKind.NOT_FOUND,
    what='user_id "usr_9" does not exist',
    where="user_id",
    expected='an id like "user_<name>_<4 digits>"',
    received='"usr_9"',
    try_next='search_users(name="...")',
)


def plain(what: str) -> CallError:
    return CallError(kind=ErrorKind.SCHEMA, what=what)


def test_a_line_of_words_alone_is_what_it_always_was() -> None:
    assert steer(plain("no file /x")) == "error: no file /x"
    assert steer(plain("a\n  b\tc")) == "error: a b c"
    assert steer(plain("x" * 240)) == "error: " + "x" * 240
    assert steer(plain("x" * 241)) == "error: " + "x" * 240 + "…"
    assert steer(plain("a\ud800b")) == "error: a?b"


def test_a_line_joins_what_there_is() -> None:
    assert steer(MISSING) == (
        'error: user_id "usr_9" does not exist; user_id: expected an id like "user_<name>_<4 digits>", got "usr_9"; '
        'try search_users(name="...")'
    )
    assert steer(CallError(kind=ErrorKind.LIMIT, what="no calls left", where="a.b")) == "error: no calls left; at a.b"
    assert steer(CallError(kind=ErrorKind.SCHEMA, what="bad", received="3")) == "error: bad; arguments: got 3"


def test_the_structured_style_names_every_part() -> None:
    assert steer(MISSING, "structured") == (
        'error: not_found: user_id "usr_9" does not exist. where: user_id. '
        'expected: an id like "user_<name>_<4 digits>". received: "usr_9". try: search_users(name="...").'
    )
    assert steer(plain("no file."), "structured") == "error: schema: no file."
    assert steer(plain(" "), "structured") == "error: schema: schema."


@pytest.mark.parametrize("count", [None, len, lambda text: len(text.encode())])
def test_structured_errors_stay_within_200_tokens(count) -> None:
    long = CallError(
        kind=ErrorKind.CONFLICT, what="日" * 5000, where="w" * 500, expected="e" * 500, received="r" * 500, try_next="t"
    )
    text = steer(long, "structured", count_tokens=count)
    counted = count(text) if count else -(-len(text) // 4)
    assert 40 < counted <= 200
    assert text.startswith("error: conflict: 日")
    assert "try: t." in text


def test_a_call_to_try_is_shown_whole_or_not_at_all() -> None:
    long = CallError(kind=ErrorKind.SCHEMA, what="bad", try_next="f(" + "x" * 300 + ")")
    assert steer(long, "structured") == "error: schema: bad."


def test_no_traceback_gets_through() -> None:
    try:
        try:
            {}["usr_9"]
        except KeyError as error:
            raise ValueError("no such user\nask for another") from error
    except ValueError:
        text = traceback.format_exc()
    assert steer(plain(text)) == "error: ValueError: no such user ask for another"
    assert steer(plain(f"tool failed: {text}"), "structured") == (
        "error: schema: tool failed: ValueError: no such user ask for another."
    )
    # Cut off before its end, there is nothing left to say but the kind.
    assert steer(plain(text[: text.index("KeyError")]), "structured") == "error: schema: schema."
    java = "boom\n\tat com.acme.Tool.run(Tool.java:42)\n    at Object.<anonymous> (/srv/x.js:1:7)\nhelp"
    assert steer(plain(java)) == "error: boom help"


def test_a_tools_words_are_cleaned() -> None:
    error = CallError(kind=ErrorKind.SCHEMA, what="\x1b[31mno\x1b[0m <|im_start|>", received="\u202e3")
    expected = "error: schema: no. received: 3."
    assert steer(error, "structured", template_tokens=("<|im_start|>",)) == expected
