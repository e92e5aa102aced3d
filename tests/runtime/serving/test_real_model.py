"""SmolLM2 through the engine process: what streams is what plain transformers writes, read by the format."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from agentrft.chat import pick_format
from agentrft.engines.models import load_tokenizer
from agentrft.jobs.models import Weights, find_weights
from agentrft.runtime.serving.client import EngineClient
from agentrft.runtime.serving.conversation import read_conversation
from agentrft.runtime.serving.wire import ChatRequest


def tool(name: str, description: str, **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


STRING = {"type": "string"}
TOOLS = [
    tool("ls", "List a folder", path=STRING),
    tool("grep", "Print lines under PATH that contain TEXT", text=STRING, path=STRING),
]
SYSTEM = {"role": "system", "content": "Answer questions about config files. Use few commands."}
QUESTION = {"role": "user", "content": "What is the port of billing in staging?"}


@pytest.fixture(scope="module")
def weights() -> Weights:
    return find_weights("smollm2-135m-instruct")


@pytest.fixture(scope="module")
def plain(weights: Weights) -> Iterator[Any]:
    """The model in plain transformers."""
    import torch
    import transformers

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the engine process computes too
    yield transformers.AutoModelForCausalLM.from_pretrained(weights.folder, dtype=torch.float32)
    torch.set_num_threads(threads)


def expected_ids(model: Any, request: ChatRequest) -> list[int]:
    """Greedy tokens by transformers' own generate."""
    import torch

    conversation = read_conversation(request)
    fmt = pick_format(load_tokenizer(request.weights.folder))
    prompt = torch.tensor([fmt.prompt(conversation.messages, conversation.tools)])
    with torch.no_grad():
        out = model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=request.max_tokens,
            do_sample=False,
            eos_token_id=sorted(fmt.stop_ids),
            pad_token_id=0,
        )
    return out[0, prompt.shape[1] :].tolist()


async def test_a_greedy_chat_streams_what_the_model_says(
    weights: Weights, plain: Any, engine: EngineClient, hear: Callable[..., Any]
) -> None:
    chat = ChatRequest(weights=weights, messages=[QUESTION], temperature=0.0, max_tokens=20)
    reply = await hear(engine, chat)
    fmt = pick_format(load_tokenizer(weights.folder))
    assert fmt.name == "line"  # its own template has no tools
    ids = expected_ids(plain, chat)
    assert reply.end.usage.completion_tokens == len(ids)
    text = fmt.decode([id_ for id_ in ids if id_ not in fmt.stop_ids]).strip().removeprefix("Answer:").strip()
    assert reply.text == text
    assert len(reply.texts) > 5

    asked = replace(chat, messages=[SYSTEM, QUESTION], tools=TOOLS)
    reply = await hear(engine, asked)
    message, malformed = fmt.parse(expected_ids(plain, asked), read_conversation(asked).tools)
    if reply.end.finish_reason == "length":
        assert reply.calls == []
    else:
        assert [(c.name, c.arguments) for c in reply.calls] == [(c.name, c.arguments) for c in message.tool_calls]
        assert reply.text == (message.content or "")
        assert reply.end.malformed == malformed

    held = await hear(engine, replace(asked, tool_choice="required", max_tokens=60))
    assert held.end.finish_reason == "tool_calls"
    assert held.calls[0].name in ("ls", "grep")
    arguments = json.loads(held.calls[0].arguments)
    assert all(isinstance(value, str) for value in arguments.values())
    told = [
        *asked.messages,
        {
            "role": "assistant",
            "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "ls", "arguments": json.dumps({"path": "/"})}}
            ],
        },
        {"role": "tool", "tool_call_id": "c", "content": "staging.yaml: billing port 8080"},
    ]
    answer = await hear(engine, replace(asked, messages=told, tool_choice="none", max_tokens=12))
    assert answer.calls == []
    assert answer.text
    assert answer.end.usage.cached_tokens > 50  # the tools and the question were read before
