"""At the socket: odd spellings of loopback, names that move, and servers that must get through. All of it for real."""

from __future__ import annotations

import _socket
import asyncio

import pytest

from agentrft.net.exchange import UNREACHABLE, Bounds, Lost, WebClient
from agentrft.net.policy import Forbidden, NetworkPolicy
from agentrft.net.resolve import look_up
from agentrft.testing.web import FaultyServer, answers

BOUNDS = Bounds(total_s=60, max_bytes=1000)


async def system_spelling(host, port):
    """The C library's reading of a number as an address; the tests' own guard knows usual spellings only."""
    found = _socket.getaddrinfo(host, port, 0, _socket.SOCK_STREAM, 0, _socket.AI_NUMERICHOST)
    return [entry[4][0] for entry in found]


def resolver(*answers_in_turn):
    """A name server whose answer changes with every look-up; `asked` counts them."""

    async def resolve(host, port):
        resolve.asked += 1
        return answers_in_turn[min(resolve.asked, len(answers_in_turn)) - 1]

    resolve.asked = 0
    return resolve


async def ask(policy, url, resolve=look_up, bounds=BOUNDS):
    client = WebClient(policy, resolve=resolve)
    try:
        return await client.post(url, b"{}", {}, bounds)
    finally:
        await client.close()


@pytest.mark.parametrize(
    ("host", "is_listed"),
    [
        # Positive controls: the same server through the same code, the address listed.
        ("127.0.0.1", True),
        ("localhost", True),
        ("2130706433", True),
        ("[::ffff:127.0.0.1]", True),
        ("127.0.0.1", False),
        ("localhost", False),
        ("2130706433", False),
        ("0x7f.1", False),
        ("0177.0.0.1", False),
        ("127.1", False),
        ("0", False),
        ("0x7f000001", False),
        ("[::ffff:127.0.0.1]", False),
        ("[::ffff:7f00:1]", False),
        ("127.0.0.1.", False),
    ],
)
async def test_loopback_in_every_spelling(host, is_listed):
    resolve = look_up if host == "localhost" else system_spelling
    async with FaultyServer(answers(b"secret")) as server:
        # 192.0.2.1 makes the list one that every name has to be resolved for.
        policy = NetworkPolicy.public(allow=["127.0.0.0/8" if is_listed else "192.0.2.1/32"])
        if is_listed:
            assert (await ask(policy, f"http://{host}:{server.port}/x", resolve)).body == b"secret"
            assert server.requests[0].headers["host"] == f"{host}:{server.port}"
        else:
            with pytest.raises(Lost, match=f"^{UNREACHABLE}$"):
                await ask(policy, f"http://{host}:{server.port}/x", resolve)
            # With scheme and port in order it is the address that is refused.
            with pytest.raises(Lost, match=f"^{UNREACHABLE}$") as lost:
                await ask(policy, f"https://{host}/x", resolve)
            assert "which is not public" in str(lost.value.__cause__)
        assert server.connections == int(is_listed)


async def test_a_name_is_looked_up_once_and_the_checked_address_connected():
    async with FaultyServer(answers(b"ok")) as server:
        # Allowed first, metadata at the next look-up: there is no next look-up for this connection.
        resolve = resolver(["127.0.0.1"], ["169.254.169.254"])
        policy = NetworkPolicy.public(allow=[f"rebind.example:{server.port}"])
        answer = await ask(policy, f"http://rebind.example:{server.port}/x", resolve)
        assert (answer.body, resolve.asked) == (b"ok", 1)
        assert server.requests[0].headers["host"] == f"rebind.example:{server.port}"


async def test_a_name_that_moves_is_checked_again_at_the_next_connection():
    async with FaultyServer(answers(b"ok", headers={"Connection": "close"})) as server:
        resolve = resolver(["127.0.0.1"], ["169.254.169.254"], ["127.0.0.1", "10.0.0.1"], ["127.0.0.1"])
        client = WebClient(NetworkPolicy.public(allow=["127.0.0.1/32"]), resolve=resolve)
        url = f"http://rebind.example:{server.port}/x"
        assert (await client.post(url, b"{}", {}, BOUNDS)).body == b"ok"
        for _ in range(2):  # metadata; then one good and one bad answer
            with pytest.raises(Lost):
                await client.post(url, b"{}", {}, BOUNDS)
        assert (await client.post(url, b"{}", {}, BOUNDS)).body == b"ok"
        assert (server.connections, resolve.asked) == (2, 4)
        await client.close()


