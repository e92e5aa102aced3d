"""Chat completions through the real SDK: what every parameter does, what is refused, and what answers hold."""

from __future__ import annotations

import json
import re
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletion
from pydantic import BaseModel

from agentrft.errors import EngineFault, UserError
from agentrft.runtime.serving.wire import ChatRequest, Started
from agentrft.server.chat_wire import ChatBody
from agentrft.testing.serving import ScriptedEngine, call_reply

ROOT = Path(__file__).parents[2]
KEY = {"Authorization": "Bearer sk-none"}
HELLO: Any = [{"role": "user", "content": "Hello"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a town.",
        "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
    },
}


def test_an_answer_has_every_field_that_the_sdk_knows(client: OpenAI, engine: ScriptedEngine) -> None:
    engine.plays("Hello there.")
    raw = client.chat.completions.with_raw_response.create(model="tiny", messages=HELLO)
    answer = raw.parse()
    assert isinstance(answer, ChatCompletion)
    assert json.loads(raw.text) == {
        "id": answer.id,
        "object": "chat.completion",
        "created": answer.created,
        "model": "tiny",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello there.", "refusal": None, "annotations": []},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        # two words and the stop token
        "usage": {
            "prompt_tokens": 7,
            "completion_tokens": 3,
            "total_tokens": 10,
            "prompt_tokens_details": {"cached_tokens": 3, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        },
        "service_tier": "default",
        "system_fingerprint": answer.system_fingerprint,
    }
    assert re.fullmatch(r"chatcmpl-[0-9a-f]{30}", answer.id)
    assert abs(answer.created - time.time()) < 60
    assert raw.headers["x-request-id"].startswith("req_")
    assert answer.to_dict() == json.loads(raw.text)


def test_a_tool_call_and_the_conversation_that_goes_on_from_it(client: OpenAI, engine: ScriptedEngine) -> None:
    engine.plays(call_reply(("weather", '{"town": "Köln"}'), ("weather", '{"town": "Ulm"}')), "Rain in both.")
    first = client.chat.completions.create(model="tiny", messages=HELLO, tools=[WEATHER])
    message: Any = first.choices[0].message
    assert first.choices[0].finish_reason == "tool_calls"
    assert message.content is None
    assert [(call.id, call.function.arguments) for call in message.tool_calls] == [
        ("call_0", '{"town": "Köln"}'),
        ("call_1", '{"town": "Ulm"}'),
    ]
    # The message object itself goes back, as scripts do it.
    results: Any = [{"role": "tool", "tool_call_id": call.id, "content": "rain"} for call in message.tool_calls]
    second = client.chat.completions.create(model="tiny", messages=[*HELLO, message, *results], tools=[WEATHER])
    assert second.choices[0].message.content == "Rain in both."
    asked = engine.requests[1]
    assert [entry["role"] for entry in asked.messages] == ["user", "assistant", "tool", "tool"]
    assert [call["function"]["name"] for call in asked.messages[1]["tool_calls"]] == ["weather", "weather"]
    assert asked.messages[3] == {"role": "tool", "content": "rain", "tool_call_id": "call_1"}


def test_what_is_asked_for_reaches_the_engine(client: OpenAI, engine: ScriptedEngine) -> None:
    parts: Any = [{"type": "text", "text": "Be "}, {"type": "text", "text": "kind"}]
    schema: Any = {"name": "a", "schema": {"type": "object"}, "strict": True}
    client.chat.completions.create(
        model="tiny",
        messages=[{"role": "developer", "content": parts}, *HELLO],
        tools=[WEATHER],
        tool_choice={"type": "function", "function": {"name": "weather"}},
        parallel_tool_calls=False,
        response_format={"type": "json_schema", "json_schema": schema},
        max_completion_tokens=9,
        temperature=0,
        top_p=0.5,
        seed=11,
        stop="\n",
        logprobs=True,
        top_logprobs=2,
    )
    asked = engine.requests[0]
    assert asked.messages[0] == {"role": "developer", "content": "Be kind"}
    assert asked.tools[0]["function"]["parameters"]["required"] == ["town"]
    assert asked.tool_choice == {"type": "function", "function": {"name": "weather"}}
    assert asked.response_format == {"type": "json_schema", "json_schema": schema}
    assert (asked.parallel_tool_calls, asked.max_tokens, asked.temperature, asked.top_p) == (False, 9, 0.0, 0.5)
    assert (asked.stop, asked.logprobs, asked.top_logprobs) == (["\n"], True, 2)
    assert asked.weights.folder.name == "tiny"


def test_allowed_tools_are_the_only_ones_that_the_engine_gets(client: OpenAI, engine: ScriptedEngine) -> None:
    other: Any = {"type": "function", "function": {"name": "other"}}
    choice: Any = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [other]}}
    client.chat.completions.create(model="tiny", messages=HELLO, tools=[WEATHER, other], tool_choice=choice)
    asked = engine.requests[0]
    assert [tool["function"]["name"] for tool in asked.tools] == ["other"]
    assert asked.tool_choice == "required"


