"""`cosine`: embeddings from a real HTTP server on loopback, and from one that fails in every way it can."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from agentrft.errors import GraderFault, UserError
from agentrft.graders import parse_grader
from agentrft.graders.text_similarity import (
    MAX_ANSWER_BYTES,
    MAX_ATTEMPTS,
    MAX_PAUSE_S,
    MAX_REQUESTS,
    TextSimilarityGrader,
)
from agentrft.types import GradeError

Answer = Callable[[Any], tuple[int, bytes, dict[str, str]]]
"""(the request's JSON) → status, body, headers."""


class EmbeddingServer:
    """A server on loopback that answers from a script, and the rest of the time with `vectors`."""

    def __init__(self) -> None:
        self.vectors: dict[str, list[float]] = {}
        self.script: list[Answer] = []
        self.seen: list[tuple[str, dict[str, str], Any]] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with server.lock:
                    server.seen.append((self.path, dict(self.headers), request))
                    answer = server.script.pop(0) if server.script else server.embed
                    server.at_once += 1
                    server.most_at_once = max(server.most_at_once, server.at_once)
                try:
                    status, body, headers = answer(request)
                finally:
                    with server.lock:
                        server.at_once -= 1
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None: ...

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                """A client that hangs up is part of the tests."""

        self.http = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,))
        self.thread.start()

    def embed(self, request: Any) -> tuple[int, bytes, dict[str, str]]:
        # The second first: the order is in `index`, not in the list.
        data = [{"index": k, "embedding": self.vectors[text]} for k, text in enumerate(request["input"])]
        return 200, json.dumps({"object": "list", "data": data[::-1]}).encode(), {}

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddingServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running = EmbeddingServer()
    running.vectors = {"east": [2, 0], "north": [0, 5], "west": [-1, 0.0], "between": [1, 1], "\ud800": [1, 0]}
    yield running
    running.close()


