"""References in grader fields, and the `sample` object they read."""

from __future__ import annotations

import pytest

from agentrft.graders.sample import sample_from_episode, sample_object
from agentrft.graders.template import Missing, Template
from agentrft.types import Episode, Message, StopReason, ToolCall, Turn


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("plain {text}", "plain {text}"),
        ("{{item.answer}}", "42"),
        ("{{ item.answer }}!", "42!"),
        ("a {{item.name}} b {{item.name}}", "a Ada b Ada"),
        ("{{item.deep.list[1].x}}", "y"),
        ("{{item.deep.list[-1].x}}", "y"),
        ('{{item["odd key"]}}', "k"),
        ("{{item['odd key']}}", "k"),
        ("{{item.deep.flag}} {{item.ratio}}", "true 0.5"),
        ("{{item.deep.list}}", '[1, {"x": "y"}]'),
        ("{{item.key-with-dash}}", "d"),
        ("{{sample.output_tools[0].function.name}}", "cat"),
        ("{{ sample.choices[0].finish_reason }}", "tool_calls"),
        ("{{sample.choices[0].message.tool_calls[0].id}}", "call_1_0"),
        ("{{sample.messages[-2].content}}", "a b"),
        ("{{sample.messages[1].tool_calls[0].function.arguments}}", '{"path": "/"}'),
        ("{{sample.n_calls}} {{sample.stop_reason}}", "2 max_turns"),
    ],
)
def test_filling(trajectory, text, filled):
    item = {
        "answer": 42,
        "name": "Ada",
        "deep": {"list": [1, {"x": "y"}], "flag": True},
        "odd key": "k",
        "ratio": 0.5,
        "key-with-dash": "d",
    }
    assert Template(text).fill(sample_object(trajectory), item) == filled


def test_what_is_filled_in_is_not_read_for_references():
    assert Template("{{item.a}}").fill({}, {"a": "{{item.b}}", "b": "no"}) == "{{item.b}}"


@pytest.mark.parametrize(
    "text",
    ["{{item.gone}}", "{{item.null}}", "{{item.list[5]}}", "{{item.list.x}}", "{{item.text[0]}}"],
)
def test_what_is_absent_or_null_is_missing(text):
    with pytest.raises(Missing, match=r"there is no item\..* \(or it is null\)"):
        Template(text).fill({}, {"null": None, "list": [1], "text": "abc"})


@pytest.mark.parametrize(
    "text",
    [
        "{{}}",
        "{{item}}",
        "{{foo.bar}}",
        "{{item.a b}}",
        "{{item..a}}",
        "{{item[x]}}",
        "{{item.a|upper}}",
        "{{sample}}",
        "{{ 1 + 1 }}",
        "{{item.__class__.x}} {{",
        "{{item.a",
    ],
)
def test_what_is_not_a_reference_is_refused(text):
    with pytest.raises(ValueError, match=r"got .*expected"):
        Template(text)


def test_unknown_sample_keys_are_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"got \{\{sample.text\}\}, expected one of sample.output_text, sample.o"):
        Template("{{sample.text}}")


def test_references_are_listed_in_order():
    template = Template("{{item.a[0].b}} {{ sample.output_text }}")
    assert [(r.namespace, r.path) for r in template.references] == [
        ("item", ("a", 0, "b")),
        ("sample", ("output_text",)),
    ]
    assert [str(r) for r in template.references] == ["item.a[0].b", "sample.output_text"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1]}', {"a": [1]}),
        ("7", 7),
        ("text", None),
        ("", None),
        ("NaN", None),
        ("1e999", None),
        ("[" * 100_000, None),
        ("9" * 5000, None),
    ],
)
def test_output_json_is_the_text_read_as_json(make_sample, text, value):
    assert sample_object(make_sample(text))["output_json"] == value


def _episode(stop: StopReason, *replies: Message, malformed: str | None = None) -> Episode:
    turns = tuple(Turn(reply=reply, malformed=malformed) for reply in replies)
    messages = (Message(role="user", content="q"), *replies)
    return Episode(
        id="ep_1", trace_id="trace_1", item_id="row-1", step=0, member=0, attempt=0,
        messages=messages, turns=turns, stop_reason=stop,
    )  # fmt: skip


def test_sample_of_an_answered_episode():
    call = ToolCall(id="c", name="ls", arguments="{}")
    episode = _episode(
        StopReason.ANSWERED, Message(role="assistant", tool_calls=(call,)), Message(role="assistant", content="done")
    )
    sample = sample_from_episode(episode)
    assert (sample.output_text, sample.output_tools, sample.n_calls) == ("done", (), 1)
    assert sample.messages == episode.messages
    assert sample_object(sample)["choices"] == [
        {"index": 0, "message": {"role": "assistant", "content": "done", "tool_calls": []}, "finish_reason": "stop"}
    ]


@pytest.mark.parametrize(
    ("stop", "finish"),
    [
        (StopReason.MAX_TURNS, "tool_calls"),
        (StopReason.MAX_REPLY_TOKENS, "length"),
        (StopReason.MALFORMED, "stop"),
    ],
)
def test_only_an_answer_has_output_text(stop, finish):
    sample = sample_from_episode(_episode(stop, Message(role="assistant", content="Answer: 4"), malformed="x"))
    assert sample.output_text == ""
    assert sample.n_calls == 1
    assert sample_object(sample)["choices"][0]["finish_reason"] == finish
    assert sample_from_episode(_episode(StopReason.MAX_TIME)).output_tools == ()
