"""Kept responses through the real SDK: reading and deleting them, and which are not kept."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from weather_tool import WEATHER

from agentrft.errors import EngineFault
from agentrft.runtime.serving.wire import Started, TextDelta
from agentrft.server.state import ServerState
from agentrft.testing.serving import ScriptedEngine, call_reply

IsUnknown = Callable[[OpenAI, str], bool]
KEY = {"Authorization": "Bearer sk-none"}


def test_a_kept_response_is_the_answer(url: str, client: OpenAI, engine: ScriptedEngine) -> None:
    engine.plays(call_reply(("weather", '{"town": "Köln"}'), text="I look."))
    raw = client.responses.with_raw_response.create(
        model="tiny",
        input="Weather?",
        tools=[WEATHER],
        metadata={"a": "b"},
        include=["message.output_text.logprobs"],
        top_logprobs=1,
    )
    kept = client.responses.with_raw_response.retrieve(raw.parse().id)
    assert json.loads(kept.text) == json.loads(raw.text)
    answer = httpx.get(f"{url}/v1/responses/{raw.parse().id}?stream=true", headers=KEY)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "stream")


def test_input_items_are_what_it_was_made_from(client: OpenAI, engine: ScriptedEngine) -> None:
    engine.plays(call_reply(("weather", '{"town": "Ulm"}')), "Rain.", "Bye.")
    asked: Any = [
        {"role": "system", "content": "You know the weather."},
        {"role": "assistant", "content": [{"type": "output_text", "text": "Hi."}]},
        {"role": "user", "content": [{"type": "input_text", "text": "Wea"}, {"type": "input_text", "text": "ther?"}]},
        {"type": "reasoning", "id": "rs_1", "summary": []},
    ]
    first = client.responses.create(model="tiny", input=asked, tools=[WEATHER])
    result: Any = [{"type": "function_call_output", "call_id": "call_0", "output": "rain"}]
    second = client.responses.create(model="tiny", input=result, tools=[WEATHER], previous_response_id=first.id)
    items = client.responses.input_items.list(second.id, order="asc").data
    assert [item.to_dict() for item in items] == [
        {
            "id": items[0].id,
            "type": "message",
            "status": "completed",
            "role": "system",
            "content": [{"type": "input_text", "text": "You know the weather."}],
        },
        {
            "id": items[1].id,
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Hi.", "annotations": []}],
        },
        {
            "id": items[2].id,
            "type": "message",
            "status": "completed",
            "role": "user",
            "content": [{"type": "input_text", "text": "Weather?"}],
        },
        first.output[0].to_dict(),
        {
            "id": items[4].id,
            "type": "function_call_output",
            "status": "completed",
            "call_id": "call_0",
            "output": "rain",
        },
    ]
    assert len(client.responses.input_items.list(first.id).data) == 3
    # Whole items can be sent on as they are.
    client.responses.create(model="tiny", input=[*items, *second.output], tools=[WEATHER])  # type: ignore[list-item]
    assert [message["role"] for message in engine.requests[2].messages] == [
        *["system", "assistant", "user", "assistant", "tool"],
        "assistant",
    ]


def test_input_items_come_in_pages(url: str, client: OpenAI, engine: ScriptedEngine) -> None:
    asked: Any = [{"role": "user", "content": str(n)} for n in range(45)]
    response_id = client.responses.create(model="tiny", input=asked).id

    def texts(found: Any) -> list[int]:
        return [int(item.content[0].text) for item in found]

    listed = client.responses.input_items.list
    assert texts(listed(response_id).data) == list(range(44, 24, -1))
    assert texts(listed(response_id)) == list(range(44, -1, -1))
    assert texts(listed(response_id, order="asc", limit=7)) == list(range(45))
    page = listed(response_id, order="asc", limit=2)
    assert texts(listed(response_id, order="asc", limit=2, after=page.data[-1].id).data) == [2, 3]
    raw = httpx.get(f"{url}/v1/responses/{response_id}/input_items?limit=100", headers=KEY).json()
    assert (raw["object"], raw["has_more"], len(raw["data"])) == ("list", False, 45)
    assert (raw["first_id"], raw["last_id"]) == (raw["data"][0]["id"], raw["data"][-1]["id"])
    assert len({item["id"] for item in raw["data"]}) == 45
    for query, param in (("limit=101", "limit"), ("order=up", "order"), ("after=msg_x", "after")):
        answer = httpx.get(f"{url}/v1/responses/{response_id}/input_items?{query}", headers=KEY)
        assert answer.status_code in (400, 404)
        assert answer.json()["error"]["param"] == param


def test_a_deleted_response_is_gone_and_later_ones_stay(
    url: str, client: OpenAI, engine: ScriptedEngine, is_unknown: IsUnknown
) -> None:
    first = client.responses.create(model="tiny", input="1?")
    second = client.responses.create(model="tiny", input="2?", previous_response_id=first.id)
    third = client.responses.create(model="tiny", input="3?", previous_response_id=second.id)
    assert client.responses.delete(first.id) is None
    assert is_unknown(client, first.id)
    client.responses.create(model="tiny", input="On", previous_response_id=second.id)
    assert [message["content"] for message in engine.requests[-1].messages] == ["1?", "Hi.", "2?", "Hi.", "On"]
    answer = httpx.delete(f"{url}/v1/responses/{third.id}", headers=KEY)
    assert (answer.status_code, answer.json()) == (200, {"id": third.id, "object": "response", "deleted": True})
    assert is_unknown(client, third.id)


# What is not kept


def test_what_is_not_to_be_kept_is_not(
    client: OpenAI, state: ServerState, engine: ScriptedEngine, is_unknown: IsUnknown
) -> None:
    first = client.responses.create(model="tiny", input="1?")
    second = client.responses.create(model="tiny", input="2?", previous_response_id=first.id, store=False)
    assert second.to_dict()["store"] is False
    assert [message["content"] for message in engine.requests[1].messages] == ["1?", "Hi.", "2?"]
    assert is_unknown(client, second.id)
    with client.responses.stream(model="tiny", input="3?", store=False) as stream:
        assert is_unknown(client, stream.get_final_response().id)


def test_what_failed_is_not_kept(client: OpenAI, engine: ScriptedEngine, is_unknown: IsUnknown) -> None:
    engine.plays([Started(prompt_tokens=3), TextDelta(text="half a "), EngineFault("killed")], "Hi.")
    events = list(client.responses.create(model="tiny", input="Hello", stream=True))
    assert events[-1].type == "response.failed"
    assert is_unknown(client, events[-1].response.id)


def test_what_its_client_left_is_not_kept(client: OpenAI, engine: ScriptedEngine, is_unknown: IsUnknown) -> None:
    engine.plays([Started(prompt_tokens=3), *[TextDelta(text="word "), 0.01] * 10_000])
    stream = client.responses.create(model="tiny", input="Hello", stream=True)
    response_id = next(iter(stream)).response.id  # type: ignore[union-attr]
    stream.close()
    deadline = time.monotonic() + 5
    while engine.n_open and time.monotonic() < deadline:
        time.sleep(0.01)
    engine.plays("Hi.")
    assert is_unknown(client, response_id)


def test_what_cannot_be_kept_has_failed(client: OpenAI, state: ServerState, engine: ScriptedEngine) -> None:
    database = state.store.database.engine

    def refuse(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("INSERT INTO responses"):
            raise OperationalError(statement, parameters, Exception("database or disk is full"))

    event.listen(database, "before_cursor_execute", refuse)
    try:
        with pytest.raises(openai.InternalServerError) as caught:
            client.responses.create(model="tiny", input="Hello")
        assert (caught.value.status_code, caught.value.code) == (503, "unavailable")
        last = list(client.responses.create(model="tiny", input="Hello", stream=True))[-1]
        assert last.type == "response.failed"
        assert (last.response.status, last.response.completed_at) == ("failed", None)
        assert client.responses.create(model="tiny", input="Hello", store=False).status == "completed"
    finally:
        event.remove(database, "before_cursor_execute", refuse)


@pytest.mark.parametrize("response_id", ["resp_1", "resp_%00", "..%2F..%2Fstore.db", "x" * 2000, "%F0%9F%8E%89"])
def test_odd_ids_are_unknown(url: str, engine: ScriptedEngine, response_id: str) -> None:
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/input_items")):
        answer = httpx.request(method, f"{url}/v1/responses/{response_id}{path}", headers=KEY)
        assert (answer.status_code, answer.json()["error"]["type"]) == (404, "invalid_request_error")


def test_a_nul_in_an_id_is_no_fault(url: str, engine: ScriptedEngine) -> None:
    asked = {"model": "tiny", "input": "x", "previous_response_id": "resp_\x00"}
    answer = httpx.post(f"{url}/v1/responses", json=asked, headers=KEY)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "previous_response_not_found")