def test_several_choices_have_seeds_of_their_own_that_the_seed_decides(client: OpenAI, engine: ScriptedEngine) -> None:
    engine.plays(lambda request: f"seed {request.seed}")
    first = client.chat.completions.create(model="tiny", messages=HELLO, n=3, seed=5)
    again = client.chat.completions.create(model="tiny", messages=HELLO, n=3, seed=5)
    one = client.chat.completions.create(model="tiny", messages=HELLO, seed=5)
    drawn = client.chat.completions.create(model="tiny", messages=HELLO)
    texts = [choice.message.content for choice in first.choices]
    assert [choice.index for choice in first.choices] == [0, 1, 2]
    assert len(set(texts)) == 3
    assert texts == [choice.message.content for choice in again.choices]
    assert one.choices[0].message.content == texts[0]
    assert drawn.choices[0].message.content not in texts
    assert first.system_fingerprint == again.system_fingerprint
    # The prompt counts once; two words and a stop token for each of three.
    assert first.usage
    assert (first.usage.prompt_tokens, first.usage.completion_tokens) == (7, 9)


def test_log_probs_of_the_text(client: OpenAI, engine: ScriptedEngine) -> None:
    engine.plays("Grüß Gott")
    answer = client.chat.completions.create(model="tiny", messages=HELLO, logprobs=True, top_logprobs=2)
    logprobs = answer.choices[0].logprobs
    assert logprobs
    assert logprobs.content
    assert [token.token for token in logprobs.content] == ["Grüß ", "Gott"]
    assert logprobs.content[0].bytes == list("Grüß ".encode())
    assert len(logprobs.content[0].top_logprobs) == 2
    assert logprobs.content[0].logprob == -0.5


def test_a_token_limit_says_so(client: OpenAI, engine: ScriptedEngine) -> None:
    engine.plays("one two three")
    for limit in ({"max_tokens": 2}, {"max_completion_tokens": 2}):
        answer = client.chat.completions.create(model="tiny", messages=HELLO, **limit)  # type: ignore[call-overload]
        assert answer.choices[0].finish_reason == "length"
        assert answer.choices[0].message.content == "one two "


class Forecast(BaseModel):
    town: str
    rain_mm: float


def test_parse_gives_a_pydantic_model_and_parsed_arguments(client: OpenAI, engine: ScriptedEngine) -> None:
    engine.plays('{"town": "Ulm", "rain_mm": 2.5}', call_reply(("weather", '{"town": "Ulm"}')))
    parsed = client.chat.completions.parse(model="tiny", messages=HELLO, response_format=Forecast)
    assert parsed.choices[0].message.parsed == Forecast(town="Ulm", rain_mm=2.5)
    asked = engine.requests[0].response_format
    assert asked
    assert asked["json_schema"]["strict"] is True
    assert asked["json_schema"]["schema"]["required"] == ["town", "rain_mm"]
    strict: Any = {"type": "function", "function": {**WEATHER["function"], "strict": True}}
    called = client.chat.completions.parse(model="tiny", messages=HELLO, tools=[strict])
    calls = called.choices[0].message.tool_calls
    assert calls
    assert calls[0].function.parsed_arguments == {"town": "Ulm"}
    assert engine.requests[1].tools[0]["function"]["strict"] is True


