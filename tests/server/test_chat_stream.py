"""Streamed chat completions: chunk by chunk, and as the SDK puts them together."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from agentrft.errors import EngineFault, UserError
from agentrft.runtime.serving.wire import ChatRequest, Started, TextDelta
from agentrft.testing.serving import ScriptedEngine, call_reply, text_reply

KEY = {"Authorization": "Bearer sk-none"}
HELLO: Any = [{"role": "user", "content": "Hello"}]
WEATHER: Any = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


def lines_of(url: str, **asked: Any) -> list[str]:
    """The raw lines of a stream, empty ones left out."""
    body = {"model": "tiny", "messages": HELLO, "stream": True, **asked}
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, headers=KEY)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    return [line for line in answer.text.split("\n") if line]


def chunks_of(lines: list[str]) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix("data: ")) for line in lines if line != "data: [DONE]"]


def test_the_wire_is_openais(url: str, engine: ScriptedEngine) -> None:
    engine.plays("Grüß Gott")
    lines = lines_of(url, stream_options={"include_usage": True})
    chunks = chunks_of(lines)
    assert lines[-1] == "data: [DONE]"
    assert all(line.startswith("data: {") for line in lines[:-1])
    assert "Grüß " in lines[1]  # real characters, not escapes
    head = {key: chunks[0][key] for key in ("id", "created", "model", "service_tier", "system_fingerprint")}
    assert all({key: chunk[key] for key in head} == head for chunk in chunks)
    assert all(chunk["object"] == "chat.completion.chunk" for chunk in chunks)

    def choice(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}

    assert [chunk["choices"] for chunk in chunks] == [
        [choice({"role": "assistant", "content": "", "refusal": None})],
        [choice({"content": "Grüß "})],
        [choice({"content": "Gott"})],
        [choice({}, "stop")],
        [],
    ]
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * 4
    assert chunks[-1]["usage"]["completion_tokens"] == 3
    assert chunks[-1]["usage"]["prompt_tokens_details"]["cached_tokens"] == 3


def test_without_include_usage_no_chunk_speaks_of_it(url: str, engine: ScriptedEngine) -> None:
    engine.plays("Hi.")
    chunks = chunks_of(lines_of(url))
    assert not any("usage" in chunk for chunk in chunks)
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_calls_come_as_id_and_name_and_then_arguments(url: str, engine: ScriptedEngine) -> None:
    engine.plays(call_reply(("weather", '{"town": "Ulm"}'), ("weather", "{}"), text="Let me look."))
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks_of(lines_of(url, tools=[WEATHER]))]

    def named(index: int) -> dict[str, Any]:
        function = {"name": "weather", "arguments": ""}
        return {"tool_calls": [{"index": index, "id": f"call_{index}", "type": "function", "function": function}]}

    assert deltas == [
        {"role": "assistant", "content": None, "refusal": None},
        {"content": "Let me look."},
        named(0),
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"town": "Ulm"}'}}]},
        named(1),
        {"tool_calls": [{"index": 1, "function": {"arguments": "{}"}}]},
        {},
    ]


def test_the_sdk_puts_text_together(client: OpenAI, engine: ScriptedEngine) -> None:
    engine.plays("one two three")
    asked: Any = {"model": "tiny", "messages": HELLO, "logprobs": True, "stream_options": {"include_usage": True}}
    with client.chat.completions.stream(**asked) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert kinds.count("content.delta") >= 3
    assert "content.done" in kinds
    assert final.choices[0].message.content == "one two three"
    assert final.choices[0].finish_reason == "stop"
    assert final.choices[0].logprobs
    assert len(final.choices[0].logprobs.content or []) == 3
    assert final.usage
    assert final.usage.total_tokens == 11  # 7 + three words + the stop token


def test_the_sdk_puts_calls_together(client: OpenAI, engine: ScriptedEngine) -> None:
    engine.plays(call_reply(("weather", '{"town": "Ulm"}'), ("weather", '{"town": "Köln"}')))
    strict: Any = {"type": "function", "function": {**WEATHER["function"], "strict": True}}
    with client.chat.completions.stream(model="tiny", messages=HELLO, tools=[strict]) as stream:
        done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
        message = stream.get_final_completion().choices[0].message
    assert [event.parsed_arguments for event in done] == [{"town": "Ulm"}, {"town": "Köln"}]
    assert message.content is None
    assert [call.id for call in message.tool_calls or ()] == ["call_0", "call_1"]


class Forecast(BaseModel):
    town: str


def test_the_sdk_parses_a_form_while_it_is_filled_in(client: OpenAI, engine: ScriptedEngine) -> None:
    engine.plays('{"town": "Ulm"}')
    with client.chat.completions.stream(model="tiny", messages=HELLO, response_format=Forecast) as stream:
        for _ in stream:
            """To the end."""
        assert stream.get_final_completion().choices[0].message.parsed == Forecast(town="Ulm")


def test_several_choices_at_once(client: OpenAI, engine: ScriptedEngine) -> None:
    """Whichever is first to speak, the SDK has to get the choices in order."""

    def play(request: ChatRequest) -> Any:
        place = len(engine.requests)
        started, *rest = text_reply(request, f"reply of {place}")
        return [started, 0.2 / place, *rest]

    engine.requests.clear()
    engine.plays(play)
    with client.chat.completions.stream(model="tiny", messages=HELLO, n=3) as stream:
        for _ in stream:
            """To the end."""
        final = stream.get_final_completion()
    assert [choice.index for choice in final.choices] == [0, 1, 2]
    assert sorted(choice.message.content or "" for choice in final.choices) == [f"reply of {k}" for k in (1, 2, 3)]
    assert [choice.finish_reason for choice in final.choices] == ["stop"] * 3


def test_tokens_arrive_as_they_are_made(client: OpenAI, engine: ScriptedEngine) -> None:
    def play(request: ChatRequest) -> Any:
        started, first, *rest = text_reply(request, "one two")
        return [started, first, 0.5, *rest]

    engine.plays(play)
    began = time.monotonic()
    stream = client.chat.completions.create(model="tiny", messages=HELLO, stream=True)
    times = [time.monotonic() - began for chunk in stream if chunk.choices[0].delta.content]
    assert times[0] < 0.4 < times[1]


def test_what_fails_before_the_first_token_has_its_status(client: OpenAI, engine: ScriptedEngine) -> None:
    engine.plays([UserError("too long", param="messages", code="context_length_exceeded")])
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="tiny", messages=HELLO, stream=True)
    assert caught.value.code == "context_length_exceeded"
    engine.plays([EngineFault("gone")])
    with pytest.raises(openai.InternalServerError) as failed:
        client.chat.completions.create(model="tiny", messages=HELLO, stream=True)
    assert failed.value.status_code == 503


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (EngineFault("killed in /secret"), "unavailable", "try again"),
        (ValueError("bug"), "server_error", "req_"),
    ],
)
def test_what_fails_later_is_raised_from_the_stream(
    client: OpenAI, engine: ScriptedEngine, error: Exception, code: str, words: str
) -> None:
    engine.plays([Started(prompt_tokens=3), TextDelta(text="half a "), error])
    stream = client.chat.completions.create(model="tiny", messages=HELLO, stream=True)
    assert [next(stream).choices[0].delta.content for _ in range(2)] == ["", "half a "]
    with pytest.raises(openai.APIError) as caught:
        next(stream)
    assert caught.value.code == code
    assert words in caught.value.message
    assert "secret" not in caught.value.message


def test_a_client_that_leaves_frees_its_place(client: OpenAI, engine: ScriptedEngine) -> None:
    engine.plays([Started(prompt_tokens=3), *[TextDelta(text="word "), 0.01] * 10_000])
    stream = client.chat.completions.create(model="tiny", messages=HELLO, stream=True, n=2)
    next(iter(stream))
    assert engine.n_open == 2
    stream.close()
    deadline = time.monotonic() + 5
    while engine.n_open and time.monotonic() < deadline:
        time.sleep(0.01)
    assert engine.n_open == 0


async def test_fifty_streams_at_once(url: str, engine: ScriptedEngine) -> None:
    engine.plays(lambda request: [part for step in text_reply(request, "a b c d e") for part in (step, 0.01)])

    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="sk-none", max_retries=0) as client:

        async def read() -> str:
            stream = await client.chat.completions.create(model="tiny", messages=HELLO, stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        async with asyncio.TaskGroup() as tasks:
            reading = [tasks.create_task(read()) for _ in range(50)]
    assert {task.result() for task in reading} == {"a b c d e"}
    assert engine.n_open == 0
