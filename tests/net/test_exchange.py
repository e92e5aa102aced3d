"""One bounded request against a real server that hangs, drips, floods, lies and dies."""

from __future__ import annotations

import asyncio
import gzip
import socket
import tracemalloc
import zlib

import pytest

from agentrft.net.exchange import Answer, Bounds, Lost, WebClient
from agentrft.net.policy import NetworkPolicy
from agentrft.testing.web import FaultyServer, answers, drips, drops, floods, gzip_bomb, hangs, redirects

BOUNDS = Bounds(total_s=60, max_bytes=1000)


@pytest.fixture
async def client():
    made = WebClient(NetworkPolicy.local())
    yield made
    await made.close()


def packed(encoding, body):
    return answers(body, headers={"Content-Encoding": encoding})


async def test_an_answer(client):
    async with FaultyServer(answers(b"hello", status=418, headers={"X-Y": "a", "Set-Cookie": "b"})) as server:
        answer = await client.post(f"{server.url}/a?b=c", b'{"x": 1}', {"X-Key": "k", "Authorization": "z"}, BOUNDS)
    (asked,) = server.requests
    assert answer == Answer(status=418, headers=answer.headers, body=b"hello", was_cut=False)
    assert (answer.headers["x-y"], answer.headers["set-cookie"]) == ("a", "b")
    assert (asked.path, asked.body) == ("/a?b=c", b'{"x": 1}')
    assert asked.headers == {
        "host": f"127.0.0.1:{server.port}",
        "x-key": "k",
        "authorization": "z",
        "content-type": "application/json",
        "accept-encoding": "identity",
        "content-length": "8",
    }


async def test_cookies_are_not_kept(client):
    async with FaultyServer(answers(headers={"Set-Cookie": "session=1"})) as server:
        for _ in range(2):
            await client.post(server.url, b"", {}, BOUNDS)
        assert "cookie" not in server.requests[1].headers


@pytest.mark.parametrize(("size", "was_cut"), [(999, False), (1000, False), (1001, True)])
async def test_size(client, size, was_cut):
    for behaviour in (answers(b"x" * size), packed("gzip", gzip.compress(b"x" * size, mtime=0))):
        async with FaultyServer(behaviour) as server:
            answer = await client.post(server.url, b"", {}, BOUNDS)
            assert (len(answer.body), answer.was_cut) == (min(size, 1000), was_cut)


@pytest.mark.parametrize("behaviour", [floods(50_000_000), gzip_bomb(200_000_000)], ids=["50 MB", "bomb"])
async def test_too_much_is_not_read(client, behaviour):
    async with FaultyServer(behaviour) as server:
        bounds = Bounds(total_s=60, max_bytes=1_000_000)
        await client.post(server.url, b"", {}, BOUNDS)  # so that imports and buffers are not measured
        tracemalloc.start()
        answer = await client.post(server.url, b"", {}, bounds)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (len(answer.body), answer.was_cut) == (1_000_000, True)
        assert peak < 8_000_000  # of which the server takes some
        await server.until(lambda: server.n_open == 0)  # the rest is dropped, not read


@pytest.mark.parametrize(
    ("encoding", "body", "read"),
    [
        ("gzip", gzip.compress(b"hi", mtime=0), b"hi"),
        ("X-GZIP", gzip.compress(b"hi", mtime=0), b"hi"),
        ("deflate", zlib.compress(b"hi"), b"hi"),
        ("identity", b"hi", b"hi"),
        ("", b"hi", b"hi"),
    ],
)
async def test_encodings(client, encoding, body, read):
    async with FaultyServer(packed(encoding, body)) as server:
        assert (await client.post(server.url, b"", {}, BOUNDS)).body == read


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        (drops, r"broke off \(RemoteProtocolError: Server disconnected without sending a response"),
        (packed("br", b"hi"), "answered in the encoding 'br', which was not asked for"),
        (packed("gzip, gzip", b"hi"), "answered in the encoding 'gzip, gzip'"),
        (packed("gzip", b"hi"), r"answered in a broken encoding \(Error -3"),
        (answers(b"x", headers={"Content-Length": "5"}), r"sent less than 1000 bytes in 0.2 s"),
        (drips(0.01), r"sent less than 1000 bytes in 0.2 s"),
    ],
)
async def test_what_is_no_answer(client, behaviour, said):
    async with FaultyServer(behaviour) as server:
        with pytest.raises(Lost, match=said):
            await client.post(server.url, b"", {}, Bounds(total_s=60, max_bytes=1000, progress_s=0.2))
        await server.until(lambda: server.n_open == 0)