class Naps:
    """Waits between attempts, noted instead of slept."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


def _grader(url: str, naps: Naps | None = None, **more: object) -> TextSimilarityGrader:
    document = {
        "type": "text_similarity",
        "name": "near",
        "input": "{{sample.output_text}}",
        "reference": "{{item.answer}}",
        "evaluation_metric": "cosine",
        "embeddings": {"base_url": url, "model": "embed", **more},
    }
    return TextSimilarityGrader(parse_grader(document), sleep=naps or Naps())


def _says(status: int, body: bytes | str = b"", **headers: str) -> Answer:
    raw = body.encode() if isinstance(body, str) else body
    return lambda request: (status, raw, {name.replace("_", "-"): value for name, value in headers.items()})


@pytest.mark.parametrize(
    ("text", "answer", "value"),
    [
        ("east", "east", 1.0),
        ("east", "north", 0.0),
        ("east", "west", 0.0),  # the cosine is -1
        ("east", "between", math.sqrt(0.5)),
        ("between", "north", math.sqrt(0.5)),
        ("\ud800", "east", 1.0),
    ],
)
async def test_cosine(server, make_sample, make_item, text, answer, value):
    grader = _grader(server.url + "/")
    grade = await grader.grade(make_sample(text), make_item(answer=answer), "t")
    assert grade.value == pytest.approx(value)
    assert 0.0 <= grade.value <= 1.0
    (path, headers, request), *more = server.seen
    assert (path, request, more) == ("/v1/embeddings", {"model": "embed", "input": [text, answer]}, [])
    assert "Authorization" not in headers
    await grader.close()


@pytest.mark.parametrize(("text", "answer"), [("", "east"), ("east", ""), ("", "")])
async def test_an_empty_text_gets_nothing_and_is_not_sent(server, make_sample, make_item, text, answer):
    grade = await _grader(server.url).grade(make_sample(text), make_item(answer=answer), "t")
    assert grade.value == 0.0
    assert server.seen == []


async def test_the_key_comes_from_the_environment_and_is_shown_to_nobody(server, monkeypatch, make_sample, make_item):
    monkeypatch.setenv("EMBED_KEY", "sk-hush\n")
    grader = _grader(server.url, api_key_env="EMBED_KEY")
    item = make_item(answer="north")
    assert (await grader.grade(make_sample("east"), item, "t")).value == 0.0
    assert server.seen[0][1]["Authorization"] == "Bearer sk-hush"
    server.script = [_says(401, "Incorrect API key provided: sk-hush.")]
    with pytest.raises(GraderFault) as caught:
        await grader.grade(make_sample("east"), item, "t")
    assert str(caught.value) == (
        f"embedding endpoint {server.url}/embeddings answered 401: Incorrect API key provided: ***.; next step: check "
        "`base_url`, `model` and `api_key_env`"
    )
    assert len(server.seen) == 2  # a wrong key is not tried again
    await grader.close()


@pytest.mark.parametrize(
    ("value", "got"), [(None, "unset or empty"), (" ", "unset or empty"), ("sk-h\nush", "with characters that no HTTP")]
)
def test_a_key_that_is_not_there_is_refused(monkeypatch, value, got):
    monkeypatch.delenv("EMBED_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("EMBED_KEY", value)
    with pytest.raises(UserError) as caught:
        _grader("http://127.0.0.1:9/v1", api_key_env="EMBED_KEY")
    assert caught.value.message.startswith(f"the environment variable EMBED_KEY is {got}")
    assert caught.value.param == "grader.embeddings.api_key_env"
    assert "ush" not in caught.value.message


@pytest.mark.parametrize("url", ["http://a..b/v1", "http://☃ x/v1", "http://a\x00b/v1", "http://" + "a" * 70_000])
def test_a_url_that_cannot_be_called_is_refused(url):
    with pytest.raises(UserError, match=r"`embeddings.base_url` cannot be used: .*next step: mend it") as caught:
        _grader(url)
    assert len(caught.value.message) < 400


async def test_hiccups_are_tried_again(server, make_sample, make_item):
    naps = Naps()
    grader = _grader(server.url, naps)
    server.script = [_says(503, "busy"), _says(429, "slow down", Retry_After="7"), _says(500, "oops")]
    grade = await grader.grade(make_sample("east"), make_item(answer="east"), "t")
    assert grade.value == pytest.approx(1.0)
    assert len(server.seen) == MAX_ATTEMPTS
    first, second, third = naps.seconds
    # random, doubling from half a second: at most 0.5, 1 and 2 s, and what the server asked for
    assert (first <= 0.5, second, third <= 2.0) == (True, 7.0, True)
    await grader.close()


@pytest.mark.parametrize("asked", ["86400", "Wed, 21 Oct 2026 07:28:00 GMT", "-1", "nan", "²"])
async def test_a_server_cannot_ask_for_an_endless_wait(server, make_sample, make_item, asked):
    naps = Naps()
    grader = _grader(server.url, naps)
    server.script = [_says(429, Retry_After=asked.encode().decode("latin-1"))]
    assert (await grader.grade(make_sample("east"), make_item(answer="east"), "t")).value == pytest.approx(1.0)
    assert all(0 <= nap <= MAX_PAUSE_S for nap in naps.seconds)
    await grader.close()


async def test_an_outage_is_a_fault(server, make_sample, make_item):
    grader = _grader(server.url)
    server.script = [_says(503, "down for\n\n maintenance " + "x" * 5000)] * MAX_ATTEMPTS
    with pytest.raises(GraderFault) as caught:
        await grader.grade(make_sample("east"), make_item(answer="east"), "t")
    message = str(caught.value)
    assert message.startswith(f"embedding endpoint {server.url}/embeddings answered 503: down for maintenance xxx")
    assert message.endswith("(4 attempts); next step: check that it runs and `base_url`")
    assert len(message) < 400
    # over at once: the same grader goes on
    assert (await grader.grade(make_sample("east"), make_item(answer="east"), "t")).value == pytest.approx(1.0)
    await grader.close()


async def test_nobody_listening_is_a_fault(make_sample, make_item):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening
        naps = Naps()
        grader = _grader(f"http://127.0.0.1:{taken.getsockname()[1]}/v1", naps)
        with pytest.raises(GraderFault, match=r"could not be reached \(ConnectError: .*\(4 attempts\)"):
            await grader.grade(make_sample("east"), make_item(answer="east"), "t")
        assert len(naps.seconds) == MAX_ATTEMPTS - 1
        await grader.close()


async def test_a_server_that_hangs_is_left(server, make_sample, make_item):
    release = threading.Event()

    def hang(request: Any) -> tuple[int, bytes, dict[str, str]]:
        release.wait(10)
        return 200, b"", {}

    server.script = [hang] * MAX_ATTEMPTS
    grader = _grader(server.url, timeout_s=0.05)
    with pytest.raises(GraderFault, match=r"gave no answer within 0.05 s \(4 attempts\)"):
        await grader.grade(make_sample("east"), make_item(answer="east"), "t")
    release.set()
    await grader.close()


async def test_a_server_that_drips_is_left(make_sample, make_item):
    """Each single read is quick, so only a limit on the whole attempt ends it."""
    served: list[asyncio.Task[None] | None] = []

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(asyncio.current_task())
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
            while not writer.is_closing():
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.005)
        writer.close()

    async with await asyncio.start_server(drip, "127.0.0.1", 0) as listener:
        grader = _grader(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1", timeout_s=0.1)
        with pytest.raises(GraderFault, match=r"gave no answer within 0.1 s \(4 attempts\)"):
            await grader.grade(make_sample("east"), make_item(answer="east"), "t")
        await grader.close()
        assert served
        await asyncio.wait([task for task in served if task], timeout=5)


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_texts_that_the_endpoint_refuses_are_no_grade(server, make_sample, make_item, status):
    server.script = [_says(status, '{"error": "maximum context length is 8192 tokens"}')]
    grader = _grader(server.url)
    grade = await grader.grade(make_sample("east"), make_item(answer="east"), "t")
    assert grade.value is None
    assert grade.reason == (
        f"grader 'near': embedding endpoint {server.url}/embeddings answered {status}: "
        '{"error": "maximum context length is 8192 tokens"}'
    )
    assert grade.error is GradeError.MODEL_SERVER
    assert len(server.seen) == 1
    await grader.close()


def _data(*vectors: object) -> str:
    return json.dumps({"data": [{"index": k, "embedding": vector} for k, vector in enumerate(vectors)]})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        "[" * 100_000,
        "null",
        "[]",
        "{}",
        '{"data": null}',
        '{"data": [1, 2]}',
        '{"data": [{"embedding": [1]}, {"embedding": [1]}]}',
        '{"data": [{"index": [], "embedding": [1]}]}',
        _data([1, 0]),
        _data([1, 0], [1, 0], [1, 0]),
        _data([1, 0], [1, 0, 0]),
        _data([], []),
        _data([0, 0], [1, 0]),
        _data([1, 0], ["1", "0"]),
        _data([1, 0], [True, False]),
        _data([1, 0], [[1], [0]]),
        _data([1, 0], "AAAA"),
        _data([1, 0], None),
        _data([1, 0], [float("nan"), 1]),
        _data([1, 0], [float("inf"), 1]),
        _data([1, 0], [10**400, 1]),
        '{"data": [{"index": 0, "embedding": [' + "9" * 5000 + "]}]}",
        b" " * (MAX_ANSWER_BYTES + 1),
    ],
    ids=range(25),
)
async def test_an_answer_that_is_not_two_embeddings_is_a_fault(server, make_sample, make_item, body):
    server.script = [_says(200, body)]
    grader = _grader(server.url)
    with pytest.raises(GraderFault, match=r"answered (what is not two embeddings|with more than)") as caught:
        await grader.grade(make_sample("east"), make_item(answer="east"), "t")
    assert len(str(caught.value)) < 400
    assert len(server.seen) == 1
    await grader.close()


@pytest.mark.parametrize("status", [204, 302, 404])
async def test_any_other_status_is_a_fault(server, make_sample, make_item, status):
    server.script = [_says(status, Location=server.url)]
    grader = _grader(server.url)
    with pytest.raises(GraderFault, match=f"answered {status}"):
        await grader.grade(make_sample("east"), make_item(answer="east"), "t")
    assert len(server.seen) == 1  # a redirect is not followed: it could lead anywhere
    await grader.close()


async def test_large_and_tiny_numbers_have_a_cosine(server, make_sample, make_item):
    server.script = [_says(200, _data([1e200, 1e200], [1e-200, 0]))]
    grader = _grader(server.url)
    grade = await grader.grade(make_sample("east"), make_item(answer="east"), "t")
    assert grade.value == pytest.approx(math.sqrt(0.5))
    await grader.close()


async def test_many_at_once_take_turns(server, make_sample, make_item):
    def slow(request: Any) -> tuple[int, bytes, dict[str, str]]:
        time.sleep(0.01)
        return server.embed(request)

    server.script = [slow] * 60
    grader = _grader(server.url)
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(grader.grade(make_sample("east" if k % 2 else "north"), make_item(answer="east"), "t"))
            for k in range(60)
        ]
    assert [task.result().value for task in tasks] == [pytest.approx(float(k % 2)) for k in range(60)]
    assert 1 < server.most_at_once <= MAX_REQUESTS
    await grader.close()


async def test_a_closed_grader_opens_new_connections(server, make_sample, make_item):
    grader = _grader(server.url)
    await grader.close()
    for _ in range(2):
        grade = await grader.grade(make_sample("east"), make_item(answer="east"), "t")
        assert grade.value == pytest.approx(1.0)
        await grader.close()
        await grader.close()
