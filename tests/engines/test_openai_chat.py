"""The chat model behind an OpenAI-compatible API: what it sends, what it makes of every answer, what it never shows."""

from __future__ import annotations

import asyncio
import itertools
import time

import pytest

from agentrft.engines.openai_chat import MAX_RESPONSE_BYTES, OPENAI_URL, OpenAIChat, RequestRefused, Retries, open_judge
from agentrft.errors import EngineFault, UserError
from agentrft.protocols import ChatEndpoint
from agentrft.types import GradeError, Message, TokenUsage, ToolCall, ToolSpec

KEY = "sk-canary-0123456789"
QUICK = Retries(first_wait_s=0.001, longest_wait_s=0.2)
ASK = (Message(role="user", content="q"),)
FORM = {"type": "object", "properties": {"result": {"type": "number"}}}
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}}


@pytest.fixture
async def chat(request):
    """chat(server, **endpoint): a model on a loopback server, closed after the test."""
    opened: list[OpenAIChat] = []

    def open_one(server, *, retries: Retries = QUICK, **endpoint) -> OpenAIChat:
        named = ChatEndpoint(**{"model": "judge-1", "base_url": f"{server.url}/v1", **endpoint})
        opened.append(OpenAIChat(named, base_url=f"{server.url}/v1", api_key=KEY, retries=retries))
        return opened[-1]

    yield open_one
    for one in opened:
        await one.close()


def in_turn(*answers):
    """Answers one after the other, the last one from then on."""
    count = itertools.count()
    return lambda asked: answers[min(next(count), len(answers) - 1)]


async def test_what_is_sent_and_what_comes_back(serve, completion, chat):
    server = serve(lambda asked: completion("hello", usage=USAGE))
    model = chat(server, temperature=0.0, top_p=0.5, seed=9, max_completion_tokens=64, reasoning_effort="low")
    done = await model.complete(ASK, form=FORM, attempt=2)
    assert (done.message, done.finish_reason) == (Message(role="assistant", content="hello"), "stop")
    assert done.usage == TokenUsage(prompt_tokens=7, completion_tokens=3, cached_tokens=2)
    assert done.usage.total_tokens == 10
    (asked,) = server.asked
    assert asked.path == "/v1/chat/completions"
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.json() == {
        "model": "judge-1",
        "messages": [{"role": "user", "content": "q"}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "form", "strict": True, "schema": FORM}},
        "temperature": 0.0,
        "top_p": 0.5,
        "seed": 11,
        "max_completion_tokens": 64,
        "reasoning_effort": "low",
    }


async def test_what_is_not_set_is_not_sent_and_odd_text_arrives(serve, completion, chat):
    server = serve(lambda asked: completion("ok"))
    done = await chat(server).complete([Message(role="user", content="é\ud800\x00😀")])
    assert done.usage is None
    assert server.asked[0].json() == {"model": "judge-1", "messages": [{"role": "user", "content": "é?\x00😀"}]}


