"""The Responses API through the real SDK: items, forms, events, and what is refused."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from openai.types.responses import Response
from pydantic import BaseModel
from weather_tool import WEATHER

from agentrft.errors import EngineFault, UserError
from agentrft.runtime.serving.wire import Started, TextDelta
from agentrft.server.responses_wire import ResponseBody
from agentrft.testing.serving import ScriptedEngine, call_reply

ROOT = Path(__file__).parents[2]
KEY = {"Authorization": "Bearer sk-none"}


def test_an_answer_has_every_field_that_the_sdk_knows(client: OpenAI, engine: ScriptedEngine) -> None:
    engine.plays("Hello there.")
    raw = client.responses.with_raw_response.create(model="tiny", input="Hello", metadata={"a": "b"}, user="u")
    answer = raw.parse()
    assert isinstance(answer, Response)
    assert answer.output_text == "Hello there."
    assert json.loads(raw.text) == {
        "id": answer.id,
        "object": "response",
        "created_at": answer.created_at,
        "completed_at": answer.completed_at,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "model": "tiny",
        "output": [
            {
                "id": answer.output[0].id,
                "type": "message",
                "role": "assistant",
                "status": "completed",
                "content": [{"type": "output_text", "text": "Hello there.", "annotations": [], "logprobs": []}],
            }
        ],
        # two words and the stop token
        "usage": {
            "input_tokens": 7,
            "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0},
            "output_tokens": 3,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 10,
        },
        "background": False,
        "instructions": None,
        "max_output_tokens": None,
        "max_tool_calls": None,
        "metadata": {"a": "b"},
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "prompt_cache_key": None,
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": None,
        "service_tier": "default",
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": 1.0,
        "truncation": "disabled",
        "user": "u",
    }
    # OpenAI's answers say `store`, of which the SDK's type does not know.
    assert set(json.loads(raw.text)) <= {*Response.model_fields, "store"}
    assert re.fullmatch(r"resp_[0-9a-f]{48}", answer.id)


def test_a_call_and_the_conversation_that_goes_on_from_it(client: OpenAI, engine: ScriptedEngine) -> None:
    two = call_reply(("weather", '{"town": "Köln"}'), ("weather", '{"town": "Ulm"}'), text="I look.")
    engine.plays(two, "Rain in both.")
    items: Any = [{"role": "user", "content": "Weather?"}]
    first = client.responses.create(model="tiny", input=items, tools=[WEATHER], instructions="Be brief.")
    assert [item.type for item in first.output] == ["message", "function_call", "function_call"]
    calls = [item for item in first.output if item.type == "function_call"]
    assert [(call.call_id, call.name, call.status) for call in calls] == [
        ("call_0", "weather", "completed"),
        ("call_1", "weather", "completed"),
    ]
    # The output items themselves go back, as scripts do it.
    items += first.output
    items += [{"type": "reasoning", "id": "rs_1", "summary": []}]
    items += [{"type": "function_call_output", "call_id": call.call_id, "output": "rain"} for call in calls]
    second = client.responses.create(model="tiny", input=items, tools=[WEATHER])
    assert second.output_text == "Rain in both."
    asked = engine.requests[1].messages
    assert [message["role"] for message in asked] == ["user", "assistant", "tool", "tool"]
    assert asked[1]["content"] == "I look."
    assert [call["id"] for call in asked[1]["tool_calls"]] == ["call_0", "call_1"]
    assert engine.requests[0].messages[0] == {"role": "system", "content": "Be brief."}
    function = engine.requests[0].tools[0]["function"]
    assert (function["name"], function["description"]) == ("weather", "Weather of a town.")


def test_what_is_asked_for_reaches_the_engine(client: OpenAI, engine: ScriptedEngine) -> None:
    engine.plays('{"a": 1}')
    form: Any = {"type": "json_schema", "name": "f", "schema": {"type": "object"}, "strict": True}
    answer = client.responses.create(
        model="tiny",
        input=[{"role": "user", "content": [{"type": "input_text", "text": "Hello"}]}],
        tools=[WEATHER],
        tool_choice={"type": "function", "name": "weather"},
        parallel_tool_calls=False,
        text={"format": form},
        max_output_tokens=40,
        temperature=0.5,
        top_p=0.25,
        include=["message.output_text.logprobs"],
        top_logprobs=1,
        extra_body={"seed": 3},
    )
    asked = engine.requests[0]
    assert asked.messages == [{"role": "user", "content": "Hello"}]
    assert asked.tool_choice == {"type": "function", "function": {"name": "weather"}}
    assert asked.response_format == {
        "type": "json_schema",
        "json_schema": {"name": "f", "schema": {"type": "object"}, "strict": True},
    }
    assert (asked.parallel_tool_calls, asked.max_tokens, asked.temperature, asked.top_p) == (False, 40, 0.5, 0.25)
    client.responses.create(model="tiny", input="Hello", extra_body={"seed": 3})
    assert engine.requests[1].seed == asked.seed
    message: Any = answer.output[0]
    content = message.content[0]
    assert [len(token.top_logprobs) for token in content.logprobs] == [1, 1]
    assert answer.text
    assert answer.text.to_dict() == {"format": form, "verbosity": "medium"}
    assert answer.tool_choice.to_dict() == {"type": "function", "name": "weather"}  # type: ignore[union-attr]
    assert [tool.to_dict() for tool in answer.tools] == [WEATHER]


def test_a_token_limit_makes_it_incomplete(client: OpenAI, engine: ScriptedEngine) -> None:
    engine.plays("one two three")
    answer = client.responses.create(model="tiny", input="Hello", max_output_tokens=2)
    assert answer.status == "incomplete"
    assert answer.incomplete_details
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert answer.output_text == "one two "
    assert answer.output[0].status == "incomplete"  # type: ignore[union-attr]


class Forecast(BaseModel):
    town: str


def test_parse_gives_a_pydantic_model(client: OpenAI, engine: ScriptedEngine) -> None:
    engine.plays('{"town": "Ulm"}')
    assert client.responses.parse(model="tiny", input="Hello", text_format=Forecast).output_parsed == Forecast(
        town="Ulm"
    )


def events_of(url: str, **asked: Any) -> list[dict[str, Any]]:
    body = {"model": "tiny", "input": "Hello", "stream": True, **asked}
    answer = httpx.post(f"{url}/v1/responses", json=body, headers=KEY)
    assert answer.status_code == 200
    events = []
    for block in answer.text.strip().split("\n\n"):
        name, data = block.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    return events


def test_events_come_in_openais_order(url: str, engine: ScriptedEngine) -> None:
    engine.plays(call_reply(("weather", '{"town": "Ulm"}'), text="I look."))
    events = events_of(url, tools=[WEATHER])
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    assert [event["output_index"] for event in events if "output_index" in event] == [0] * 6 + [1] * 4
    added, done = events[8]["item"], events[11]["item"]
    assert (added["arguments"], added["status"]) == ("", "in_progress")
    assert (done["arguments"], done["status"]) == ('{"town": "Ulm"}', "completed")
    assert {events[9]["item_id"], events[10]["item_id"], added["id"]} == {done["id"]}
    assert (events[0]["response"]["status"], events[0]["response"]["output"]) == ("in_progress", [])
    assert events[0]["response"]["usage"] is None
    assert events[-1]["response"]["output"] == [events[7]["item"], done]
    assert {event["response"]["id"] for event in (events[0], events[1], events[-1])} == {events[0]["response"]["id"]}


def test_the_sdk_puts_a_stream_together(client: OpenAI, engine: ScriptedEngine) -> None:
    engine.plays(call_reply(("weather", '{"town": "Ulm"}'), text="I look."), "Rain there.")
    with client.responses.stream(model="tiny", input="Hello", tools=[WEATHER]) as stream:
        events = list(stream)
        final = stream.get_final_response()
    snapshots = [event.snapshot for event in events if event.type == "response.output_text.delta"]
    assert snapshots == ["I look."]
    assert [item.type for item in final.output] == ["message", "function_call"]
    assert final.output[1].arguments == '{"town": "Ulm"}'  # type: ignore[union-attr]
    with client.responses.stream(model="tiny", input="Hello") as stream:
        stream.until_done()
        assert stream.get_final_response().output_text == "Rain there."
    assert final.usage
    assert final.usage.total_tokens == 12  # 7 + the 5 of a scripted call


def test_the_sdk_parses_a_form_while_it_is_filled_in(client: OpenAI, engine: ScriptedEngine) -> None:
    engine.plays('{"town": "Ulm"}')
    with client.responses.stream(model="tiny", input="Hello", text_format=Forecast) as stream:
        stream.until_done()
        assert stream.get_final_response().output_parsed == Forecast(town="Ulm")


def test_a_stream_that_is_cut_off_ends_as_incomplete(url: str, client: OpenAI, engine: ScriptedEngine) -> None:
    engine.plays("one two three")
    last = events_of(url, max_output_tokens=1)[-1]
    assert last["type"] == "response.incomplete"
    assert last["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    kinds = [event.type for event in client.responses.create(model="tiny", input="x", max_output_tokens=1, stream=True)]
    assert kinds[-1] == "response.incomplete"


def test_an_empty_reply_is_an_empty_message(client: OpenAI, engine: ScriptedEngine) -> None:
    engine.plays("")
    answer = client.responses.create(model="tiny", input="Hello")
    assert (answer.output_text, len(answer.output)) == ("", 1)


def test_a_failure_after_the_first_event_fails_the_response(url: str, engine: ScriptedEngine) -> None:
    engine.plays([Started(prompt_tokens=3), TextDelta(text="half a "), EngineFault("killed in /secret")])
    last = events_of(url)[-1]
    assert last["type"] == "response.failed"
    assert last["response"]["status"] == "failed"
    assert last["response"]["error"]["code"] == "server_error"
    assert "secret" not in json.dumps(last)


def test_a_failure_before_it_has_its_status(client: OpenAI, engine: ScriptedEngine) -> None:
    engine.plays([UserError("too long", param="messages", code="context_length_exceeded")])
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as caught:
            client.responses.create(model="tiny", input="Hello", stream=stream)
        assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "input")


def test_a_client_that_leaves_frees_its_place(client: OpenAI, engine: ScriptedEngine) -> None:
    engine.plays([Started(prompt_tokens=3), *[TextDelta(text="word "), 0.01] * 10_000])
    stream = client.responses.create(model="tiny", input="Hello", stream=True)
    next(iter(stream))
    stream.close()
    deadline = time.monotonic() + 5
    while engine.n_open and time.monotonic() < deadline:
        time.sleep(0.01)
    assert engine.n_open == 0


IMAGE: Any = [{"role": "user", "content": [{"type": "input_image", "image_url": "https://example.org/a.png"}]}]


@pytest.mark.parametrize(
    ("asked", "param", "words"),
    [
        ({"previous_response_id": ""}, "previous_response_id", "at least 1"),
        ({"conversation": "conv_1"}, "conversation", "go on from a response"),
        ({"background": True}, "background", "stream"),
        ({"truncation": "auto"}, "truncation", "shorten"),
        ({"reasoning": {"effort": "high"}}, "reasoning.effort", "leave `reasoning` out"),
        ({"prompt": {"id": "p"}}, "prompt", "instructions"),
        ({"text": {"verbosity": "low"}}, "text.verbosity", "instructions"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format", "needs both"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type", "'function'"),
        ({"tool_choice": {"type": "function", "name": "no"}}, "tool_choice", "no tool 'no'"),
        ({"include": ["file_search_call.results"]}, "include.0", "message.output_text.logprobs"),
        ({"top_logprobs": 2}, "top_logprobs", "needs `include`"),
        ({"input": IMAGE}, "input.0.content", "text only"),
        ({"input": []}, "input", "at least 1"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input.0.type", "'function_call'"),
        ({"input": [{"type": "function_call", "call_id": "c", "name": "f"}]}, "input.0.arguments", "needs it"),
        ({"input": [{"type": "reasoning", "id": "r", "summary": []}]}, "input", "reasoning only"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]}, "input", "'c'"),
        ({"colour": "blue"}, "colour", "unknown"),
    ],
)
def test_what_cannot_take_effect_is_refused_with_its_field(
    url: str, client: OpenAI, engine: ScriptedEngine, asked: dict[str, Any], param: str, words: str
) -> None:
    answer = httpx.post(f"{url}/v1/responses", json={"model": "tiny", "input": "Hello", **asked}, headers=KEY)
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert error["param"] == param
    assert words in error["message"]
    assert not engine.requests


def test_what_asks_for_nothing_is_taken(client: OpenAI, engine: ScriptedEngine) -> None:
    engine.plays("Hi.")
    answer = client.responses.create(
        model="tiny",
        input="Hello",
        store=True,
        include=["reasoning.encrypted_content"],
        reasoning={"effort": "none", "summary": "auto"},
        truncation="disabled",
        service_tier="auto",
        background=False,
        prompt_cache_key="k",
        text={"verbosity": "medium"},
    )
    assert answer.output_text == "Hi."


def test_every_field_of_the_request_is_explained() -> None:
    section = (ROOT / "docs" / "chat-api.md").read_text().split("## Responses")[1].split("## Models")[0]
    assert set(ResponseBody.model_fields) == set(re.findall(r"^\| `(\w+)`", section, flags=re.MULTILINE))
