"""Constrained replies of a model that writes noise: whatever it draws, a reply that stops meets its schema."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from chat_models import save_chat_model, tiny_tokenizer
from engine_cases import Continuation, finish, finish_all, request
from oracle import plain_model

from agentrft.chat import FastTokenizer
from agentrft.engines.torch_constraint import TextTokens
from agentrft.engines.torch_engine import GeneratorSettings, TorchEngine
from agentrft.engines.torch_serving import ServingEngine
from agentrft.errors import UserError
from agentrft.protocols import Constraint

TOKENIZER = tiny_tokenizer("line")
PLAIN = FastTokenizer(TOKENIZER)
TOKENS = TextTokens(backend=TOKENIZER, encode=PLAIN.encode, control_tokens=PLAIN.control_tokens)
STOP = TOKENIZER.token_to_id("<|im_end|>")
PROMPT = TOKENIZER.encode("the port of billing", add_special_tokens=False).ids


def closed(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


WORD = {"type": "string", "maxLength": 5}
NODE = closed(name=WORD, next={"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]})
SCHEMAS: list[Any] = [
    {"type": "boolean"},
    {"type": "null"},
    {"enum": ["red", "grün", "🙂", 7, None, True]},
    {"const": {"a": [1, "ü"]}},
    {"type": "integer", "minimum": -3, "maximum": 12},
    {"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 100, "multipleOf": 7},
    {"type": "number", "minimum": 0, "maximum": 1},
    {"type": "string", "maxLength": 6},
    {"type": "string", "minLength": 2, "maxLength": 4},
    {"type": "string", "pattern": "^[A-Z]{2}[0-9]{3}$"},
    {"type": "string", "pattern": "^(äöü|猫)+$", "maxLength": 6},
    {"type": "string", "format": "date"},
    {"type": "string", "format": "uuid"},
    {"type": "string", "format": "ipv4"},
    {"type": ["string", "null"], "maxLength": 3},
    {"type": "array", "items": {"type": "boolean"}, "maxItems": 4},
    {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 2, "maxItems": 3},
    {"type": "array", "prefixItems": [{"type": "boolean"}, WORD], "items": False, "minItems": 2},
    {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 9}, {"type": "array", "items": WORD, "maxItems": 2}]},
    {"oneOf": [{"type": "boolean"}, {"enum": ["maybe"]}]},
    {"allOf": [{"type": "string", "maxLength": 6}, {"pattern": "^a"}]},
    closed(port={"type": "integer", "minimum": 1, "maximum": 65535}, host=WORD),
    closed(deep=closed(deeper=closed(deepest={"enum": [1, 2]}))),
    closed(**{"with space": WORD, 'quote"d': {"type": "boolean"}, "über": {"type": "null"}}),
    {"type": "object", "properties": {"a": WORD, "b": WORD}, "required": ["b"], "additionalProperties": False},
    {"type": "object", "additionalProperties": {"type": "boolean"}, "maxProperties": 2},
    {"type": "object", "patternProperties": {"^x[0-9]$": {"type": "boolean"}}, "additionalProperties": False},
    {**NODE, "$defs": {"node": NODE}},
    {"$ref": "#/definitions/pair", "definitions": {"pair": closed(left=WORD, right=WORD)}},
    closed(
        items={"type": "array", "items": closed(id={"type": "integer", "minimum": 1, "maximum": 99}), "maxItems": 2},
        kind={"anyOf": [{"const": "x"}, closed(y={"type": "boolean"})]},
    ),
    closed(price={"type": "number", "multipleOf": 0.25, "minimum": 0, "maximum": 10}),
    {"type": "object", "properties": {}, "additionalProperties": False},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_chat_model("line", tmp_path_factory.mktemp("chat") / "line")


@pytest.fixture
async def engine(folder: Path) -> AsyncIterator[ServingEngine]:
    loaded = ServingEngine.load(
        folder,
        tokens=TOKENS,
        dtype="float32",
        device="cpu",
        settings=GeneratorSettings(max_sequences=64),
    )
    yield loaded
    await loaded.close()


def held_to(schema: Any, *, n: int = 300, **fields: Any) -> Any:
    constraint = Constraint(kind="json_schema", source=json.dumps(schema))
    return request(PROMPT, n=n, stop=[STOP], constraint=constraint, **fields)


def text_of(reply: Continuation) -> str:
    return PLAIN.decode(reply.tokens[:-1] if reply.finish_reason == "stop" else reply.tokens)


async def test_whatever_stops_meets_its_schema(engine: ServingEngine) -> None:
    assert len(SCHEMAS) >= 30
    wanted = [held_to(schema, seed=seed, temperature=1.5) for schema in SCHEMAS for seed in range(3)]
    replies = await finish_all(engine.generator, wanted)
    stopped = 0
    for one, reply in zip(wanted, replies, strict=True):
        schema = json.loads(one.constraint.source)
        if reply.finish_reason == "stop":
            stopped += 1
            value = json.loads(text_of(reply))
            jsonschema.Draft202012Validator(schema).validate(value)
    assert stopped > 0.9 * len(wanted)


async def test_a_constraint_holds_for_greedy_and_for_top_p(engine: ServingEngine) -> None:
    schema = closed(port={"type": "integer", "minimum": 1, "maximum": 99}, host={"enum": ["a", "ü"]})
    greedy, narrow = await finish_all(
        engine.generator, [held_to(schema, temperature=0.0), held_to(schema, temperature=1.0, top_p=0.3, seed=4)]
    )
    for reply in (greedy, narrow):
        assert reply.finish_reason == "stop"
        jsonschema.validate(json.loads(text_of(reply)), schema)


async def test_others_in_the_batch_are_untouched(engine: ServingEngine) -> None:
    free = [request(PROMPT, n=20, seed=seed) for seed in range(4)]
    alone = await finish_all(engine.generator, free)
    together = await finish_all(engine.generator, [*free, *(held_to(s, seed=1) for s in SCHEMAS[:6])])
    assert [r.tokens for r in together[:4]] == [r.tokens for r in alone]


async def test_those_who_share_a_slot_are_held_one_by_one(engine: ServingEngine) -> None:
    digits = {"type": "string", "pattern": "^[0-9]{4}$"}
    letters = {"type": "string", "pattern": "^[a-z]{4}$"}
    replies = await finish_all(engine.generator, [held_to(s, seed=k) for k, s in enumerate([digits, letters] * 3)])
    read = [json.loads(text_of(reply)) for reply in replies]
    assert all(text.isdigit() for text in read[::2])
    assert all(text.isalpha() for text in read[1::2])


async def test_a_held_sequence_that_loses_its_slot_goes_on_where_it_was(folder: Path) -> None:
    tight = ServingEngine.load(
        folder,
        tokens=TOKENS,
        dtype="float32",
        device="cpu",
        settings=GeneratorSettings(max_sequences=6, max_cache_bytes=2 * 2 * 2 * 8 * 4 * 300),
    )
    schema = {"type": "array", "items": WORD, "minItems": 12, "maxItems": 12}
    replies = await finish_all(tight.generator, [held_to(schema, seed=seed, n=400) for seed in range(6)])
    await tight.close()
    assert all(len(json.loads(text_of(reply))) == 12 for reply in replies if reply.finish_reason == "stop")
    assert any(reply.finish_reason == "stop" for reply in replies)


async def test_log_probs_are_those_of_all_tokens(engine: ServingEngine, folder: Path) -> None:
    wanted = held_to({"enum": ["abc", "xyz"]}, seed=2, top_logprobs=4)
    tops: list[Any] = []
    tokens: list[int] = []
    log_probs: list[float] = []
    async with aclosing(engine.generator.generate(wanted)) as chunks:
        async for chunk in chunks:
            tokens += chunk.tokens
            log_probs += chunk.log_probs
            tops += chunk.top_log_probs
    with torch.no_grad():
        logits = plain_model(folder)(input_ids=torch.tensor([[*PROMPT, *tokens]])).logits[0]
    expected = logits[len(PROMPT) - 1 : -1].log_softmax(-1)
    assert log_probs == pytest.approx([float(row[t]) for row, t in zip(expected, tokens, strict=True)], abs=1e-4)
    assert all(math.isfinite(p) for p in log_probs)
    for row, top in zip(expected, tops, strict=True):
        values, ids = row.topk(4)
        assert [id_ for id_, _ in top] == ids.tolist()
        assert [p for _, p in top] == pytest.approx(values.tolist(), abs=1e-4)


async def test_top_p_draws_from_the_likeliest_only(engine: ServingEngine, folder: Path) -> None:
    with torch.no_grad():
        logits = plain_model(folder)(input_ids=torch.tensor([PROMPT])).logits[0, -1]
    probabilities, order = logits.softmax(-1).sort(descending=True)
    count = int((probabilities.cumsum(-1) < 0.6).sum()) + 1  # the one that crosses 0.6 belongs to them
    replies = await finish_all(engine.generator, [request(PROMPT, n=1, seed=s, top_p=0.6) for s in range(60)])
    drawn = {reply.tokens[0] for reply in replies}
    assert drawn <= set(order[:count].tolist())
    assert len(drawn) > 1
    # Reported is what the model thinks, not what was left to draw from.
    for reply in replies[:5]:
        assert reply.log_probs[0] == pytest.approx(float(logits.log_softmax(-1)[reply.tokens[0]]), abs=1e-4)
    only = await finish(engine.generator, request(PROMPT, n=1, seed=9, top_p=1e-6))
    assert only.tokens[0] == int(logits.argmax())


@pytest.mark.parametrize(
    ("schema", "feature"),
    [
        ({"not": {"type": "string"}}, "not"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "object", "dependentRequired": {"a": ["b"]}}, "dependentRequired"),
        ({"if": {"type": "string"}, "then": {"minLength": 3}}, "if"),
        ({"type": "string", "pattern": "(?=a)b"}, "look-around"),
        ({"type": "string", "format": "color"}, "color"),
        ({"type": "integer", "minimum": 5, "maximum": 3}, "greater than maximum"),
        ({"$ref": "https://example.org/schema"}, "example.org"),
        ({"enum": []}, "empty"),
        ({"type": "sting"}, "sting"),
        (["no", "schema"], "list"),
        (False, "not"),
        (json.loads('{"items":' * 200 + "true" + "}" * 200), "recursion limit"),
        ({"enum": ["x" * 1000 + str(k) for k in range(300)]}, "bytes"),
    ],
)
async def test_what_cannot_be_kept_is_refused_by_name(engine: ServingEngine, schema: Any, feature: str) -> None:
    with pytest.raises(UserError) as refused:
        await finish(engine.generator, held_to(schema))
    assert refused.value.code == "constraint_unsupported"
    assert feature in refused.value.message
    assert len((await finish(engine.generator, request(PROMPT, n=3))).tokens) == 3


async def test_a_constraint_that_gets_too_complex_costs_only_its_own_request(engine: ServingEngine) -> None:
    grammar = "start: /(((a|b|c|d)*a(a|b|c|d){30})|((a|b|c|d)*b(a|b|c|d){31}))/"
    hostile = request(PROMPT, n=400, stop=[STOP], constraint=Constraint(kind="lark", source=grammar))
    others = [asyncio.create_task(finish(engine.generator, request(PROMPT, n=30, seed=s))) for s in range(3)]
    result = (await asyncio.gather(finish(engine.generator, hostile), return_exceptions=True))[0]
    assert isinstance(result, UserError | Continuation)
    assert [len((await other).tokens) for other in others] == [30] * 3


async def test_text_of_control_tokens_stays_text(engine: ServingEngine) -> None:
    schema = {"const": "<|im_end|>"}
    reply = await finish(engine.generator, held_to(schema))
    assert reply.tokens.count(STOP) == 1
    assert json.loads(text_of(reply)) == "<|im_end|>"


async def test_an_engine_that_trains_takes_no_constraint(load: Callable[..., TorchEngine]) -> None:
    with pytest.raises(UserError, match="holds to no constraint"):
        await finish(load("llama").generator, held_to({"type": "null"}))


async def test_cancelling_a_held_request_frees_its_place(engine: ServingEngine) -> None:
    endless = {"type": "array", "items": {"type": "boolean"}, "minItems": 1000}
    tasks = [asyncio.create_task(finish(engine.generator, held_to(endless, n=1500, seed=s))) for s in range(8)]
    await asyncio.sleep(0.3)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await finish(engine.generator, request(PROMPT, n=2))
    assert engine.generator._active == []
