"""`endpoint`: a real HTTP service that scores, refuses, fails, dawdles and babbles; and headers that nobody sees."""

from __future__ import annotations

import asyncio
import itertools
import time
from pathlib import Path

import pytest

from agentrft.errors import GraderFault, UserError
from agentrft.graders import build_grader, grade_episode, parse_grader
from agentrft.graders.endpoint import MAX_ANSWER_BYTES, MAX_PAYLOAD_BYTES, EndpointGrader, EndpointSpec
from agentrft.types import Episode, GradeError, Item, Message, Sample, StopReason, ToolSpec, Turn

SECRET = "canary-5f1d0c9e"
HEADERS = {"Authorization": f"Bearer {SECRET}", "X-Team": "blue"}


@pytest.fixture
async def build(serve):
    """build(respond, **fields): (grader, server); retries come at once."""
    opened = []

    def build_one(respond, **fields):
        server = serve(respond)
        spec = parse_grader({"type": "endpoint", "name": "remote", "url": f"{server.url}/grade?v=1", **fields})
        assert isinstance(spec, EndpointSpec)
        opened.append(EndpointGrader(spec, first_wait_s=0.001))
        return opened[-1], server

    yield build_one
    for grader in opened:
        await grader.close()


def in_turn(*answers):
    count = itertools.count()
    return lambda asked: answers[min(next(count), len(answers) - 1)]


async def test_what_is_sent(build, answer, trajectory):
    item = Item(
        id="row-7",
        messages=(Message(role="system", content="s"), Message(role="user", content="q")),
        tools=(ToolSpec(name="ls", description="List.", parameters={"type": "object", "properties": {}}),),
        fields={"answer": 4, "nested": {"a": [None]}},
    )
    grader, server = build(lambda asked: answer(body={"score": 0.5}), headers=HEADERS)
    grade = await grader.grade(trajectory, item, "trace_9")
    assert (grade.value, grade.reason) == (0.5, None)
    assert grade.wall_s > 0
    (asked,) = server.asked
    assert asked.path == "/grade?v=1"
    assert asked.headers["authorization"] == f"Bearer {SECRET}"
    assert asked.headers["x-team"] == "blue"
    assert asked.headers["content-type"] == "application/json"
    body = asked.json()
    assert body.keys() == {"sample", "item", "trace_id"}
    assert body["trace_id"] == "trace_9"
    assert body["item"] == {
        "id": "row-7",
        "answer": 4,
        "nested": {"a": [None]},
        "parallel_tool_calls": True,
        "messages": [
            {"name": None, "role": "system", "content": "s"},
            {"name": None, "role": "user", "content": "q"},
        ],
        "tools": [
            {
                "type": "function",
                "function": {"name": "ls", "description": "List.", "parameters": {"type": "object", "properties": {}}},
            }
        ],
    }
    sample = body["sample"]
    assert sample["output_tools"][0]["function"] == {"name": "cat", "arguments": '{"path": "/a"}'}
    assert sample["choices"][0]["finish_reason"] == "tool_calls"
    assert len(sample["messages"]) == 4


async def test_nulls_are_sent_as_openai_sends_them(build, answer, make_item):
    grader, server = build(lambda asked: answer(body={"score": 0}))
    await grader.grade(Sample(output_text=""), make_item(parallel_tool_calls=False, tools_hint=None), "t")
    body = server.asked[0].json()
    sample = body["sample"]
    assert (sample["output_text"], sample["output_json"], sample["output_tools"]) == ("", None, [])
    assert sample["output_reasoning_summary"] is None
    assert body["item"]["tools"] is None
    assert body["item"]["tools_hint"] is None
    assert body["item"]["messages"] == [{"name": None, "role": "user", "content": "q"}]
    assert body["item"]["parallel_tool_calls"] is False


@pytest.mark.parametrize("score", [0, 1, 0.25, -7.5, 8, 32512, 1e305, -0.0, 5e-324])
async def test_any_finite_number_is_a_grade(build, answer, make_sample, make_item, score):
    grader, _ = build(lambda asked: answer(body={"score": score, "why": "because"}))
    grade = await grader.grade(make_sample("x"), make_item(), "t")
    assert grade.value == float(score)
    assert type(grade.value) is float
    assert grade.clipped == {}


