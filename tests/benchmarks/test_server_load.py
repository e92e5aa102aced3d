"""The load benchmark: what it counts, and a small run of all of it against a real server with a tiny model."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from harness.bounds import Bound, as_json, deliver
from harness.served import Sample, ServerProcess, slope_mb_per_min
from harness.server_load import Asked, Read, Stream, all_done, chat, percentile, questions, read
from openai import AsyncOpenAI

from agentrft.testing.web import FaultyServer, answers

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "server.py"
PATIENCE_S = 30.0


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [float(n) for n in range(200, 0, -1)]
    # Of 1 to 200, 100 are at most 100 and 198 are at most 198.
    assert (percentile(values, 50), percentile(values, 99), percentile(values, 100)) == (100, 198, 200)
    assert percentile([7.0], 99) == 7
    with pytest.raises(ValueError, match="at least one value"):
        percentile([], 99)


def test_slope_of_memory_is_of_least_squares() -> None:
    def samples(*megabytes: float) -> list[Sample]:
        return [Sample(at_s=1000 + 30 * n, pid=1, rss_mb=mb, cpu_s=0) for n, mb in enumerate(megabytes)]

    assert slope_mb_per_min(samples(100, 101, 102)) == pytest.approx(2)
    # Moments are -45, -15, 15, 45 s from their mean: (-45·10 + 15·4 + 45·6) / (2·45² + 2·15²) = -120 / 4500 MB/s.
    assert slope_mb_per_min(samples(10, 0, 4, 6)) == pytest.approx(-1.6)
    with pytest.raises(ValueError, match="two samples, got 1"):
        slope_mb_per_min(samples(100))


def test_tokens_outside_the_measured_time_do_not_count() -> None:
    stream = Stream(tokens=[(9.9, 5), (10, 1), (12, 2.5), (20, 1), (20.1, 7)])
    assert stream.tokens_per_s(10, 20) == 0.45  # (1 + 2.5 + 1) / 10


@pytest.mark.parametrize(
    ("must_be", "ours", "reached"),
    [
        ("at least", 1.0, True),
        ("at least", 0.99, False),
        ("at most", 0.0, False),
        ("at most", -3.0, True),
        ("below", -1.0, False),
        ("below", -1.5, True),
    ],
)
def test_a_bound_says_whether_it_was_reached(must_be: Any, ours: float, reached: bool) -> None:
    limit = 1.0 if must_be == "at least" else -1.0
    assert Bound(name="x", unit="ms", ours=ours, limit=limit, must_be=must_be).reached is reached
    assert Bound(name="x", unit="ms", ours=ours, must_be=must_be).reached is None


def test_table_and_json_of_bounds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = [
        Bound(name="p99", unit="ms", ours=512.34567, limit=500, must_be="below"),
        Bound(name="reads", unit="/s", ours=100),
    ]
    deliver("Load", found, {"why": 1}, tmp_path / "new" / "out.json")
    table = capsys.readouterr().out.splitlines()
    assert table[-2].split() == ["p99", "ms", "512.3", "below", "500", "MISSED"]
    assert table[-1].split() == ["reads", "/s", "100"]
    written = json.loads((tmp_path / "new" / "out.json").read_text())
    assert written["cases"] == [
        {"name": "p99", "unit": "ms", "ours": 512.3457, "limit": 500, "reached": False},
        {"name": "reads", "unit": "/s", "ours": 100, "limit": None, "reached": None},
    ]
    assert (written["checks"], written["details"]) == ({"p99 below 500 ms": False}, {"why": 1})
    assert as_json([], {})["speedup"] is None


async def test_a_stall_is_in_the_latency_of_every_read_that_it_delayed() -> None:
    made: list[Read] = []
    errors: Counter[str] = Counter()
    async with FaultyServer(answers({})) as web, httpx.AsyncClient(base_url=web.url) as http:
        reading = asyncio.create_task(read(http, ["/a", "/b"], 100, made, errors))
        await _until(lambda: len(made) > 5)
        n_before = len(made)
        time.sleep(0.5)  # noqa: ASYNC251 (server and client share the loop: neither moves)
        await _until(lambda: len(made) >= n_before + 50)
        late = made[n_before : n_before + 30]
        await all_done(late)
        await _cancelled(reading)
    # Reads 0 to 29 of the stall were due at most 300 ms into it, give or take one that was due when it began.
    assert min(one.latency_ms for one in late) > 150
    assert [one.path for one in made[:4]] == ["/a", "/b", "/a", "/b"]
    assert not errors


async def test_slow_answers_do_not_slow_the_asking() -> None:
    made: list[Read] = []
    async with FaultyServer(answers({}, after_s=60)) as web, httpx.AsyncClient(base_url=web.url) as http:
        reading = asyncio.create_task(read(http, ["/"], 50, made, Counter()))
        await _until(lambda: len(made) >= 40)  # more than there are connections
        assert {one.done_s for one in made} == {None}
        with pytest.raises(ValueError, match="still under way"):
            _ = made[0].latency_ms
        await _cancelled(reading)


async def test_reads_that_fail_are_errors_and_have_a_latency() -> None:
    made: list[Read] = []
    errors: Counter[str] = Counter()
    script = [answers({"error": "full"}, status=503), answers(b"no JSON"), answers({})]
    async with FaultyServer(*script) as web, httpx.AsyncClient(base_url=web.url) as http:
        reading = asyncio.create_task(read(http, ["/jobs"], 50, made, errors))
        await _until(lambda: len(made) >= 4)
        await all_done(made[:4])
        await _cancelled(reading)
    assert sorted(errors.values()) == [1, 1]
    assert any("503" in error for error in errors)
    assert any("JSONDecodeError" in error for error in errors)


async def test_chat_streams_count_the_tokens_of_their_usage_and_go_on_after_an_error() -> None:
    def chunk(text: str | None, usage: dict[str, int] | None = None) -> str:
        choices = [] if text is None else [{"index": 0, "delta": {"content": text}, "finish_reason": None}]
        head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        return f"data: {json.dumps({**head, 'choices': choices, 'usage': usage})}\n\n"

    used = {"prompt_tokens": 1, "completion_tokens": 6, "total_tokens": 7}
    whole = "".join([chunk("Once"), chunk(" upon a time"), chunk(None, used), "data: [DONE]\n\n"]).encode()
    cut = "".join([chunk("Once"), "data: [DONE]\n\n"]).encode()
    sse = {"Content-Type": "text/event-stream"}
    script = [
        answers({"error": {"message": "down"}}, status=503),
        answers(cut, headers=sse),
        answers(whole, headers=sse),
    ]
    stream, errors = Stream(), Counter[str]()
    async with (
        FaultyServer(*script) as web,
        AsyncOpenAI(base_url=web.url, api_key="k", max_retries=0, timeout=PATIENCE_S) as client,
    ):
        asked = Asked(client=client, model="m", max_tokens=8, questions=questions())
        chatting = asyncio.create_task(chat(stream, asked, errors))
        await _until(lambda: len(stream.answers) >= 2)
        await _cancelled(chatting)
    assert [n for _, n in stream.tokens[:5]] == [1, 3, 3, 3, 3]  # the cut answer's chunk, then 6 tokens in two chunks
    assert sorted(errors.values()) == [1, 1]
    assert any("down" in error for error in errors)
    assert any("without its usage" in error for error in errors)
    asked_for = [request.json() for request in web.requests]
    assert len({one["messages"][0]["content"] for one in asked_for}) == len(asked_for)


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="unknown key `concurency`"):
        ServerProcess(tmp_path / "home", {"concurency": 1})


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    from chat_models import save_chat_model

    return save_chat_model("hermes", tmp_path_factory.mktemp("models") / "tiny")


@pytest.mark.timeout(600)  # 20 s on two idle cores; minutes where they are shared
def test_a_small_run_measures_everything_and_leaves_no_process_behind(tiny_model: Path, tmp_path: Path) -> None:
    output = tmp_path / "load.json"
    command = [sys.executable, str(SCRIPT), "--small", "--model", str(tiny_model), "--json", str(output)]
    ran = subprocess.run(
        command, capture_output=True, text=True, timeout=580, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert "slowest stream" in ran.stdout
    document = json.loads(output.read_text())
    cases = {case["name"]: case for case in document["cases"]}
    details = document["details"]
    assert details["errors"] == {}
    assert (cases["errors"]["ours"], cases["errors"]["reached"]) == (0, True)
    assert cases["slowest stream"]["ours"] > 0
    assert cases["reads"]["ours"] == pytest.approx(20, rel=0.1)
    assert 0 < cases["reads, p50"]["ours"] <= cases["reads, p99"]["ours"] <= cases["reads, slowest"]["ours"]
    assert len(details["reads_p99_ms"]) == 7
    assert cases["training steps"]["ours"] >= 1
    limits = {name: case["limit"] for name, case in cases.items() if case["limit"] is not None}
    assert limits == {
        "slowest stream": 1,
        "errors": 0,
        "reads, p99": 500,
        "training steps": 1,
        "server: growth": 1,
        "engine: growth": 1,
    }
    pids = details["pids"]
    assert {part: len(found) for part, found in pids.items()} == {"server": 1, "engine": 1, "trainer": 1}
    assert not any(_serves(pid) for found in pids.values() for pid in found)


def _serves(pid: int) -> bool:
    """Whether a process with that pid is one of ours; another program may have the number by now."""
    with suppress(psutil.Error):
        return any("agentrft" in word for word in psutil.Process(pid).cmdline())
    return False


async def _until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():  # noqa: ASYNC110 (nothing tells when)
            await asyncio.sleep(0.005)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
