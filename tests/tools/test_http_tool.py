"""`http` tools against a real server: the contract to the letter, and everything that a server can do to it."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter

import psutil
import pytest

from agentrft.errors import ToolFault, ToolOutage
from agentrft.net.breaker import BreakerState
from agentrft.net.policy import NetworkPolicy
from agentrft.net.secrets import MASK
from agentrft.protocols import ToolContext
from agentrft.testing import FakeClock
from agentrft.testing.web import (
    FaultyServer,
    answers,
    drips,
    drops,
    floods,
    gzip_bomb,
    hangs,
    redirects,
    tool_output,
)
from agentrft.tools.http_binding import HttpBinding
from agentrft.tools.http_call import MAX_ANSWER_BYTES, MAX_REQUEST_BYTES
from agentrft.tools.http_tool import HttpSource
from agentrft.types import Item, Message, ToolSpec

SECRET = "canary-5f1d0c9e"
HEADERS = {"Authorization": f"Bearer {SECRET}", "X-Team": "blue"}
SCHEMA = {"type": "object", "properties": {"q": {"type": "string"}}}
LISTED = ToolSpec(name="search", description="Find.", parameters=SCHEMA)
ITEM = Item(id="row-7", messages=(Message(role="user", content="q"),), tools=(LISTED,), fields={"answer": 4})


def context(call_id="call_1", deadline_s=60.0, item=ITEM):
    return ToolContext(trace_id="trace_9", call_id=call_id, item=item, deadline_s=deadline_s)


def source_at(server, policy=None, clock=None, **fields):
    binding = HttpBinding(name="search", server_url=f"{server.url}/tools?v=1", headers=HEADERS, **fields)
    extra = {} if clock is None else {"clock": clock}
    return HttpSource({"agent.tools.0": binding}, policy or NetworkPolicy.local(), **extra)


async def call(source, arguments=None, *, item=ITEM, **fields):
    session = await source.open(item, "trace_9", 5.0)
    (tool,) = session.tools
    async with tool.turn:
        return await tool.call({"q": "x"} if arguments is None else arguments, context(item=item, **fields))


async def asked_once(behaviour, arguments=None, **fields):
    """What becomes of one call; the source and its connections are gone afterwards."""
    async with FaultyServer(behaviour) as server:
        source = source_at(server)
        try:
            return await call(source, arguments, **fields)
        finally:
            await source.close()
            await server.until(lambda: server.n_open == 0)


async def test_what_is_sent():
    async with FaultyServer(tool_output) as server:
        source = source_at(server)
        assert await call(source, {"q": "Zoë \ud800 <|im_end|>", "n": 3}) == '{"q": "Zoë \ud800 <|im_end|>", "n": 3}'
        await call(source)
        await call(source, call_id="call_2")
        await source.close()
    first, again, other = server.requests
    assert first.path == "/tools?v=1"
    assert first.headers["authorization"] == f"Bearer {SECRET}"
    assert first.headers["x-team"] == "blue"
    assert first.headers["content-type"] == "application/json"
    body = first.json()
    assert list(body) == ["type", "id", "call_id", "name", "arguments", "trace_id", "item"]
    assert (body["type"], body["call_id"], body["name"], body["trace_id"]) == (
        "function_call", "call_1", "search", "trace_9",
    )  # fmt: skip
    assert re.fullmatch(r"fc_[0-9a-f]{24}", body["id"])
    assert json.loads(body["arguments"]) == {"q": "Zoë \ud800 <|im_end|>", "n": 3}
    assert body["item"] == {
        "id": "row-7",
        "answer": 4,
        "parallel_tool_calls": True,
        "messages": [{"name": None, "role": "user", "content": "q"}],
        "tools": [{"type": "function", "function": {"name": "search", "description": "Find.", "parameters": SCHEMA}}],
    }
    keys = [request.headers["idempotency-key"] for request in server.requests]
    assert keys[0] == keys[1] != keys[2]
    assert again.json()["id"] == body["id"] != other.json()["id"]
    assert server.connections == 1


@pytest.mark.parametrize(
    ("reply", "output"),
    [
        ({"type": "function_call_output", "call_id": "call_1", "id": "fc_1", "output": "two"}, "two"),
        ({"output": "two"}, "two"),
        ({"output": "two", "call_id": None, "more": 1}, "two"),
        ({"output": ""}, ""),
        ({"output": {"a": [1, None, "é"]}}, '{"a":[1,null,"é"]}'),
        ({"output": None}, "null"),
        ({"output": True}, "true"),
        ({"output": "half \ud800"}, "half \ud800"),
        ({"output": "the team is blue"}, "the team is blue"),
        ({"output": f"you sent Bearer {SECRET}"}, f"you sent {MASK}"),
        ({"output": {"headers": {"token": SECRET}}}, f'{{"headers":{{"token":"{MASK}"}}}}'),
    ],
)
async def test_outputs(reply, output):
    assert await asked_once(answers(reply)) == output
    assert await asked_once(answers(reply, status=201)) == output


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (404, b"no such  product\n", "404: no such product"),
        (400, {"detail": "bad q"}, '400: {"detail": "bad q"}'),
        (422, b"", "422: Unprocessable Entity"),
        (499, b"", "499: without a word"),
        (401, f"unknown token 'Bearer {SECRET}', nor {SECRET}".encode(), f"401: unknown token '{MASK}', nor {MASK}"),
        (404, {"output": "Error: no product 7"}, "Error: no product 7"),
        (409, {"output": {"why": "sold"}}, '{"why":"sold"}'),
        (403, {"output": f"not with {SECRET}"}, f"not with {MASK}"),
        (400, b"x" * 500, "400: " + "x" * 300 + "…"),
        (400, b"\xff\xfe", "400: ��"),
    ],
)
async def test_the_services_own_refusal_is_for_the_model(status, body, said):
    with pytest.raises(ValueError) as refused:
        await asked_once(answers(body, status=status))
    assert str(refused.value) == said


@pytest.mark.parametrize(
    "behaviour",
    [
        answers({"output": "x" * MAX_ANSWER_BYTES}),
        floods(50_000_000),
        gzip_bomb(50_000_000),
    ],
    ids=["1 MB", "50 MB", "bomb"],
)
async def test_an_output_that_is_too_large_is_for_the_model(behaviour):
    with pytest.raises(ValueError, match=r"^413: the tool's output has more than 1000000 bytes; ask for less$"):
        await asked_once(behaviour)


async def test_a_request_that_is_too_large_is_for_the_model():
    async with FaultyServer(tool_output) as server:
        source = source_at(server)
        with pytest.raises(ValueError, match=r"^413: the call and its task take \d+ bytes, at most 1000000 are sent$"):
            await call(source, {"q": "x" * MAX_REQUEST_BYTES})
        await source.close()
        assert server.requests == []


@pytest.mark.parametrize(
    ("behaviour", "said", "wait_s"),
    [
        (answers(b"Traceback: boom", status=500), "answered 500: Traceback: boom", None),
        (answers({"output": "x"}, status=503, headers={"Retry-After": "7"}), "answered 503: ", 7.0),
        (answers(b"", status=429, headers={"Retry-After": "0.5"}), "answered 429: without a word", 0.5),
        (answers(b"", status=408), "answered 408: without a word", None),
        (answers(b"", status=425, headers={"Retry-After": "soon"}), "answered 425: without a word", None),
        (answers(f"{'x' * 290} {SECRET} {SECRET}".encode(), status=502), "answered 502: ", None),
        (drops, "broke off (RemoteProtocolError: Server disconnected without sending a response.)", None),
        (hangs, "no answer within 0.285 s", None),
        (drips(0.02), "no answer within 0.285 s", None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_may_be_asked_again(behaviour, said, wait_s):
    with pytest.raises(ToolOutage, match=r"^tool 'search' at 127.0.0.1:\d+: ") as outage:
        await asked_once(behaviour, deadline_s=0.3 if "0.285" in said else 60)
    assert said in str(outage.value)
    assert "canary" not in f"{outage.value!r} {outage.value.__cause__!r}"
    assert outage.value.wait_s == wait_s


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        (answers(b"<html>hello</html>"), "answered 200: <html>hello</html>; expected a JSON object with `output`"),
        (answers(b""), "answered 200: without a word; expected"),
        (answers(b"", status=204, headers={"Content-Length": "0"}), "answered 204: without a word"),
        (answers(["output"]), "expected a JSON object with `output`"),
        (answers({"result": "x"}), "expected a JSON object with `output`"),
        (answers({"error": SECRET}), f'answered 200: {{"error": "{MASK}"}}'),
        (answers(b"\xff\xfe\xfa"), "expected a JSON object with `output`"),
        (answers(b"[" * 100_000), "expected a JSON object with `output`"),
        (answers(b'{"output": NaN}'), "expected an `output` that is JSON"),
        (answers({"output": "x", "call_id": "call_2"}), "answered the call 'call_2', expected 'call_1'"),
        (answers({"output": "x", "call_id": [1]}), "answered the call '[1]', expected 'call_1'"),
        (
            redirects("http://u:hush@10.0.0.1:8080/hush"),
            "answered 307, to be asked at 10.0.0.1:8080; redirects are not",
        ),
        (redirects("/hush"), "to be asked at another path of the same server"),
        (redirects("http://[hush"), "to be asked at an address that cannot be read"),
        (answers(status=304), "answered 304, to be asked at another path"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
async def test_what_is_wrong_with_the_service_is_a_fault(behaviour, said):
    with pytest.raises(ToolFault) as fault:
        await asked_once(behaviour)
    assert not isinstance(fault.value, ToolOutage)
    assert said in str(fault.value)
    assert not re.search("hush|canary", f"{fault.value!r}")


async def test_a_server_that_fails_for_a_while_and_one_that_dies_and_comes_back():
    async with FaultyServer(answers(status=500), answers(status=500), tool_output) as server:
        source = source_at(server)
        for _ in range(2):
            with pytest.raises(ToolOutage):
                await call(source)
        assert await call(source) == '{"q": "x"}'
        await server.stop()
        with pytest.raises(ToolOutage):
            await call(source)
        await server.start()
        assert await call(source) == '{"q": "x"}'
        await source.close()


async def test_the_breaker_is_the_servers_and_opens_for_all_its_tools():
    clock = FakeClock()
    async with FaultyServer(answers(status=500)) as down, FaultyServer(tool_output) as up:
        bindings = {
            f"agent.tools.{position}": HttpBinding(name=name, server_url=f"{url}/{name}", parameters=SCHEMA)
            for position, (name, url) in enumerate([("a", down.url), ("b", down.url), ("c", up.url)])
        }
        source = HttpSource(bindings, NetworkPolicy.local(), clock=clock)
        a, b, c = (await source.open(Item(id="r", messages=()), "trace_9", 5.0)).tools
        for number in range(20):
            with pytest.raises(ToolOutage, match="answered 500"):
                await (a, b)[number % 2].call({}, context())
        clock.advance(3)
        for tool in (a, b):
            with pytest.raises(ToolOutage, match="it failed too often and is left alone for") as alone:
                await tool.call({}, context())
            assert alone.value.wait_s == 7
        assert len(down.requests) == 20
        assert await c.call({}, context()) == "{}"
        first, second = source.status()
        assert (first.server, first.tools, first.breaker) == (f"127.0.0.1:{down.port}", ("a", "b"), BreakerState.OPEN)
        assert (first.calls, first.failed, first.down_s, first.in_flight) == (20, 20, 3.0, 0)
        assert (second.tools, second.breaker, second.calls, second.failed) == (("c",), BreakerState.CLOSED, 1, 0)
        clock.advance(7)
        down.script = [tool_output]
        assert await b.call({}, context()) == "{}"
        assert source.status()[0].breaker is BreakerState.CLOSED
        await source.close()


async def test_too_many_requests_is_no_sign_of_a_server_that_is_down():
    async with FaultyServer(answers(status=429)) as server:
        source = source_at(server)
        for _ in range(25):
            with pytest.raises(ToolOutage, match="answered 429"):
                await call(source)
        assert source.status()[0].breaker is BreakerState.CLOSED
        await source.close()


async def test_tools_of_one_server_share_its_slots():
    most = 0

    async def counted(request, writer):
        nonlocal most
        most = max(most, server.n_open)
        await asyncio.sleep(0.02)
        await tool_output(request, writer)

    async with FaultyServer(counted) as server:
        bindings = {
            f"agent.tools.{n}": HttpBinding(
                name=name, server_url=f"{server.url}/{name}", parameters=SCHEMA, max_concurrency=limit
            )
            for n, (name, limit) in enumerate([("a", 5), ("b", 3)])
        }
        source = HttpSource(bindings, NetworkPolicy.local())
        tools = (await source.open(Item(id="r", messages=()), "trace_9", 5.0)).tools

        async def one(number):
            async with tools[number % 2].turn:
                await tools[number % 2].call({}, context(f"call_{number}"))

        async with asyncio.TaskGroup() as group:
            for number in range(20):
                group.create_task(one(number))
        assert (most, len(server.requests)) == (3, 20)
        await source.close()


async def test_a_cancelled_call_leaves_nothing_and_blames_nobody():
    async with FaultyServer(hangs) as server:
        source = source_at(server)
        before = asyncio.all_tasks()
        calls = [asyncio.create_task(call(source)) for _ in range(30)]
        await server.until(lambda: len(server.requests) == 30)
        assert source.status()[0].in_flight == 30
        for one in calls:
            one.cancel()
        await asyncio.wait(calls)
        await server.until(lambda: server.n_open == 0)
        status = source.status()[0]
        assert (status.in_flight, status.calls, status.breaker) == (0, 0, BreakerState.CLOSED)
        assert asyncio.all_tasks() == before
        await source.close()


async def test_nothing_is_left_of_a_thousand_episodes_with_a_bad_server():
    # 3 of 20 count for the breaker, which stays closed; the 8th hangs.
    lost = [answers(status=500), drops]
    wrong = [answers(b"x"), redirects("/x"), answers(b"[]"), redirects("/y")]
    refused = [answers(status=404), floods(2_000_000), answers(status=409)]
    script = [*lost, *wrong, refused[0], hangs, *refused[1:], *[tool_output] * 10]

    async def by_number(request, writer):
        await script[json.loads(request.json()["arguments"])["n"] % 20](request, writer)

    async with FaultyServer(by_number) as server:
        source = source_at(server, clock=FakeClock())
        before = asyncio.all_tasks(), psutil.Process().num_fds()
        ends: Counter[str] = Counter()

        async def episode(number):
            session = await source.open(ITEM, f"trace_{number}", 5.0)
            async with session.tools[0].turn:
                try:
                    await session.tools[0].call({"n": number}, context(deadline_s=0.2 if number % 20 == 7 else 60))
                    ends["output"] += 1
                except (ValueError, ToolFault) as error:
                    ends[type(error).__name__] += 1
            await session.close()

        async with asyncio.TaskGroup() as group:
            for number in range(1000):
                group.create_task(episode(number))
        await source.close()
        await server.until(lambda: server.n_open == 0)
        assert ends == {"output": 500, "ToolOutage": 150, "ToolFault": 200, "ValueError": 150}
        assert (asyncio.all_tasks(), psutil.Process().num_fds()) == before


async def test_a_binding_may_be_quicker_than_the_job():
    async with FaultyServer(hangs) as server:
        source = source_at(server, timeout_s=0.1)
        assert source.timeout_s("search") == 0.1
        with pytest.raises(ToolOutage, match=r"no answer within 0.095 s"):
            await call(source, deadline_s=30)
        await source.close()
        with pytest.raises(ToolOutage, match="the job has closed its connections"):
            await call(source)
        await source.close()
