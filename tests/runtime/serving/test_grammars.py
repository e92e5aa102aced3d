"""Grammars of calls: whatever they let through, the format reads back as calls that the schema allows."""

from __future__ import annotations

import json
import random
from typing import Any

import jsonschema
import numpy as np
import pytest
from chat_models import FAMILIES, tiny_tokenizer

from agentrft.chat import AnyFormat, FastTokenizer, pick_format
from agentrft.errors import UserError
from agentrft.jobs.models import Weights
from agentrft.protocols import Constraint
from agentrft.runtime.serving.conversation import read_conversation
from agentrft.runtime.serving.grammars import constraint_of
from agentrft.runtime.serving.wire import ChatRequest

llguidance = pytest.importorskip("llguidance")

GREP = {
    "type": "object",
    "properties": {
        "mode": {"enum": ["fast", "slow and sure", "é"]},
        "depth": {"type": "integer"},
        "places": {"type": "array", "items": {"$ref": "#/$defs/place"}, "maxItems": 2},
        "text": {"type": "string", "maxLength": 12},
    },
    "required": ["mode", "text"],
    "$defs": {"place": {"enum": ["/", "/apps"]}},
}
LOOK = {
    "type": "object",
    "properties": {"far": {"type": "boolean"}, "ratio": {"type": ["number", "null"], "minimum": -9, "maximum": 9}},
}
TOOLS = [
    {"type": "function", "function": {"name": "grep", "description": "Find.", "parameters": GREP}},
    {"type": "function", "function": {"name": "look", "parameters": LOOK}},
    {"type": "function", "function": {"name": "now"}},
]
SCHEMAS = {"grep": GREP, "look": LOOK, "now": {"type": "object"}}


@pytest.fixture(params=[*FAMILIES, "hermes by text"])
def fmt(request: pytest.FixtureRequest) -> AnyFormat:
    if request.param == "hermes by text":
        return pick_format(tiny_tokenizer("line"), "hermes")
    return pick_format(tiny_tokenizer(request.param))


def asked(**fields: Any) -> ChatRequest:
    messages = [{"role": "user", "content": "Where is it?"}]
    return ChatRequest(weights=Weights(name="m", folder=None), messages=messages, **fields)  # type: ignore[arg-type]


def constraint(fmt: AnyFormat, **fields: Any) -> Constraint | None:
    return constraint_of(fmt, read_conversation(asked(**fields)))