async def test_tools_and_calls(serve, answer, chat):
    call = {"id": "call_9", "type": "function", "function": {"name": "look", "arguments": '{"word": "a"}'}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    server = serve(lambda asked: answer(body={"choices": [{"message": message, "finish_reason": "tool_calls"}]}))
    spec = ToolSpec(name="look", description="Look it up.", parameters={"type": "object", "properties": {}})
    said = await chat(server).reply(ASK, [spec])
    assert said.tool_calls == (ToolCall(id="call_9", name="look", arguments='{"word": "a"}'),)
    history = [*ASK, said, Message(role="tool", content="found", tool_call_id="call_9")]
    await chat(server).reply(history, [spec])
    assert server.asked[1].json()["messages"][1:] == [
        message,
        {"role": "tool", "content": "found", "tool_call_id": "call_9"},
    ]
    function = {"name": "look", "description": "Look it up.", "parameters": spec.parameters}
    assert server.asked[1].json()["tools"] == [{"type": "function", "function": function}]


async def test_a_reply_that_was_cut_off_is_no_message_and_a_refusal_is(serve, completion, chat):
    server = serve(lambda asked: completion("half a", finish_reason="length", usage=USAGE))
    with pytest.raises(EngineFault, match="the reply was cut off after 3 tokens"):
        await chat(server).reply(ASK, [])
    server.answer = lambda asked: completion(None, refusal="I will not.")
    assert (await chat(server).reply(ASK, [])).content == "I will not."


@pytest.mark.parametrize(
    "first",
    [
        *({"status": status} for status in (408, 409, 429, 500, 502, 503, 529)),
        {"drops": True},
        {"body": b"<html>log in</html>"},
        {"body": {"choices": []}},
        {"body": {"choices": [{"message": {"content": ["a"]}}]}},
        {"body": b""},
    ],
    ids=str,
)
async def test_what_got_lost_is_sent_again(serve, answer, completion, chat, first):
    server = serve(in_turn(answer(**first), completion("ok")))
    assert (await chat(server).reply(ASK, [])).content == "ok"
    assert len(server.asked) == 2
    assert server.asked[0].body == server.asked[1].body


async def test_a_server_that_stays_down_is_a_fault_of_the_engine(serve, answer, chat):
    server = serve(lambda asked: answer(status=503, body={"error": {"message": "out of\n memory", "code": "oom"}}))
    with pytest.raises(EngineFault) as caught:
        await chat(server).reply(ASK, [])
    where = server.url.removeprefix("http://")
    assert str(caught.value) == f"model 'judge-1' at {where}: answered 503: out of memory (oom) (4 tries)"
    assert len(server.asked) == 4


async def test_nobody_listening_is_a_fault(serve, completion, chat):
    server = serve(lambda asked: completion("ok"))
    model = chat(server)
    server.close()
    with pytest.raises(EngineFault, match=r"ConnectError: .*\(4 tries\)"):
        await model.reply(ASK, [])


async def test_no_answer_in_time_is_a_fault(serve, answer, chat):
    server = serve(lambda asked: answer(delay_s=30))
    with pytest.raises(EngineFault, match=r"no answer within 0.05 s \(2 tries\)"):
        await chat(server, timeout_s=0.05, retries=Retries(most=1, first_wait_s=0.001)).reply(ASK, [])


async def test_retry_after_is_kept_and_too_long_a_wait_is_an_outage(serve, answer, completion, chat):
    server = serve(in_turn(answer(status=429, headers={"Retry-After": "0.15"}), completion("ok")))
    started = time.monotonic()
    assert (await chat(server).reply(ASK, [])).content == "ok"
    assert time.monotonic() - started >= 0.15
    server.answer = lambda asked: answer(status=429, headers={"Retry-After": "3600"})
    with pytest.raises(EngineFault, match=r"answered 429: without a word \(and asks to wait 3600 s\)"):
        await chat(server).reply(ASK, [])
    assert len(server.asked) == 3  # twice, and once


@pytest.mark.parametrize(
    ("status", "hint"), [(401, "check the key"), (403, "rights"), (404, "the model's name"), (301, "answered 301")]
)
async def test_what_no_repetition_mends_is_a_fault_at_once(serve, answer, chat, status, hint):
    server = serve(lambda asked: answer(status=status, headers={"Location": "/elsewhere"}, body=b"no"))
    with pytest.raises(EngineFault, match=hint):
        await chat(server).fill_in(ASK, FORM)
    assert len(server.asked) == 1


async def test_a_refused_request_is_a_reply_without_a_document(serve, answer, chat):
    too_long = {"error": {"message": "maximum context length is 10", "code": "context_length_exceeded"}}
    server = serve(lambda asked: answer(status=400, body=too_long))
    reply = await chat(server).fill_in(ASK, FORM)
    assert reply.document is None
    assert reply.error is GradeError.MODEL_SERVER
    assert reply.reason.endswith("answered 400: maximum context length is 10 (context_length_exceeded)")
    with pytest.raises(RequestRefused):
        await chat(server).reply(ASK, [])
    server.answer = lambda asked: answer(status=400, body={"error": {"message": "no", "code": "content_filter"}})
    assert (await chat(server).fill_in(ASK, FORM)).error is GradeError.MODEL_REFUSAL


@pytest.mark.parametrize(
    ("said", "reason", "error"),
    [
        ({"content": None, "refusal": "I can't help."}, "it declined: I can't help.", GradeError.MODEL_REFUSAL),
        (
            {"content": "{", "finish_reason": "content_filter"},
            "its provider's content filter",
            GradeError.MODEL_REFUSAL,
        ),
        ({"content": "{", "finish_reason": "length"}, "its reply was cut off", GradeError.MODEL_PARSE),
        ({"content": None}, "its reply is empty", GradeError.MODEL_PARSE),
        ({"content": " \n"}, "its reply is empty", GradeError.MODEL_PARSE),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_why_there_is_no_document(serve, completion, chat, said, reason, error):
    server = serve(lambda asked: completion(**said, usage=USAGE))
    reply = await chat(server).fill_in(ASK, FORM)
    assert reply.document is None
    assert reply.reason.startswith(reason)
    assert (reply.error, reply.usage.prompt_tokens) == (error, 7)


class TestServerWithoutStructuredOutput:
    def refusing(self, answer, completion):
        def respond(asked):
            if "response_format" in asked.json():
                return answer(status=400, body={"error": {"message": "'response_format' is not supported"}})
            return completion('{"result": 1}')

        return respond

    async def test_it_is_asked_in_words_and_remembered(self, serve, answer, completion, chat):
        server = serve(self.refusing(answer, completion))
        model = chat(server)
        replies = [await model.fill_in(ASK, FORM) for _ in range(2)]
        assert [(reply.document, reply.is_constrained) for reply in replies] == [('{"result": 1}', False)] * 2
        assert ["response_format" in asked.json() for asked in server.asked] == [True, False, False]

    async def test_a_request_that_is_refused_without_it_too_tells_nothing_about_the_server(self, serve, answer, chat):
        server = serve(lambda asked: answer(status=422, body=b"response_format? no, your text is too long"))
        model = chat(server)
        for _ in range(2):
            reply = await model.fill_in(ASK, FORM)
            assert reply.document is None
            assert "your text is too long" in reply.reason
        assert ["response_format" in asked.json() for asked in server.asked] == [True, False, True, False]


async def test_no_more_requests_at_once_than_allowed(serve, completion, chat):
    under_way, most = set(), []

    def respond(asked):
        under_way.add(id(asked))
        most.append(len(under_way))
        time.sleep(0.03)
        under_way.remove(id(asked))
        return completion("ok")

    model = chat(serve(respond), max_concurrency=3)
    async with asyncio.TaskGroup() as group:
        for _ in range(12):
            group.create_task(model.reply(ASK, []))
    assert 1 < max(most) <= 3


async def test_a_host_that_is_no_name_is_a_fault():
    model = open_judge(ChatEndpoint(model="m", base_url="http://xn--/v1"), retries=QUICK)
    with pytest.raises(EngineFault, match="model 'm' at xn--: "):
        await model.reply(ASK, [])
    await model.close()


async def test_too_large_an_answer_is_a_fault(serve, answer, chat):
    server = serve(lambda asked: answer(body=b" " * (MAX_RESPONSE_BYTES + 1)))
    with pytest.raises(EngineFault, match="its answer is larger than 4000000 bytes"):
        await chat(server).reply(ASK, [])


async def test_closing_ends_requests_in_flight_and_later_ones(serve, answer, chat):
    arrived, loop = asyncio.Event(), asyncio.get_running_loop()

    def respond(asked):
        loop.call_soon_threadsafe(arrived.set)
        return answer(delay_s=30)

    model = chat(serve(respond))
    async with asyncio.timeout(10):
        asking = asyncio.create_task(model.reply(ASK, []))
        await arrived.wait()
        await model.close()
        with pytest.raises(EngineFault):
            await asking
    await model.close()
    with pytest.raises(EngineFault, match="it was closed"):
        await model.reply(ASK, [])


async def test_the_key_is_never_shown(serve, answer, chat):
    server = serve(lambda asked: answer(status=401, body=f"bad key {KEY}, in {asked.headers}".encode()))
    model = chat(server)
    with pytest.raises(EngineFault) as caught:
        await model.reply(ASK, [])
    server.answer = lambda asked: answer(status=400, body=f"{KEY} {'x' * 280} {KEY}".encode())
    reply = await model.fill_in(ASK, FORM)
    for shown in (str(caught.value), repr(caught.value.__cause__), str(reply), repr(model)):
        assert KEY not in shown
        assert "canary" not in shown


class TestOpening:
    @pytest.fixture(autouse=True)
    def no_settings(self, monkeypatch):
        for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "OTHER_KEY"):
            monkeypatch.delenv(name, raising=False)

    async def header_at(self, server, completion, **endpoint) -> str | None:
        model = open_judge(ChatEndpoint(model="m", **endpoint), "grader")
        await model.reply(ASK, [])
        await model.close()
        return server.asked[-1].headers.get("authorization")

    async def test_a_key_goes_only_where_it_belongs(self, serve, completion, monkeypatch):
        server = serve(lambda asked: completion("ok"))
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("OTHER_KEY", "other ".strip() + "\n")
        here = f"{server.url}/v1/"
        assert await self.header_at(server, completion, base_url=here) is None
        assert await self.header_at(server, completion, base_url=here, api_key_env="OTHER_KEY") == "Bearer other"
        monkeypatch.setenv("OPENAI_BASE_URL", here)
        assert await self.header_at(server, completion) == f"Bearer {KEY}"
        assert await self.header_at(server, completion, api_key_env="OTHER_KEY") == "Bearer other"
        monkeypatch.delenv("OPENAI_API_KEY")
        assert await self.header_at(server, completion) is None
        assert {asked.path for asked in server.asked} == {"/v1/chat/completions"}

    @pytest.mark.parametrize(
        ("endpoint", "environment", "field", "said"),
        [
            ({}, {}, "api_key_env", f"OPENAI_API_KEY is not set; expected the key for {OPENAI_URL}"),
            ({"base_url": "http://h/v1", "api_key_env": "OTHER_KEY"}, {}, "api_key_env", "OTHER_KEY is not set"),
            ({"api_key_env": "OTHER_KEY"}, {"OTHER_KEY": "  "}, "api_key_env", "OTHER_KEY is not set"),
            (
                {"api_key_env": "OTHER_KEY"},
                {"OTHER_KEY": "hush hush"},
                "api_key_env",
                "the key in OTHER_KEY has spaces",
            ),
            ({}, {"OPENAI_API_KEY": "hush\u00e9"}, "api_key_env", "characters beyond ASCII"),
            ({"base_url": "ftp://h"}, {}, "base_url", "is no address of an API"),
            ({"base_url": "http://u:hush@h/v1"}, {}, "base_url", "is no address of an API"),
            ({}, {"OPENAI_BASE_URL": "localhost:80", "OPENAI_API_KEY": "k"}, "base_url", "is no address of an API"),
            ({"base_url": "http://[x"}, {}, "base_url", "is no address of an API"),
            ({"base_url": "http://h/v1?key=hush"}, {}, "base_url", "is no address of an API"),
        ],
    )
    def test_what_cannot_be_opened(self, monkeypatch, endpoint, environment, field, said):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(UserError) as caught:
            open_judge(ChatEndpoint(model="m", **endpoint), "method.reinforcement.grader")
        assert caught.value.param == f"method.reinforcement.grader.{field}"
        assert caught.value.code == "invalid_grader"
        assert said in caught.value.message
        assert "hush" not in caught.value.message
