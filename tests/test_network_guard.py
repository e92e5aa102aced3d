"""The tests' own guard: nothing but this machine can be reached."""

from __future__ import annotations

import socket

import pytest


@pytest.mark.parametrize("host", ["192.0.2.1", "example.invalid", "2001:db8::1", b"192.0.2.1"])
def test_names_and_connections_beyond_this_machine_are_blocked(host: str | bytes) -> None:
    with pytest.raises(RuntimeError, match="loopback names only"):
        socket.create_connection((host, 80))  # pyright: ignore[reportArgumentType]
    with socket.socket() as client, pytest.raises(RuntimeError, match="loopback only"):
        client.connect((host, 80))
    with socket.socket() as client, pytest.raises(RuntimeError, match="loopback only"):
        client.connect_ex((host, 80))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_this_machine_can_be_reached(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection((host, server.getsockname()[1])):
        connection, _ = server.accept()
        connection.close()