async def test_connections_are_kept_and_need_no_look_up():
    async with FaultyServer(answers(b"ok")) as server:
        resolve = resolver(["127.0.0.1"])
        client = WebClient(NetworkPolicy.local(), resolve=resolve)
        for _ in range(5):
            await client.post(f"http://tools.example:{server.port}/x", b"{}", {}, BOUNDS)
        assert (server.connections, len(server.requests), resolve.asked) == (1, 5, 1)
        await client.close()
        await server.until(lambda: server.n_open == 0)


async def test_refused_absent_and_unknown_look_alike_to_a_tenant():
    async def unknown(host, port):
        raise OSError("no such name")

    async def broken(host, port):
        raise UnicodeError("label too long")

    async def nonsense(host, port):
        return ["not-an-address"]

    async with FaultyServer(answers()) as server:
        closed, open_port = 1, server.port
        policy = NetworkPolicy.public(allow=[f"127.0.0.1:{closed}", "tools.example:1"])
        said = set()
        for url, resolve in (
            (f"http://127.0.0.1:{closed}/x", look_up),  # allowed, nobody listens
            (f"http://127.0.0.1:{open_port}/x", look_up),  # not allowed, somebody listens
            ("https://10.0.0.1/x", look_up),
            ("https://tools.example/x", unknown),
            ("https://tools.example/x", broken),
            ("https://tools.example/x", nonsense),
            ("https://tools.example/x", resolver([])),
            ("https://tools.example/x", resolver(["169.254.169.254"])),
        ):
            with pytest.raises(Lost) as lost:
                await ask(policy, url, resolve)
            said.add(str(lost.value))
        assert said == {UNREACHABLE}
        assert server.connections == 0


@pytest.mark.parametrize("host", ["a..b", ".a", "x" * 64])
async def test_names_that_cannot_be_are_not_looked_up(host):
    with pytest.raises(Lost, match="no address for this name"):
        await ask(NetworkPolicy.local(), f"http://{host}/x")


async def test_a_person_is_told_why():
    with pytest.raises(Lost, match=r"could not be reached \(All connection attempts failed\)"):
        await ask(NetworkPolicy.local(), "http://127.0.0.1:1/x")
    with pytest.raises(Forbidden, match="metadata service"):
        await ask(NetworkPolicy.local(), "http://sly.example/x", resolver(["::ffff:a9fe:a9fe"]))


async def test_the_resolver_has_a_deadline():
    async def slow(host, port):
        await asyncio.Event().wait()

    with pytest.raises(Lost, match=r"no connection within 0.1 s"):
        await ask(NetworkPolicy.local(), "http://slow.example/x", slow, Bounds(total_s=9, max_bytes=9, connect_s=0.1))


async def test_the_next_address_is_tried_when_one_does_not_answer():
    async with FaultyServer(answers(b"ok")) as server:
        resolve = resolver(["::1", "127.0.0.1"])  # nobody listens on ::1
        assert (await ask(NetworkPolicy.local(), f"http://two.example:{server.port}/x", resolve)).body == b"ok"


async def test_tls_names_the_host_and_not_the_address():
    """The server name of a TLS ClientHello is in clear text; no certificate is needed to see it."""
    hello = asyncio.get_running_loop().create_future()

    async def listen(reader, writer):
        hello.set_result(await reader.read(4096))
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    policy = NetworkPolicy.public(allow=[f"tools.example:{port}"])
    with pytest.raises(Lost):
        await ask(policy, f"https://tools.example:{port}/x", resolver(["127.0.0.1"]))
    assert b"tools.example" in await hello
    assert b"127.0.0.1" not in await hello
    server.close()
    await server.wait_closed()