def walk(fmt: AnyFormat, grammar: Constraint, rng: random.Random, most: int = 400) -> list[int] | None:
    """A random way through a grammar, stop token included; None when it is longer than `most` tokens."""
    tokens: FastTokenizer = fmt.tokenizer  # type: ignore[assignment]
    spec = json.loads(tokens._backend.to_str())
    for added in spec["added_tokens"]:
        added["special"] = added["content"] in tokens.control_tokens
    stop = next(iter(fmt.stop_ids))
    known = llguidance.LLTokenizer(json.dumps(spec), eos_token=sorted(fmt.stop_ids))
    matcher = llguidance.LLMatcher(known, grammar.source, log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    ids: list[int] = []
    while len(ids) < most:
        bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")
        may = np.flatnonzero(bits).tolist()
        assert may, (fmt.decode(ids), matcher.get_error())
        closing = [id_ for id_ in may if fmt.decode([id_]) in ('"', "}", "]", "\n", "</tool_call>")]
        ended = [id_ for id_ in may if id_ in fmt.stop_ids]
        options = ended if ended and rng.random() < 0.5 else closing if closing and rng.random() < 0.3 else may
        ids.append(rng.choice(options))
        if ids[-1] in fmt.stop_ids:
            return ids
        assert matcher.consume_token(ids[-1])
    assert stop not in ids
    return None


@pytest.mark.parametrize("one_call", [True, False])
def test_required_calls_are_read_back_and_fit_their_schemas(fmt: AnyFormat, one_call: bool) -> None:
    grammar = constraint(fmt, tools=TOOLS, tool_choice="required", parallel_tool_calls=not one_call)
    assert grammar is not None
    specs = read_conversation(asked(tools=TOOLS)).tools
    seen: set[str] = set()
    most_calls = 0
    for seed in range(25):
        ids = walk(fmt, grammar, random.Random(seed))
        if ids is None:
            continue
        message, malformed = fmt.parse(ids, specs)
        assert malformed is None, (fmt.decode(ids), malformed)
        assert message.tool_calls
        assert not message.content
        most_calls = max(most_calls, len(message.tool_calls))
        for call in message.tool_calls:
            seen.add(call.name)
            schema = dict(SCHEMAS[call.name])
            jsonschema.validate(json.loads(call.arguments), {**schema, "additionalProperties": False})
    assert seen == {"grep", "look", "now"}
    assert (most_calls > 1) == (not one_call and fmt.name != "line")


def test_the_line_format_keeps_bounds_by_writing_json() -> None:
    fmt = pick_format(tiny_tokenizer("line"))
    schema = {
        "type": "object",
        "properties": {
            "port": {"type": "integer", "minimum": 20, "maximum": 25},
            "host": {"anyOf": [{"type": "string", "minLength": 2, "maxLength": 4}, {"type": "null"}]},
            "code": {"type": "string", "pattern": "^[A-Z] [0-9]$"},
        },
        "required": ["port", "host"],
    }
    tools = [{"type": "function", "function": {"name": "open", "parameters": schema}}]
    grammar = constraint(fmt, tools=tools, tool_choice="required")
    assert grammar is not None
    specs = read_conversation(asked(tools=tools)).tools
    read = [fmt.parse(ids, specs) for seed in range(40) if (ids := walk(fmt, grammar, random.Random(seed)))]
    assert len(read) > 20
    for message, malformed in read:
        assert malformed is None
        jsonschema.validate(json.loads(message.tool_calls[0].arguments), schema)
    beyond = {"type": "object", "properties": {"a": {"$ref": "#/$defs/x"}}, "$defs": {"x": {"type": "integer"}}}
    with pytest.raises(UserError, match=r"cannot hold argument 'a' .* got \$ref") as refused:
        constraint(
            fmt, tools=[{"type": "function", "function": {"name": "f", "parameters": beyond}}], tool_choice="required"
        )
    assert (refused.value.param, refused.value.code) == ("tools", "constraint_unsupported")


def test_arguments_are_an_object_whatever_the_schema_leaves_out() -> None:
    fmt = pick_format(tiny_tokenizer("hermes"))
    pair = {
        "type": "object",
        "properties": {"a": {"type": "boolean"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    for schema, expected in (
        ({"properties": {"a": {"type": "boolean"}}, "required": ["a"]}, pair),
        ({"$ref": "#/$defs/pair", "$defs": {"pair": pair}}, pair),
        ({"anyOf": [pair]}, pair),
        ({}, {"type": "object", "maxProperties": 0}),
    ):
        tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
        grammar = constraint(fmt, tools=tools, tool_choice="required", parallel_tool_calls=False)
        assert grammar is not None
        specs = read_conversation(asked(tools=tools)).tools
        for seed in range(6):
            ids = walk(fmt, grammar, random.Random(seed))
            assert ids is not None
            jsonschema.validate(json.loads(fmt.parse(ids, specs)[0].tool_calls[0].arguments), expected)


def test_a_named_function_is_the_only_one_called(fmt: AnyFormat) -> None:
    choice = {"type": "function", "function": {"name": "look"}}
    grammar = constraint(fmt, tools=TOOLS, tool_choice=choice)
    assert grammar is not None
    walks = [walk(fmt, grammar, random.Random(seed)) for seed in range(20)]
    specs = read_conversation(asked(tools=TOOLS)).tools
    names = {call.name for ids in walks if ids for call in fmt.parse(ids, specs)[0].tool_calls}
    assert names == {"look"}


def test_no_call_is_made_where_none_is_allowed(fmt: AnyFormat) -> None:
    grammar = constraint(fmt, tools=TOOLS, tool_choice="none")
    assert grammar is not None
    specs = read_conversation(asked(tools=TOOLS)).tools
    replies = [walk(fmt, grammar, random.Random(seed), most=60) for seed in range(20)]
    read = [fmt.parse(ids, specs) for ids in replies if ids is not None]
    assert len(read) > 5
    assert not any(message.tool_calls or malformed for message, malformed in read)


def test_answers_meet_a_schema_beside_calls(fmt: AnyFormat) -> None:
    answer = {
        "type": "object",
        "properties": {"port": {"enum": [1, 2]}},
        "required": ["port"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": answer}}
    grammar = constraint(fmt, tools=TOOLS, response_format=wanted)
    assert grammar is not None
    specs = read_conversation(asked(tools=TOOLS)).tools
    kinds: set[str] = set()
    for seed in range(30):
        ids = walk(fmt, grammar, random.Random(seed))
        if ids is None:
            continue
        message, malformed = fmt.parse(ids, specs)
        assert malformed is None, fmt.decode(ids)
        kinds.add("call" if message.tool_calls else "answer")
        if not message.tool_calls:
            jsonschema.validate(json.loads(message.content or ""), answer)
    assert kinds == {"call", "answer"}


def test_what_may_be_anything_is_left_alone(fmt: AnyFormat) -> None:
    assert constraint(fmt) is None
    assert constraint(fmt, tools=TOOLS) is None
    assert constraint(fmt, response_format={"type": "text"}) is None


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "x"}}, "tools": TOOLS}, "tool_choice"),
        ({"tool_choice": 7}, "tool_choice"),
        ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": 3}}}, "response_format"),
        ({"temperature": 2.5}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"seed": 1.5}, "seed"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": [""]}, "stop"),
        ({"tools": [{"type": "function"}]}, "tools[0]"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_its_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(UserError) as refused:
        read_conversation(asked(**fields))
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        ([{"role": "wizard", "content": "x"}], "messages[0].role"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "messages[0].content[0]"),
        ([{"role": "tool", "content": "x", "tool_call_id": "c"}], "messages[0]"),
    ],
)
def test_messages_that_cannot_be_read_are_named(messages: list[Any], param: str) -> None:
    with pytest.raises(UserError) as refused:
        read_conversation(ChatRequest(weights=Weights(name="m", folder=None), messages=messages))  # type: ignore[arg-type]
    assert refused.value.param == param
