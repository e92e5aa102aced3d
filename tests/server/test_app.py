"""`agentrft serve` as a process: what it prints, keys made while it runs, signals, and what every answer carries."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from agentrft.server.envelope import SECURITY_HEADERS

CLI = "import sys; sys.argv[0] = 'agentrft'; from agentrft.cli import main; main()"


class Program:
    """`agentrft …` in a process of its own; `lines` is what it printed so far."""

    def __init__(self, home: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CLI, *arguments],
            env={**os.environ, "AGENTRFT_HOME": str(home), "COLUMNS": "200"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def url(self) -> str:
        """Where it listens, once it does."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            if found := re.search(r"http://127\.0\.0\.1:[0-9]+", "".join(self.lines)):
                return found[0]
            time.sleep(0.02)
        raise AssertionError(f"it does not listen: {''.join(self.lines)}")

    def wait(self) -> int:
        code = self.process.wait(60)
        self._reader.join()
        return code

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.wait()
        assert self.process.stdout
        self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout
        self.lines.extend(iter(self.process.stdout.readline, ""))


@pytest.fixture
def agentrft(home: Path) -> Iterator[Callable[..., Program]]:
    """agentrft("keys", "list"): start the command line."""
    started: list[Program] = []

    def start(*arguments: str) -> Program:
        started.append(Program(home, *arguments))
        return started[-1]

    yield start
    for program in started:
        program.end()


def test_it_serves_says_how_to_begin_and_ends_politely(agentrft: Callable[..., Program]) -> None:
    program = agentrft("serve", "--port", "0", "--concurrency", "0")
    url = program.url()
    client = OpenAI(base_url=f"{url}/v1", api_key="local", max_retries=0)
    assert client.files.list().data == []
    made = agentrft("keys", "create", "--project", "proj_a", "--scope", "files:read", "--expires", "90d")
    assert made.wait() == 0
    key = next(line.strip() for line in made.lines if line.startswith("sk-"))
    with pytest.raises(openai.AuthenticationError):
        client.files.list()
    assert client.with_options(api_key=key).files.list().data == []
    listed = agentrft("keys", "list")
    assert listed.wait() == 0
    assert key[3:11] in "".join(listed.lines)
    assert key not in "".join(listed.lines)
    began = time.monotonic()
    assert agentrft("keys", "revoke", key[3:11]).wait() == 0
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key=key).files.list()
    assert time.monotonic() - began < 30
    client.close()
    program.process.send_signal(signal.SIGTERM)
    assert program.wait() == 0
    text = "".join(program.lines)
    assert f'client = OpenAI(base_url="{url}/v1", api_key="local")' in text
    assert "agentrft keys create" in text
    assert key not in text
    assert "Traceback" not in text
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


def test_a_second_interrupt_does_not_wait(agentrft: Callable[..., Program]) -> None:
    program = agentrft("serve", "--port", "0", "--concurrency", "0")
    port = int(program.url().rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as connection:  # a request that never ends
        head = "POST /v1/uploads HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer x\r\n"
        connection.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 5\r\n\r\n".encode())
        time.sleep(0.5)
        program.process.send_signal(signal.SIGINT)
        time.sleep(1.0)
        assert program.process.poll() is None
        began = time.monotonic()
        program.process.send_signal(signal.SIGINT)
        program.wait()
        assert time.monotonic() - began < 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host", "0.0.0.0"], "agentrft keys create"),
        (["--config", "missing.yaml"], "cannot be read"),
    ],
)
def test_mistakes_are_told_before_anything_is_served(
    agentrft: Callable[..., Program], arguments: list[str], message: str
) -> None:
    program = agentrft("serve", "--port", "0", *arguments)
    assert program.wait() == 2
    assert message in " ".join("".join(program.lines).split())


def test_keys_are_made_where_the_server_looks_for_them(agentrft: Callable[..., Program], tmp_path: Path) -> None:
    config = tmp_path / "server.yaml"
    config.write_text(f"store: sqlite:///{tmp_path / 'other.db'}\n")
    open_to_all = ("serve", "--port", "0", "--concurrency", "0", "--host", "0.0.0.0", "--config", str(config))
    refused = agentrft(*open_to_all)
    assert refused.wait() == 2
    told = re.search(r"`agentrft (keys create [^`]+)`", " ".join("".join(refused.lines).split()))
    assert told
    assert agentrft(*told[1].replace("NAME", "proj_a").split()).wait() == 0
    program = agentrft(*open_to_all)
    deadline = time.monotonic() + 60
    while "listens on" not in "".join(program.lines) and time.monotonic() < deadline:
        assert program.process.poll() is None, program.lines
        time.sleep(0.02)
    program.process.send_signal(signal.SIGTERM)
    assert program.wait() == 0


@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/openapi.json", "/v1/files", "/v1/nothing", "/nothing"])
def test_every_answer_has_its_headers(shared: Any, path: str) -> None:
    answer = shared.http().get(path)
    assert re.fullmatch(r"req_[0-9a-f]{32}", answer.headers["x-request-id"])
    assert answer.headers["openai-processing-ms"].isdigit()
    for name, value in SECURITY_HEADERS.items():
        assert answer.headers[name] == value
    assert "server" not in answer.headers
    assert "set-cookie" not in answer.headers


def test_metrics_count_requests_by_route_and_status(server: Any) -> None:
    client = server.http()
    for path in ("/v1/files/file-a", "/v1/files/file-b", "/v1/files"):
        client.get(path)
    lines = client.get("/metrics").text.splitlines()
    assert 'agentrft_requests_total{method="GET",route="/v1/files/{file_id}",status="404"} 2' in lines
    assert 'agentrft_requests_total{method="GET",route="/v1/files",status="200"} 1' in lines
    assert 'agentrft_request_seconds_count{route="/v1/files/{file_id}"} 2' in lines
    assert 'agentrft_request_seconds_bucket{route="/v1/files",le="+Inf"} 1' in lines
    assert "agentrft_requests_in_flight 1" in lines
    assert "agentrft_engine_up 0" in lines
    samples = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r'[a-z_]+(\{([a-z]+="[^"]*",?)+\})? [0-9.e-]+', line) for line in samples)


def test_jobs_are_counted_by_status(server: Any) -> None:
    server.state.store.create_job({"id": "ftjob-a", "status": "queued"})
    assert 'agentrft_jobs{status="queued"} 1' in server.http().get("/metrics").text.splitlines()


def test_a_server_that_runs_no_jobs_leaves_them_queued(server: Any) -> None:
    server.state.store.create_job({"id": "ftjob-a", "status": "queued", "runner": "server"})
    time.sleep(1.2)  # two passes of the scheduler
    assert server.state.store.get_job("ftjob-a")["status"] == "queued"
