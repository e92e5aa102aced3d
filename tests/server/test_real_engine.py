"""Chat through the whole stack: the SDK, the server, an engine process, and a model; a tool call streamed and not."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI

from agentrft.runtime.serving.client import EngineClient
from agentrft.server.app import create_app
from agentrft.server.config import ServerConfig
from agentrft.server.engine import Engine
from agentrft.server.state import ServerState, open_state
from agentrft.store import open_store
from agentrft.testing.serving import listening

QUESTION: Any = [
    {"role": "system", "content": "You look up the weather."},
    {"role": "user", "content": "What is the weather in Ulm?"},
]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a town",
        "parameters": {
            "type": "object",
            "properties": {"town": {"type": "string", "enum": ["Ulm", "Köln"]}},
            "required": ["town"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}
ASKED: Any = {
    "messages": QUESTION,
    "tools": [WEATHER],
    "tool_choice": {"type": "function", "function": {"name": "weather"}},
    "parallel_tool_calls": False,
    "seed": 1,
}


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerState]:
    """A server's state with a random-weight model, `tiny`."""
    pytest.importorskip("torch")
    from chat_models import save_chat_model

    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AGENTRFT_HOME", str(home))
        save_chat_model("hermes", home / "models" / "tiny")
        state = open_state(ServerConfig(concurrency=0), store=open_store(home))
        yield state
        state.close()


@pytest.fixture(scope="module")
def client(state: ServerState) -> Iterator[OpenAI]:
    with (
        listening(create_app(state)) as url,
        OpenAI(base_url=f"{url}/v1", api_key="sk-none", max_retries=0, timeout=120) as client,
    ):
        # In float32 the last bits of a log-prob, which depend on what is in the cache, decide no token.
        state.engine = Engine(EngineClient(threads=1, dtype="float32"))
        yield client


def call_streamed(client: OpenAI, model: str) -> Any:
    with client.chat.completions.stream(**ASKED, model=model) as stream:
        for _ in stream:
            """To the end."""
        return stream.get_final_completion().choices[0]