IMAGE: Any = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]}]
CALLED: Any = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
OPEN_CALL: Any = [*HELLO, {"role": "assistant", "content": None, "tool_calls": [CALLED]}]


@pytest.mark.parametrize(
    ("asked", "param", "words"),
    [
        ({"frequency_penalty": 0.5}, "frequency_penalty", "leave it at 0"),
        ({"presence_penalty": -1}, "presence_penalty", "leave it at 0"),
        ({"logit_bias": {"1": 5}}, "logit_bias", "response_format"),
        ({"audio": {"voice": "alloy", "format": "wav"}}, "audio", "answers are text"),
        ({"modalities": ["text", "audio"]}, "modalities", "answers are text"),
        ({"store": True}, "store", "not kept"),
        ({"service_tier": "flex"}, "service_tier", "one tier"),
        ({"reasoning_effort": "high"}, "reasoning_effort", "leave it out"),
        ({"functions": [{"name": "f"}]}, "functions", "`tools`"),
        ({"web_search_options": {}}, "web_search_options", "search tool"),
        ({"temperature": 2.1}, "temperature", "less than or equal to 2"),
        ({"top_p": -0.1}, "top_p", "greater than or equal to 0"),
        ({"n": 0}, "n", "greater than or equal to 1"),
        ({"n": 129}, "n", "128"),
        ({"n": "2"}, "n", "integer"),
        ({"seed": 2**63}, "seed", "less than"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "at most 4"),
        ({"stop": [""]}, "stop.0", "1 character"),
        ({"top_logprobs": 3}, "top_logprobs", "needs `logprobs`"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "20"),
        ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens", "older name"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "needs `stream`"),
        ({"tool_choice": "required"}, "tool_choice", "give tools"),
        ({"tool_choice": {"type": "function", "function": {"name": "no"}}}, "tool_choice", "no tool 'no'"),
        ({"tool_choice": "always"}, "tool_choice", '"required"'),
        ({"tools": [{"type": "custom", "custom": {"name": "c"}}]}, "tools.0.type", "'function'"),
        ({"tools": [WEATHER, WEATHER]}, "tools", "two tools are called 'weather'"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0.function.name", "letters"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "needs it"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "'json_object'"),
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": IMAGE}, "messages.0.content", "text only"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role", "'assistant'"),
        ({"messages": [{"role": "user"}]}, "messages.0", "no `content`"),
        ({"messages": OPEN_CALL}, "messages", "'c1' is not answered"),
        ({"messages": [*HELLO, {"role": "tool", "content": "x", "tool_call_id": "c9"}]}, "messages", "'c9'"),
        ({"colour": "blue"}, "colour", "unknown"),
    ],
)
def test_what_cannot_take_effect_is_refused_with_its_field(
    url: str, engine: ScriptedEngine, asked: dict[str, Any], param: str, words: str
) -> None:
    body = {"model": "tiny", "messages": HELLO, **asked}
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, headers=KEY)
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert error["param"] == param
    assert words in error["message"]
    assert error["type"] == "invalid_request_error"
    assert not engine.requests


def test_what_asks_for_nothing_is_taken(client: OpenAI, engine: ScriptedEngine) -> None:
    answer = client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "Hello", "name": "ada"}],
        user="u1",
        safety_identifier="s",
        metadata={"a": "b"},
        store=False,
        service_tier="auto",
        frequency_penalty=0,
        presence_penalty=0.0,
        logit_bias={},
        modalities=["text"],
        verbosity="medium",
        prompt_cache_key="k",
        response_format={"type": "text"},
        stop=None,
        seed=None,
    )
    assert answer.choices[0].message.content == "Hi."
    assert engine.requests[0].stop == ()


