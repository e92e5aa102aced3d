"""Responses that go on from a kept one: what the model is asked, over restarts, by whom, how long, and how much."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI
from weather_tool import WEATHER

from agentrft.runtime.serving.wire import ChatRequest
from agentrft.server.chat_wire import MOST_MESSAGES
from agentrft.server.config import Limits, ServerConfig
from agentrft.server.engine import Engine
from agentrft.testing import FakeClock
from agentrft.testing.serving import ScriptedEngine, call_reply

IsUnknown = Callable[[OpenAI, str], bool]


def without_seed(request: ChatRequest) -> ChatRequest:
    return replace(request, seed=None)


def test_going_on_asks_what_the_whole_conversation_would(client: OpenAI, engine: ScriptedEngine) -> None:
    engine.plays("One.", "Two.", "Three.")
    first = client.responses.create(model="tiny", input="1?", instructions="Be brief.", tools=[WEATHER])
    second = client.responses.create(model="tiny", input="2?", previous_response_id=first.id)
    again: Any = [{"role": "developer", "content": "Now count."}, {"role": "user", "content": "3?"}]
    third = client.responses.create(model="tiny", input=again, previous_response_id=second.id, instructions="Louder.")
    assert (first.previous_response_id, second.previous_response_id) == (None, first.id)
    assert (third.previous_response_id, third.instructions, third.tools) == (second.id, "Louder.", [])
    assert third.to_dict()["store"] is True
    # Instructions and tools of the first one count for it alone.
    assert engine.requests[1].tools == []
    assert [message["content"] for message in engine.requests[1].messages] == ["1?", "One.", "2?"]
    items: Any = [{"role": "user", "content": "1?"}, *first.output, {"role": "user", "content": "2?"}, *second.output]
    client.responses.create(model="tiny", input=[*items, *again], instructions="Louder.")
    assert without_seed(engine.requests[2]) == without_seed(engine.requests[3])


def test_a_tool_loop_sends_only_results(client: OpenAI, engine: ScriptedEngine) -> None:
    two = call_reply(("weather", '{"town": "Köln"}'), ("weather", '{"town": "Ulm"}'), text="I look.")
    engine.plays(two, call_reply(("weather", '{"town": "Bonn"}')), "Rain everywhere.")
    answer = client.responses.create(model="tiny", input="Weather?", tools=[WEATHER])
    items: Any = [{"role": "user", "content": "Weather?"}]
    while calls := [item for item in answer.output if item.type == "function_call"]:
        results: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "rain"} for call in calls]
        items += [*answer.output, *results]
        answer = client.responses.create(model="tiny", input=results, tools=[WEATHER], previous_response_id=answer.id)
    assert answer.output_text == "Rain everywhere."
    roles = [message["role"] for message in engine.requests[-1].messages]
    assert roles == ["user", "assistant", "tool", "tool", "assistant", "tool"]
    client.responses.create(model="tiny", input=items, tools=[WEATHER])
    assert without_seed(engine.requests[2]) == without_seed(engine.requests[3])


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ([{"role": "user", "content": "Well?"}], "comes before an answer to the call 'call_0'"),
        ([{"type": "function_call_output", "call_id": "other", "output": "x"}], "answers the call 'other'"),
        ([{"type": "reasoning", "id": "r", "summary": []}], "the call 'call_0' is not answered"),
    ],
)
def test_calls_have_to_be_answered(client: OpenAI, engine: ScriptedEngine, items: Any, words: str) -> None:
    engine.plays(call_reply(("weather", "{}")))
    first = client.responses.create(model="tiny", input="Weather?", tools=[WEATHER])
    with pytest.raises(openai.BadRequestError, match=words) as caught:
        client.responses.create(model="tiny", input=items, previous_response_id=first.id)
    assert (caught.value.code, caught.value.param) == ("invalid_value", "input")
    assert len(engine.requests) == 1


def test_several_go_on_from_one(client: OpenAI, engine: ScriptedEngine) -> None:
    first = client.responses.create(model="tiny", input="1?")
    for question in ("2?", "3?"):
        client.responses.create(model="o4-mini", input=question, previous_response_id=first.id)
    assert [[message["content"] for message in request.messages] for request in engine.requests[1:]] == [
        ["1?", "Hi.", "2?"],
        ["1?", "Hi.", "3?"],
    ]


def test_a_stream_is_kept_and_goes_on(client: OpenAI, engine: ScriptedEngine) -> None:
    engine.plays(call_reply(("weather", '{"town": "Ulm"}'), text="I look."), "Rain there.")
    with client.responses.stream(model="tiny", input="Hello", tools=[WEATHER]) as stream:
        first = stream.get_final_response()
    assert client.responses.retrieve(first.id).output[1].arguments == '{"town": "Ulm"}'  # type: ignore[union-attr]
    result: Any = [{"type": "function_call_output", "call_id": "call_0", "output": "rain"}]
    asked: Any = {"model": "tiny", "input": result, "tools": [WEATHER], "previous_response_id": first.id}
    events: Any = list(client.responses.create(**asked, stream=True))
    assert events[0].response.previous_response_id == first.id
    assert client.responses.retrieve(events[0].response.id) == events[-1].response
    assert [message["role"] for message in engine.requests[1].messages] == ["user", "assistant", "tool"]


def test_what_a_limit_cut_off_goes_on(client: OpenAI, engine: ScriptedEngine) -> None:
    engine.plays("one two three", "Done.")
    first = client.responses.create(model="tiny", input="Count.", max_output_tokens=2)
    assert client.responses.retrieve(first.id).status == "incomplete"
    client.responses.create(model="tiny", input="On.", previous_response_id=first.id)
    assert [message["content"] for message in engine.requests[1].messages] == ["Count.", "one two ", "On."]


# Restarts, projects, age, limits


@pytest.fixture
def tiny(home: Path, live: Callable[..., Any]) -> Callable[..., Any]:
    """tiny(ServerConfig(…)): start a server that plays `tiny` by a script; its engine is `server.played`."""
    folder = home / "models" / "tiny"
    folder.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / name).write_text("{}")

    def start(config: ServerConfig | None = None, **options: Any) -> Any:
        server = live(config, **options)
        server.played = ScriptedEngine("Hi.")
        server.state.engine = Engine(server.played)
        return server

    return start


def test_a_conversation_outlives_the_server(tiny: Callable[..., Any]) -> None:
    server = tiny()
    client = server.openai()
    first = client.responses.create(model="tiny", input="1?")
    second = client.responses.create(model="tiny", input="2?", previous_response_id=first.id)
    server.stop()
    server = tiny()
    client = server.openai()
    assert client.responses.retrieve(second.id) == second
    client.responses.create(model="tiny", input="3?", previous_response_id=second.id)
    contents = [message["content"] for message in server.played.requests[0].messages]
    assert contents == ["1?", "Hi.", "2?", "Hi.", "3?"]


def test_another_projects_response_is_unknown(tiny: Callable[..., Any], is_unknown: IsUnknown) -> None:
    server = tiny()
    mine, theirs = server.openai(server.key("proj_a")), server.openai(server.key("proj_b"))
    answer = mine.responses.create(model="tiny", input="1?")
    assert is_unknown(theirs, answer.id)
    colleague = server.openai(server.key("proj_a", "models:read"))
    assert colleague.responses.retrieve(answer.id) == answer
    assert colleague.responses.delete(answer.id) is None
    assert is_unknown(mine, answer.id)


def test_a_key_needs_the_scope(tiny: Callable[..., Any]) -> None:
    server = tiny()
    answer = server.openai(server.key("proj_a")).responses.create(model="tiny", input="1?")
    stranger = server.openai(server.key("proj_a", "files:read")).responses
    for ask in (stranger.retrieve, stranger.delete, stranger.input_items.list):
        with pytest.raises(openai.PermissionDeniedError):
            ask(answer.id)


def test_responses_are_forgotten_when_they_are_old(tiny: Callable[..., Any], is_unknown: IsUnknown) -> None:
    clock = FakeClock()
    server = tiny(
        ServerConfig(concurrency=0, responses_days=2),
        prepare=lambda state: setattr(state.store.database, "clock", clock),
    )
    client = server.openai()
    first = client.responses.create(model="tiny", input="1?")
    clock.advance(2 * 86_400 - 1)
    second = client.responses.create(model="tiny", input="2?", previous_response_id=first.id)
    clock.advance(1)
    assert is_unknown(client, first.id)
    assert server.state.responses.sweep() == 0
    assert len(client.responses.input_items.list(second.id).data) == 3
    clock.advance(2 * 86_400)
    assert is_unknown(client, second.id)
    assert server.state.responses.sweep() == 2


def test_a_conversation_is_as_long_as_a_request_may_be(tiny: Callable[..., Any]) -> None:
    server = tiny(ServerConfig(concurrency=0, limits=Limits(json_bytes=10_000)))
    client = server.openai()
    first = client.responses.create(model="tiny", input="x" * 6000)
    with pytest.raises(openai.APIStatusError, match="10000 at most; begin another conversation") as caught:
        client.responses.create(model="tiny", input="x" * 6000, previous_response_id=first.id)
    assert (caught.value.status_code, caught.value.code) == (413, "request_too_large")
    client.responses.create(model="tiny", input="x" * 1000, previous_response_id=first.id)


def test_a_conversation_has_as_many_items_as_a_request(tiny: Callable[..., Any]) -> None:
    client = tiny().openai()
    asked: Any = [{"role": "user", "content": "x"}] * (MOST_MESSAGES - 2)
    first = client.responses.create(model="tiny", input=asked)
    second = client.responses.create(model="tiny", input="y", previous_response_id=first.id)  # exactly as many
    with pytest.raises(openai.BadRequestError, match=f"{MOST_MESSAGES + 2} items together") as caught:
        client.responses.create(model="tiny", input="z", previous_response_id=second.id)
    assert (caught.value.code, caught.value.param) == ("invalid_value", "input")
