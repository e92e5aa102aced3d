"""What is shown of a reply while it comes is, all together, what the format says of the whole of it."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from chat_models import FAMILIES, tiny_tokenizer

from agentrft.chat import AnyFormat, FastTokenizer, calls, pick_format
from agentrft.runtime.serving.reader import ReplyReader, Rest
from agentrft.runtime.serving.stops import Piece, StopStrings
from agentrft.runtime.serving.wire import DrawnToken
from agentrft.types import Message, ToolCall, ToolSpec

llguidance = pytest.importorskip("llguidance")

PLACE = {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}
TOOLS = [
    ToolSpec(name="look", description="Look somewhere.", parameters=PLACE),
    ToolSpec(name="looking", description="Look longer.", parameters=PLACE),
]
FORMATS = [*FAMILIES, "hermes by text"]


@pytest.fixture(params=FORMATS)
def fmt(request: pytest.FixtureRequest) -> AnyFormat:
    if request.param == "hermes by text":
        return pick_format(tiny_tokenizer("line"), "hermes")
    return pick_format(tiny_tokenizer(request.param))


def bytes_of(fmt: AnyFormat) -> Callable[[int], bytes]:
    tokens: FastTokenizer = fmt.tokenizer  # type: ignore[assignment]
    known = llguidance.LLTokenizer(tokens._backend.to_str())
    return lambda id_: known.decode_bytes([id_]) or b"\xff"


def token(id_: int) -> DrawnToken:
    return DrawnToken(token=str(id_), bytes=(), log_prob=0.0)


def read(
    fmt: AnyFormat, ids: Sequence[int], tools: Sequence[ToolSpec] = TOOLS, *, truncated: bool = False
) -> tuple[list[str], Rest]:
    """Texts as they come, the last one from the end of the reply."""
    reader, own_bytes = ReplyReader(fmt, tools), bytes_of(fmt)
    texts = ["".join(p.text for p in reader.feed(i, own_bytes(i), token(i))) for i in ids if i not in fmt.stop_ids]
    rest = reader.finish(truncated=truncated)
    return [*texts, "".join(piece.text for piece in rest.pieces)], rest


def test_noise_reads_as_the_format_reads_it(fmt: AnyFormat) -> None:
    own_bytes = bytes_of(fmt)
    vocabulary = fmt.tokenizer._backend.get_vocab_size()  # type: ignore[attr-defined]
    marks = [
        fmt.tokenizer.special(t) for t in fmt.tokenizer.control_tokens if fmt.tokenizer.special(t) not in fmt.stop_ids
    ]
    call = fmt.reply(
        Message(role="assistant", tool_calls=(ToolCall(id="c", name="look", arguments='{"place": "a b"}'),)), TOOLS
    )
    answer = fmt.reply(Message(role="assistant", content=" Über 7\n"), TOOLS)
    kinds: set[str] = set()
    for seed in range(150):
        rng = random.Random(seed)
        ids: list[int] = []
        for _ in range(rng.randint(1, 8)):
            part = rng.choice([call, answer, [rng.choice(marks)], None])
            ids += part[: rng.randint(0, len(part))] if part else [rng.randrange(vocabulary) for _ in range(5)]
        ids = [id_ for id_ in ids if id_ not in fmt.stop_ids]
        stop = min(fmt.stop_ids)
        message, malformed = fmt.parse([*ids, stop], TOOLS)
        texts, rest = read(fmt, [*ids, stop])
        assert rest.malformed == malformed
        assert [(c.name, c.arguments) for c in rest.calls] == [(c.name, c.arguments) for c in message.tool_calls]
        if malformed is None:
            assert "".join(texts) == (message.content or ""), (seed, fmt.decode(ids))
        else:
            whole = b"".join(map(own_bytes, ids)).decode("utf-8", "replace")
            assert Counter("".join("".join(texts).split())) <= Counter("".join(whole.split()))
        kinds.add("malformed" if malformed else "call" if message.tool_calls else "text")
    assert kinds == {"text", "malformed", "call"}


def test_an_answer_comes_token_by_token(fmt: AnyFormat) -> None:
    said = "The port is 8080, als Umlaut: größer 猫 🙂."
    ids = fmt.reply(Message(role="assistant", content=said), TOOLS)
    texts, rest = read(fmt, ids)
    assert "".join(texts) == said
    assert sum(map(bool, texts)) > 10
    assert "�" not in "".join(texts)
    assert texts[-1] == ""
    assert rest.malformed is None


def test_a_call_shows_nothing_of_its_markup(fmt: AnyFormat) -> None:
    made = ToolCall(id="call_0", name="look", arguments=json.dumps({"place": "über all"}, ensure_ascii=False))
    texts, rest = read(fmt, fmt.reply(Message(role="assistant", tool_calls=(made,)), TOOLS))
    assert "".join(texts) == ""
    assert rest.calls == (made,)


def test_text_before_and_after_calls_is_joined_as_the_format_joins_it() -> None:
    fmt = pick_format(tiny_tokenizer("hermes"))
    made = tuple(ToolCall(id=f"call_{k}", name="look", arguments=calls.dump({"place": str(k)})) for k in range(2))
    ids = fmt.reply(Message(role="assistant", content="Two looks.", tool_calls=made), TOOLS)[:-1]
    ids += [*fmt.tokenizer.encode("\n\n Done. "), min(fmt.stop_ids)]
    texts, rest = read(fmt, ids)
    assert "".join(texts) == "Two looks.\nDone."
    assert rest.calls == made


def test_a_thought_is_read_over() -> None:
    fmt = pick_format(tiny_tokenizer("hermes"))
    ids = fmt.reply(Message(role="assistant", content="<think>\nHm: 3?\n</think>\n\nIt is 3."), [])
    texts, _ = read(fmt, ids, [])
    assert "".join(texts) == "It is 3."
    cut, _ = read(fmt, ids[:4], [], truncated=True)
    assert "".join(cut) == ""


def test_a_call_that_was_cut_is_not_shown_and_text_that_was_cut_is(fmt: AnyFormat) -> None:
    made = ToolCall(id="c", name="look", arguments='{"place": "far away"}')
    ids = fmt.reply(Message(role="assistant", tool_calls=(made,)), TOOLS)
    texts, rest = read(fmt, ids[:-3], truncated=True)
    assert ("".join(texts), tuple(rest.calls)) == ("", ())
    said = fmt.reply(Message(role="assistant", content="It is far away"), TOOLS)
    texts, _ = read(fmt, said[:-2], truncated=True)
    assert "It is far awa".startswith("".join(texts))
    assert len("".join(texts)) > 5


def test_a_call_that_cannot_be_read_is_shown_as_it_is() -> None:
    fmt = pick_format(tiny_tokenizer("hermes"))
    opened = fmt.tokenizer.special("<tool_call>")
    ids = [*fmt.tokenizer.encode("Well."), opened, *fmt.tokenizer.encode('\n{"name": 3'), min(fmt.stop_ids)]
    texts, rest = read(fmt, ids)
    assert "".join(texts[:-1]) == "Well."
    assert rest.malformed
    assert "".join(piece.text for piece in rest.pieces) == '\n<tool_call>\n{"name": 3'


def test_without_tools_whatever_comes_is_text() -> None:
    fmt = pick_format(tiny_tokenizer("line"))
    texts, rest = read(fmt, [*fmt.tokenizer.encode("look here, said  she "), min(fmt.stop_ids)], [])
    assert "".join(texts) == "look here, said  she"
    assert sum(map(bool, texts)) > 3
    assert rest.calls == ()


# ---- stop strings


def pieces(*texts: str) -> list[Piece]:
    return [Piece(text, token(k)) for k, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("stops", "texts", "shown"),
    [
        (["END"], ["some E", "N", "D more"], ["some ", "", ""]),
        (["END"], ["EN", "EN", "x"], ["", "EN", "ENx"]),
        (["a", "ab"], ["xab"], ["x"]),
        (["\n\n"], ["one\n", "two\n", "\nthree"], ["one", "\ntwo", ""]),
        (["🙂"], ["x", "🙂"], ["x", ""]),
        ([], ["END"], ["END"]),
    ],
)
def test_text_ends_before_the_first_stop_string(stops: list[str], texts: list[str], shown: list[str]) -> None:
    filtered = StopStrings(stops)
    assert ["".join(p.text for p in filtered.feed([piece])) for piece in pieces(*texts)] == shown
    assert filtered.hit == any(stop in "".join(texts) for stop in stops)


def test_what_only_began_like_a_stop_string_is_shown_at_the_end() -> None:
    filtered = StopStrings(["END"])
    assert [p.text for p in filtered.feed(pieces("so E", "N"))] == ["so "]
    assert "".join(p.text for p in filtered.rest()) == "EN"


def test_each_token_goes_with_its_first_character() -> None:
    filtered = StopStrings(["XYZ"])
    out = [filtered.feed([piece]) for piece in pieces("aX", "Y", "b", "cXYZd", "e")]
    tokens = [[p.token.token for p in step if p.token] for step in out]
    assert tokens == [["0"], [], ["1", "2"], ["3"], []]
