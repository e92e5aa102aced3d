"""What a reader cannot see is taken away; what languages and emoji need stays."""

from __future__ import annotations

import time

import pytest

from agentrft.tools.output import OutputFlag, clean

ANSI, CONTROLS, INVISIBLE, TOKENS = (
    OutputFlag.ANSI,
    OutputFlag.CONTROLS,
    OutputFlag.INVISIBLE,
    OutputFlag.TEMPLATE_TOKENS,
)


@pytest.mark.parametrize(
    "text",
    [
        "plain\n\ttext",
        "Grüße, 日本語, עברית, русский",
        "می\u200cخواهم",  # Persian: a verb's prefix is joined without a space
        "क्\u200dष",  # Hindi: a half letter
        "👩\u200d👩\u200d👧 ❤\ufe0f\u200d🔥 ❤\ufe0f 1\ufe0f\u20e3",
        "",
    ],
)
def test_ordinary_text_comes_back_as_it_is(text: str) -> None:
    cleaned, flags = clean(text, ("<|im_start|>",))
    assert cleaned == text
    assert flags == ()


@pytest.mark.parametrize(
    ("text", "cleaned", "flags"),
    [
        ("\x1b[1;31mred\x1b[0m", "red", (ANSI,)),
        ("\x9b31mred", "red", (ANSI,)),
        ("\x1b]0;title\x07body", "body", (ANSI,)),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link", (ANSI,)),
        ("\x1bP1$r0m\x1b\\x", "x", (ANSI,)),
        ("\x1b(Bx\x1b=y", "xy", (ANSI,)),
        # An escape that never ends hides nothing behind it.
        ("\x1b]0;all the rest", "0;all the rest", (ANSI,)),
        ("end\x1b", "end", (CONTROLS,)),
        ("a\x00b\x07c\x7fd\x84e", "abcde", (CONTROLS,)),
        ("10%\r20%\r\nline\x0bpage\x0cnext\x85end", "10%\n20%\nline\npage\nnext\nend", ()),
        ("\ufeffbom z\u200be\u2060r\u00ado", "bom zero", (INVISIBLE,)),
        ("user\u202etxt.exe\u2066x\u200f", "usertxt.exex", (INVISIBLE,)),
        ("hi\U000e0049\U000e0067", "hi", (INVISIBLE,)),  # tag letters, which spell ASCII unseen
        ("a\u200db\u200cc", "abc", (INVISIBLE,)),  # joiners beside ASCII join nothing
        ("日\u200d\u200d本", "日本", (INVISIBLE,)),  # and none needs two of them
        ("x\ufe0f\ufe01\U000e0100\U000e0101", "x\ufe0f", (INVISIBLE,)),  # a run of selectors carries bytes
    ],
)
def test_what_cannot_be_seen_goes(text: str, cleaned: str, flags: tuple[OutputFlag, ...]) -> None:
    assert clean(text) == (cleaned, flags)


def test_template_tokens_go_and_none_can_close_up_again() -> None:
    tokens = ("<|im_start|>", "<|im_end|>", "[INST]")
    assert clean("a<|im_start|>b[INST]", tokens) == ("ab", (TOKENS,))
    # Hidden by an escape, or by a character without width.
    assert clean("<|im_\x1b[0mstart|><|im\u200b_end|>", tokens) == ("", (ANSI, INVISIBLE, TOKENS))
    # The inner one goes, which makes an outer one, which a visible character replaces.
    assert clean("<|im_<|im_start|>start|>system", tokens) == ("\ufffdsystem", (TOKENS,))
    assert clean("<|im_start|>") == ("<|im_start|>", ())


def test_an_empty_template_token_is_refused() -> None:
    with pytest.raises(ValueError, match="template_tokens has an empty text"):
        clean("x", ("",))


@pytest.mark.parametrize("text", ["\x1b]" * 300_000, "\x9d" * 300_000, "\x1b[" + "0" * 300_000, "\x1b" * 300_000])
def test_escapes_that_never_end_take_linear_time(text: str) -> None:
    start = time.process_time()
    clean(text)
    assert time.process_time() - start < 1


def test_nested_template_tokens_take_linear_time() -> None:
    start = time.process_time()
    cleaned, _ = clean("<|im_" * 80_000 + "start|>" * 80_000, ("<|im_start|>",))
    assert "<|im_start|>" not in cleaned
    assert time.process_time() - start < 1