async def test_what_is_no_http(client):
    async def garbage(request, writer):
        writer.write(b"\x00\x01 this is not HTTP\r\n\r\n")
        await writer.drain()

    async with FaultyServer(garbage) as server:
        with pytest.raises(Lost, match=r"broke off \(RemoteProtocolError: "):
            await client.post(server.url, b"", {}, BOUNDS)


@pytest.mark.parametrize("behaviour", [hangs, drips(0.01)], ids=["hangs", "drips"])
async def test_the_whole_has_a_deadline(client, behaviour):
    async with FaultyServer(behaviour) as server:
        with pytest.raises(Lost, match=r"no answer within 0.2 s"):
            await client.post(server.url, b"", {}, Bounds(total_s=0.2, max_bytes=1000))
        await server.until(lambda: server.n_open == 0)


async def test_a_slow_answer_that_moves_on_is_read(client):
    async def trickle(request, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6000\r\n\r\n")
        for _ in range(6):
            await asyncio.sleep(0.25)
            writer.write(b"x" * 1000)
            await writer.drain()

    async with FaultyServer(trickle) as server:
        answer = await client.post(server.url, b"", {}, Bounds(total_s=60, max_bytes=9000, progress_s=1.0))
        assert len(answer.body) == 6000


async def test_thinking_is_no_dripping(client):
    async with FaultyServer(answers(b"late", after_s=0.4)) as server:
        answer = await client.post(server.url, b"", {}, Bounds(total_s=60, max_bytes=9, progress_s=0.2))
        assert answer.body == b"late"


async def test_redirects_are_answers(client):
    async with FaultyServer(answers(b"secret")) as inner, FaultyServer(redirects(inner.url)) as server:
        answer = await client.post(server.url, b"", {}, BOUNDS)
        assert (answer.status, answer.headers["location"]) == (307, inner.url)
        assert inner.connections == 0


async def test_a_server_that_dies_and_comes_back(client):
    async with FaultyServer(answers(b"ok")) as server:
        await client.post(server.url, b"", {}, BOUNDS)
        await server.stop()
        with pytest.raises(Lost):
            await client.post(server.url, b"", {}, BOUNDS)
        await server.start()
        assert (await client.post(server.url, b"", {}, BOUNDS)).body == b"ok"


async def test_a_cancelled_request_leaves_nothing(client):
    async with FaultyServer(hangs) as server:
        before = asyncio.all_tasks()
        asking = [asyncio.create_task(client.post(server.url, b"", {}, BOUNDS)) for _ in range(20)]
        await server.until(lambda: server.n_open == 20)
        for task in asking:
            task.cancel()
        await asyncio.wait(asking)
        assert all(task.cancelled() for task in asking)
        await server.until(lambda: server.n_open == 0)
        assert asyncio.all_tasks() == before


async def test_close_ends_what_is_under_way_and_what_comes_later(client):
    async with FaultyServer(hangs) as server:
        asking = asyncio.create_task(client.post(server.url, b"", {}, BOUNDS))
        await server.until(lambda: bool(server.requests))
        await client.close()
        with pytest.raises(Lost):
            await asking
        with pytest.raises(Lost, match="closed its connections"):
            await client.post(server.url, b"", {}, BOUNDS)
        await client.close()


async def test_proxies_of_the_environment_are_not_asked(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    client = WebClient(NetworkPolicy.local())
    async with FaultyServer(answers(b"ok")) as server:
        assert (await client.post(server.url, b"", {}, BOUNDS)).body == b"ok"
    await client.close()


async def test_many_requests_side_by_side(client):
    async with FaultyServer(answers(b"ok", after_s=0.05)) as server:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(client.post(server.url, b"", {}, BOUNDS)) for _ in range(100)]
        assert {task.result().body for task in tasks} == {b"ok"}


async def test_a_server_that_reads_nothing(client):
    # It accepts nothing, but the kernel completes the handshake and takes the first bytes.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        asking = client.post(
            f"http://127.0.0.1:{silent.getsockname()[1]}/", b"x" * 900_000, {}, Bounds(total_s=0.1, max_bytes=9)
        )
        with pytest.raises(Lost, match=r"no answer within 0.1 s"):
            await asking