def test_every_field_of_the_request_is_explained() -> None:
    page = (ROOT / "docs" / "chat-api.md").read_text()
    rows = set(re.findall(r"^\| `(\w+)`", page.split("## Responses")[0], flags=re.MULTILINE))
    assert set(ChatBody.model_fields) == rows


def test_unknown_models_are_404(client: OpenAI, engine: ScriptedEngine) -> None:
    for name in ("gpt-9", "ft:tiny:local:x:abcdefgh", "ft:broken", "../../etc/passwd", "tiny/../tiny", "a" * 500):
        with pytest.raises(openai.NotFoundError) as caught:
            client.chat.completions.create(model=name, messages=HELLO)
        assert caught.value.code == "model_not_found"
        assert caught.value.param == "model"
    assert not engine.requests


def test_an_alias_means_its_model_and_answers_under_its_own_name(client: OpenAI, engine: ScriptedEngine) -> None:
    for name in ("o4-mini", "o4-mini-2025-04-16"):
        assert client.chat.completions.create(model=name, messages=HELLO).model == name
        assert engine.requests[-1].weights.folder.name == "tiny"


def test_a_context_that_is_too_long(client: OpenAI, engine: ScriptedEngine) -> None:
    engine.plays([UserError("9 tokens, at most 8; shorten it", param="messages", code="context_length_exceeded")])
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="tiny", messages=HELLO)
    assert caught.value.code == "context_length_exceeded"
    assert caught.value.param == "messages"


def test_an_engine_that_fails_is_503_and_the_next_request_is_answered(client: OpenAI, engine: ScriptedEngine) -> None:
    engine.plays([Started(prompt_tokens=3), EngineFault("its process was killed at /secret/place")], "Again.")
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model="tiny", messages=HELLO)
    assert caught.value.status_code == 503
    assert caught.value.response.headers["retry-after"] == "2"
    assert "secret" not in caught.value.message
    assert client.chat.completions.create(model="tiny", messages=HELLO).choices[0].message.content == "Again."


def test_the_sdk_tries_again_by_itself(url: str, engine: ScriptedEngine) -> None:
    engine.plays([EngineFault("gone")], "Again.")
    with OpenAI(base_url=f"{url}/v1", api_key="sk-none", max_retries=2) as client:
        assert client.chat.completions.create(model="tiny", messages=HELLO).choices[0].message.content == "Again."


def test_one_failed_choice_ends_the_others(client: OpenAI, engine: ScriptedEngine) -> None:
    def play(request: ChatRequest) -> Any:
        return [EngineFault("gone")] if len(engine.requests) == 2 else [Started(prompt_tokens=3), 60.0]

    engine.plays(play)
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model="tiny", messages=HELLO, n=3)
    assert caught.value.status_code == 503
    assert engine.n_open == 0


def test_a_client_that_leaves_frees_its_place(url: str, engine: ScriptedEngine) -> None:
    engine.plays([Started(prompt_tokens=3), 60.0])
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{url}/v1/chat/completions", json={"model": "tiny", "messages": HELLO}, headers=KEY, timeout=0.3)
    deadline = time.monotonic() + 5
    while engine.n_open and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (len(engine.requests), engine.n_open) == (1, 0)


def test_requests_are_played_side_by_side(client: OpenAI, engine: ScriptedEngine) -> None:
    engine.plays(lambda request: [Started(prompt_tokens=3), 0.3, *call_reply()[1:]])
    threads = [
        threading.Thread(target=client.chat.completions.create, kwargs={"model": "tiny", "messages": HELLO})
        for _ in range(8)
    ]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - began < 2.0  # one after another they would take 8 × 0.3 s
    assert len(engine.requests) == 8