def test_a_tiny_model_calls_streams_and_survives_its_engine(state: ServerState, client: OpenAI) -> None:
    engine = state.engine
    assert engine is not None
    assert not engine.is_running
    whole = client.chat.completions.create(**ASKED, model="tiny")
    assert engine.health().starts == 1
    message = whole.choices[0].message
    assert whole.choices[0].finish_reason == "tool_calls"
    assert message.tool_calls
    [call] = message.tool_calls
    assert json.loads(call.function.arguments)["town"] in ("Ulm", "Köln")  # type: ignore[union-attr]
    streamed = call_streamed(client, "tiny")
    assert streamed.finish_reason == "tool_calls"
    assert streamed.message.tool_calls[0].function.arguments == call.function.arguments  # type: ignore[union-attr]
    assert streamed.message.tool_calls[0].function.parsed_arguments["town"] in ("Ulm", "Köln")

    result = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
    answer: Any = {
        "model": "tiny",
        "messages": [*QUESTION, message, result],
        "tools": [WEATHER],
        "max_tokens": 8,
        "seed": 2,
    }
    chunks = list(client.chat.completions.create(**answer, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    again = client.chat.completions.create(**answer)
    assert text == again.choices[0].message.content
    assert again.usage
    assert chunks[-1].usage
    assert again.usage.completion_tokens == chunks[-1].usage.completion_tokens
    assert again.usage.prompt_tokens_details
    assert (again.usage.prompt_tokens_details.cached_tokens or 0) > 0  # the same prompt a moment before

    items: Any = [{"role": "user", "content": "Weather?"}]
    tool: Any = {"type": "function", **WEATHER["function"]}
    response = client.responses.create(
        model="tiny", input=items, tools=[tool], tool_choice="required", parallel_tool_calls=False
    )
    assert [item.type for item in response.output] == ["function_call"]

    assert engine.pid
    os.kill(engine.pid, signal.SIGKILL)
    # A request that comes while the process dies is 503, which the SDK tries again.
    again = client.with_options(max_retries=3).chat.completions.create(**answer)
    assert again.choices[0].message.content == text
    assert engine.health().starts == 2


def test_a_form_is_filled_in_and_log_probs_are_true(client: OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"rain": {"type": "boolean"}, "wind": {"enum": ["calm", "storm"]}},
        "required": ["rain", "wind"],
        "additionalProperties": False,
    }
    form: Any = {"type": "json_schema", "json_schema": {"name": "weather", "schema": schema, "strict": True}}
    answer = client.chat.completions.create(
        model="tiny", messages=QUESTION, response_format=form, n=3, seed=3, logprobs=True, top_logprobs=2
    )
    for choice in answer.choices:
        filled = json.loads(choice.message.content or "")
        assert set(filled) == {"rain", "wind"}
        assert filled["wind"] in ("calm", "storm")
        assert choice.logprobs
        tokens = choice.logprobs.content or []
        assert b"".join(bytes(token.bytes or []) for token in tokens).decode() == choice.message.content
        assert all(token.logprob <= 0 and len(token.top_logprobs) == 2 for token in tokens)
    long: Any = [{"role": "user", "content": "Ulm " * 20_000}]
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="tiny", messages=long)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_smollm2_answers_and_calls(client: OpenAI) -> None:
    """The real model, from the package that carries it: unpacked by the first request, in a process of its own."""
    client = client.with_options(timeout=600)
    assert "smollm2-135m-instruct" in [model.id for model in client.models.list()]
    model = "smollm2-135m-instruct"
    choice = call_streamed(client, model)
    assert choice.message.tool_calls[0].function.parsed_arguments["town"] in ("Ulm", "Köln")
    hello: Any = [{"role": "user", "content": "Say hello."}]
    asked: Any = {"model": model, "messages": hello, "max_tokens": 12, "seed": 4}
    client.chat.completions.create(**asked)  # from then on the prompt is in the cache, so that all bits are the same
    whole = client.chat.completions.create(**asked).choices[0].message.content
    chunks = client.chat.completions.create(**asked, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole


def test_going_on_from_a_response_is_sending_its_conversation(client: OpenAI) -> None:
    """Greedily: the same tokens in, most of them from the cache, and the same tokens out."""
    tool: Any = {"type": "function", **WEATHER["function"]}
    greedy: Any = {"model": "tiny", "tools": [tool], "temperature": 0, "max_output_tokens": 24}
    greedy |= {"include": ["message.output_text.logprobs"], "instructions": "You look up the weather."}
    called = client.responses.create(
        **greedy | {"max_output_tokens": None},
        input="What is the weather in Ulm?",
        tool_choice="required",
        parallel_tool_calls=False,
    )
    [call] = called.output
    assert call.type == "function_call"
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    told = client.responses.create(**greedy, input=[result], previous_response_id=called.id)
    more: Any = {"role": "user", "content": "And in Köln?"}
    going_on = client.responses.create(**greedy, input=[more], previous_response_id=told.id)
    asked: Any = {"role": "user", "content": "What is the weather in Ulm?"}
    whole = client.responses.create(**greedy, input=[asked, call, result, *told.output, more], store=False)
    assert going_on.usage
    assert whole.usage
    assert going_on.usage.input_tokens == whole.usage.input_tokens
    assert told.usage
    # All that was read before comes from the cache, and most of what was written.
    assert going_on.usage.input_tokens_details.cached_tokens >= told.usage.input_tokens
    drawn = [
        [token.token for item in answer.output if item.type == "message" for token in item.content[0].logprobs or ()]  # type: ignore[union-attr]
        for answer in (going_on, whole)
    ]
    assert drawn[0] == drawn[1]
    assert drawn[0]
    assert [item.to_dict() | {"id": ""} for item in going_on.output if item.type == "function_call"] == [
        item.to_dict() | {"id": ""} for item in whole.output if item.type == "function_call"
    ]