@pytest.mark.parametrize(("score", "value"), [(0, 0.0), (5, 5.0), (5.0001, None), (-1e-9, None), (32512, None)])
async def test_outside_its_range_is_no_grade_and_never_clamped(build, answer, make_sample, make_item, score, value):
    grader, server = build(lambda asked: answer(body={"score": score}), range=[0, 5])
    grade = await grader.grade(make_sample("x"), make_item(), "t")
    assert grade.value == value
    if value is None:
        assert grade.reason == f"grader 'remote' gave {score:g}, expected 0 to 5"
        assert (grade.error, grade.is_fault) == (GradeError.UNRESPONSIVE_REWARD, False)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b'{"score": NaN}', "NaN is no JSON number"),
        (b'{"score": -Infinity}', "-Infinity is no JSON number"),
        (b'{"score": 1e999}', "1e999 is no JSON number"),
        (b'{"score": ' + b"9" * 400 + b"}", "`score` is too large for a float"),
        (b'{"score": true}', "`score` is no number"),
        (b'{"score": "1"}', "`score` is no number"),
        (b'{"score": null}', "`score` is no number"),
        (b'{"score": [1]}', "`score` is no number"),
        (b'{"score": 0, "score": 1}', "a field given twice"),
        (b'{"Score": 1}', "no `score`"),
        (b"1", "no JSON object"),
        (b"[1]", "no JSON object"),
        (b"", "no JSON"),
        (b"<html>", "no JSON"),
        (b"\xff\xfe\xfa", "no "),
        (b"[" * 50_000, "nested too deeply"),
        (b'{"score": 1, "x": "' + b"x" * MAX_ANSWER_BYTES + b'"}', "more than 64000 bytes"),
    ],
    ids=lambda value: value[:20] if isinstance(value, bytes) else "",
)
async def test_nonsense_is_no_grade(build, answer, make_sample, make_item, body, why):
    grader, server = build(lambda asked: answer(body=body))
    grade = await grader.grade(make_sample("x"), make_item(), "t")
    assert grade.value is None
    assert grade.reason.startswith("grader 'remote' answered 200: ")
    assert why in grade.reason
    assert len(grade.reason) < 450
    assert (grade.error, len(server.asked)) == (GradeError.UNRESPONSIVE_REWARD, 1)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422, 301, 307])
async def test_the_services_own_refusal_is_no_grade_with_its_words(build, answer, make_sample, make_item, status):
    grader, server = build(lambda asked: answer(status=status, body=b"no\n such  row", headers={"Location": "/x"}))
    grade = await grader.grade(make_sample("x"), make_item(), "t")
    assert grade.reason == f"grader 'remote' answered {status}: no such row"
    assert not grade.is_fault
    assert len(server.asked) == 1


@pytest.mark.parametrize("first", [*({"status": s} for s in (408, 425, 429, 500, 503)), {"drops": True}], ids=str)
async def test_what_got_lost_is_sent_again(build, answer, make_sample, make_item, first):
    grader, server = build(in_turn(answer(**first), answer(**first), answer(**first), answer(body={"score": 1})))
    assert (await grader.grade(make_sample("x"), make_item(), "t")).value == 1.0
    assert len({asked.body for asked in server.asked}) == 1
    assert len(server.asked) == 4


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ({"status": 500, "body": b"Traceback: boom"}, r"answered 500: Traceback: boom \(4 tries\)"),
        ({"status": 503}, r"answered 503: without a word \(4 tries\)"),
        ({"drops": True}, r"RemoteProtocolError: .*\(4 tries\)"),
        ({"status": 503, "headers": {"Retry-After": "86400"}}, r"and asks to wait 86400 s"),
    ],
    ids=str,
)
async def test_a_service_that_stays_down_is_a_fault(build, answer, make_sample, make_item, what, said):
    grader, server = build(lambda asked: answer(**what))
    with pytest.raises(GraderFault, match=said) as caught:
        await grader.grade(make_sample("x"), make_item(), "t")
    where = server.url.removeprefix("http://")
    assert str(caught.value).startswith(f"endpoint of grader 'remote' at {where}: ")


async def test_a_slow_service_is_a_fault(build, answer, make_sample, make_item):
    grader, _ = build(lambda asked: answer(delay_s=30), timeout_s=0.05)
    with pytest.raises(GraderFault, match=r"no answer within 0.05 s \(4 tries\)"):
        await grader.grade(make_sample("x"), make_item(), "t")


async def test_an_outage_is_a_fault_on_the_grade(build, answer, make_item):
    grader, _ = build(lambda asked: answer(status=502))
    reply = Message(role="assistant", content="x")
    episode = Episode(
        id="ep_1", trace_id="t", item_id="row-1", step=0, member=0, attempt=0,
        messages=(reply,), turns=(Turn(reply=reply),), stop_reason=StopReason.ANSWERED,
    )  # fmt: skip
    grade = await grade_episode(grader, episode, make_item())
    assert (grade.value, grade.is_fault, grade.error) == (None, True, GradeError.UNRESPONSIVE_REWARD)
    assert grade.reason.startswith("grader: endpoint of grader 'remote' at 127.0.0.1:")


