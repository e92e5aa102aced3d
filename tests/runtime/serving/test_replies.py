"""Replies from the engine process: text, calls, log-probs, schemas, stop strings, refusals."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from agentrft.errors import UserError
from agentrft.jobs.models import Weights
from agentrft.runtime.serving.client import EngineClient
from agentrft.runtime.serving.wire import ChatRequest

Ask = Callable[..., ChatRequest]
Hear = Callable[..., Any]

PLACE = {"type": "object", "properties": {"place": {"enum": ["here", "über all"]}}, "required": ["place"]}
TOOLS = [
    {"type": "function", "function": {"name": "look", "description": "Look somewhere.", "parameters": PLACE}},
    {"type": "function", "function": {"name": "wait", "parameters": {"type": "object", "properties": {}}}},
]


async def test_a_reply_is_fixed_by_its_seed_and_reuses_its_prompt(engine: EngineClient, asked: Ask, hear: Hear) -> None:
    plain = await hear(engine, asked("hermes"))
    assert plain.end.finish_reason == "length"
    assert plain.end.usage.completion_tokens == 24
    assert plain.end.usage.prompt_tokens == plain.events[0].prompt_tokens > 5
    again = await hear(engine, asked("hermes"))
    assert again.text == plain.text
    assert again.end.usage.cached_tokens == plain.end.usage.prompt_tokens - 1
    assert (await hear(engine, asked("hermes", seed=2))).text != plain.text


@pytest.mark.parametrize("family", ["hermes", "line", "llama3", "mistral"])
async def test_required_and_named_calls_are_made(family: str, engine: EngineClient, asked: Ask, hear: Hear) -> None:
    wanted = asked(family, tools=TOOLS, tool_choice="required", parallel_tool_calls=False, max_tokens=400)
    reply = await hear(engine, wanted)
    assert reply.end.finish_reason == "tool_calls"
    assert reply.text == ""
    (call,) = reply.calls
    assert call.id.startswith("call_")
    assert call.index == 0
    assert call.name in ("look", "wait")
    named = replace(wanted, tool_choice={"type": "function", "function": {"name": "look"}})
    reply = await hear(engine, named)
    jsonschema.validate(json.loads(reply.calls[0].arguments), PLACE)
    # The conversation goes on with what the tool gave.
    made = [
        {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}} for c in reply.calls
    ]
    told = [
        *named.messages,
        {"role": "assistant", "content": None, "tool_calls": made},
        {"role": "tool", "tool_call_id": made[0]["id"], "content": "It is at 7."},
    ]
    more = await hear(engine, replace(named, messages=told, tool_choice="none"))
    assert more.calls == []
    assert more.end.usage.cached_tokens >= reply.end.usage.prompt_tokens - 1


async def test_log_probs_come_with_their_text(engine: EngineClient, asked: Ask, hear: Hear) -> None:
    reply = await hear(engine, asked("hermes", logprobs=True, top_logprobs=3))
    assert reply.text == (await hear(engine, asked("hermes"))).text
    assert len(reply.tokens) > 5
    for token in reply.tokens:
        assert len(token.top) == 3
        assert token.top[0].log_prob >= token.top[1].log_prob >= token.top[2].log_prob
        assert token.log_prob <= token.top[0].log_prob + 1e-5
        assert -9999.0 <= token.log_prob <= 0.0
        assert token.token == bytes(token.bytes).decode("utf-8", "replace")
    said = b"".join(bytes(token.bytes) for token in reply.tokens).decode("utf-8", "replace")
    assert reply.text in said


async def test_a_schema_is_met_and_streamed(engine: EngineClient, asked: Ask, hear: Hear) -> None:
    schema = {
        "type": "object",
        "properties": {"port": {"enum": [1, 22]}},
        "required": ["port"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "port", "schema": schema, "strict": True}}
    for family in ("hermes", "line"):
        reply = await hear(engine, asked(family, response_format=wanted, max_tokens=300))
        assert reply.end.finish_reason == "stop"
        jsonschema.validate(json.loads(reply.text), schema)
        assert len(reply.texts) > 2


async def test_text_ends_before_a_stop_string(engine: EngineClient, asked: Ask, hear: Hear) -> None:
    whole = (await hear(engine, asked("hermes", max_tokens=60))).text
    stop = whole[7:10]
    cut = await hear(engine, asked("hermes", max_tokens=60, stop=[stop, "never that"]))
    assert cut.text == whole[: whole.index(stop)]
    assert cut.end.finish_reason == "stop"
    assert cut.end.usage.completion_tokens < 60


async def test_what_cannot_be_played_is_refused_with_its_field(engine: EngineClient, asked: Ask, hear: Hear) -> None:
    async def refusal(request: ChatRequest) -> UserError:
        with pytest.raises(UserError) as refused:
            await hear(engine, request)
        return refused.value

    long = await refusal(asked("hermes", content="word " * 3000))
    assert (long.code, long.param) == ("context_length_exceeded", "messages")
    unkept = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}}
    assert (await refusal(asked("hermes", response_format=unkept))).param == "response_format"
    bad = [
        {
            "type": "function",
            "function": {"name": "x", "parameters": {"type": "object", "properties": {"a": {"not": {}}}}},
        }
    ]
    refused = await refusal(asked("hermes", tools=bad, tool_choice="required"))
    assert (refused.param, refused.code) == ("tools", "constraint_unsupported")
    assert (await refusal(asked("hermes", format="mistral"))).param == "model"
    missing = Weights(name="x", folder=Path("/nowhere"))
    assert (await refusal(asked(weights=missing))).param == "model"
    gone = Weights(name="x", folder=asked("hermes").weights.folder, trained=Path("/nowhere"), rank=4, alpha=8.0)
    assert (await refusal(asked(weights=gone))).code == "model_not_found"
    two_calls = [
        {
            "role": "assistant",
            "tool_calls": [
                {"id": str(k), "type": "function", "function": {"name": "wait", "arguments": "{}"}} for k in range(2)
            ],
        },
        *({"role": "tool", "tool_call_id": str(k), "content": "x"} for k in range(2)),
    ]
    assert (await refusal(asked("line", tools=TOOLS, messages=two_calls))).param == "messages"
    other = replace(asked("hermes").weights, bundle="a" * 64)
    changed = await refusal(asked(weights=other, bundle="b" * 64))
    assert changed.code == "bundle_changed"
    forced = await hear(engine, asked(weights=other, bundle="b" * 64, force=True))
    assert forced.end.bundle == "a" * 64


async def test_many_at_once_are_what_they_are_alone(engine: EngineClient, asked: Ask, hear: Hear) -> None:
    wanted = [asked(family, seed=k, content=f"Question {k % 4}?") for k in range(12) for family in ("hermes", "llama3")]
    alone = [await hear(engine, one) for one in wanted]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(hear(engine, one)) for one in wanted]
    assert [task.result().text for task in tasks] == [reply.text for reply in alone]


async def test_strangers_on_the_socket_cost_only_themselves(engine: EngineClient, asked: Ask, hear: Hear) -> None:
    await engine.start()
    for line in (b"", b"\n", b"{}\n", b'{"weights": 3}\n', b"\xff\xfe\n", b"[" * 5000 + b"\n", b"no line break"):
        reader, writer = await asyncio.open_unix_connection(engine._socket())
        writer.write(line)
        writer.write_eof()
        answer = await reader.read()
        assert answer == b"" or b'"type":"error"' in answer
        writer.close()
    assert (await hear(engine, asked("hermes"))).end.usage.completion_tokens == 24
    assert engine.starts == 1