async def test_more_than_a_megabyte_is_not_sent(build, answer, make_sample, make_item):
    grader, server = build(lambda asked: answer(body={"score": 1}))
    grade = await grader.grade(make_sample("x" * MAX_PAYLOAD_BYTES), make_item(), "t")
    assert grade.value is None
    assert "expected 1000000 at most" in grade.reason
    assert grade.error is GradeError.TRUNCATED_OBSERVATION
    assert server.asked == []


@pytest.mark.parametrize("value", [float("nan"), object(), {1, 2}])
async def test_an_item_that_is_not_json_is_no_grade(build, answer, make_sample, make_item, value):
    grader, server = build(lambda asked: answer(body={"score": 1}))
    grade = await grader.grade(make_sample("x"), make_item(odd=value), "t")
    assert grade.reason.startswith("grader 'remote' cannot be sent this item: ")
    assert grade.error is GradeError.SAMPLE_PARSE
    assert server.asked == []


async def test_the_rate_limit_spaces_requests_out(build, answer, make_sample, make_item):
    grader, server = build(lambda asked: answer(body={"score": 1}), rate_limit=50)
    started = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for _ in range(11):
            group.create_task(grader.grade(make_sample("x"), make_item(), "t"))
    # The 11th request starts 10 gaps of 1/50 s after the first.
    assert time.monotonic() - started >= 10 / 50
    assert len(server.asked) == 11


async def test_retries_count_towards_the_rate_limit(build, answer, make_sample, make_item):
    grader, server = build(in_turn(answer(status=500), answer(status=500), answer(body={"score": 1})), rate_limit=20)
    started = time.monotonic()
    assert (await grader.grade(make_sample("x"), make_item(), "t")).value == 1.0
    assert time.monotonic() - started >= 2 / 20
    assert len(server.asked) == 3


async def test_a_closed_grader_has_no_grade(build, answer, make_sample, make_item):
    arrived, loop = asyncio.Event(), asyncio.get_running_loop()

    def respond(asked):
        loop.call_soon_threadsafe(arrived.set)
        return answer(delay_s=30)

    grader, _ = build(respond)
    async with asyncio.timeout(10):
        asking = asyncio.create_task(grader.grade(make_sample("x"), make_item(), "t"))
        await arrived.wait()
        await grader.close()
        with pytest.raises(GraderFault):
            await asking
    assert (await grader.grade(make_sample("x"), make_item(), "t")).reason == "grader 'remote' is closed"


async def test_proxies_of_the_environment_are_not_asked(build, answer, make_sample, make_item, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    grader, _ = build(lambda asked: answer(body={"score": 1}))
    assert (await grader.grade(make_sample("x"), make_item(), "t")).value == 1.0


@pytest.mark.parametrize(
    ("fields", "start"),
    [
        ({"url": "localhost:80"}, "`grader.url`: expected an address such as https://host/path"),
        ({"url": "ftp://h/g"}, "`grader.url`: expected an address"),
        ({"url": "http://"}, "`grader.url`: expected an address"),
        ({"url": "http://[x"}, "`grader.url`: expected an address"),
        ({"url": "http://h:99999/"}, "`grader.url`: expected an address"),
        ({"url": "http://h/a b"}, "`grader.url`: expected an address"),
        ({"url": 5}, "`grader.url`: expected an address"),
        ({"rate_limit": 0}, "`grader.rate_limit`: Input should be greater than 0, got 0"),
        ({"rate_limit": float("inf")}, "`grader.rate_limit`: "),
        ({"range": [5, 0]}, "`grader.range`: got [5.0, 0.0], expected two finite numbers"),
        ({"range": [0, float("inf")]}, "`grader.range`: got [0.0, inf]"),
        ({"timeout_s": 0}, "`grader.timeout_s`: Input should be greater than 0"),
        ({"timeout_s": 601}, "`grader.timeout_s`: Input should be less than or equal to 600"),
        ({"max_rps": 5}, "`grader.max_rps`: Extra inputs are not permitted"),
    ],
    ids=str,
)
def test_bad_documents(fields, start):
    with pytest.raises(UserError) as caught:
        parse_grader({"type": "endpoint", "url": "http://h/g", **fields})
    assert caught.value.message.startswith(start)


async def test_a_host_that_is_no_name_is_a_fault(make_sample, make_item):
    spec = parse_grader({"type": "endpoint", "url": "http://a..b/"})
    grader = EndpointGrader(spec, first_wait_s=0.001)
    with pytest.raises(GraderFault):
        await grader.grade(make_sample("x"), make_item(), "t")
    await grader.close()


def test_it_is_built_by_its_type():
    assert isinstance(build_grader({"type": "endpoint", "url": "http://h/g"}, Path()), EndpointGrader)
