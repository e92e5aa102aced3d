"""The server under load: chat streams, a training job and reads together, on one machine.

    python benchmarks/server.py --json server.json                     # 50 streams, 100 reads/s, 90 s and 120 s
    python benchmarks/server.py --small                                # 3 streams, 20 reads/s, 3 s and 5 s
    python benchmarks/server.py --small --model FOLDER                 # of another model

Starts `agentrft serve` on loopback with an empty home. Then, all at once, from this process:

* `--streams` clients of the `openai` SDK. Each streams an answer of at most `--tokens` tokens to a question that nobody
  has asked before, and asks the next one when it ends. Tokens are those of the stream's usage, spread over its chunks;
  answers that are cut off by the end of the run count one token a chunk, which is never too many.
* A supervised job on the demonstrations of examples/units, the tools listed in the rows as OpenAI's format has them,
  `--batch` conversations a step, created through the API and long enough to go on to the end.
* `--reads` GETs a second over jobs, one job, its events, its checkpoints, files, one file, and models. Their moments
  are fixed beforehand and latency counts from there: a stall of the server is in the figures of every read that it
  delayed, and so is a stall of this process (`client_late_ms` in the details says how much that was).

Before the load the job does its first step, and the engine gives `--fill` answers of the same length: it keeps the keys
and values of its last 128 conversations, and the memory for them is no leak. `--warmup` seconds after the load
began the measuring begins, for `--seconds`. Resident memory of server, engine and trainer is sampled every second; its
slope is of least squares.

The server runs with its defaults, but that its rate limit of 6,000 requests a minute and key is out of the way, which
100 reads a second would touch. Everything shares the machine's cores, this process too: its share is in the details.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
from openai import AsyncOpenAI

from harness.bounds import Bound, deliver
from harness.result import median, spread, warn_when_busy
from harness.served import PARTS, Sample, ServerProcess, Usage, slope_mb_per_min
from harness.server_load import CONNECTIONS, Asked, Read, Stream, all_done, chat, fill, percentile, questions, read

DEMONSTRATIONS = Path(__file__).parents[1] / "examples" / "units" / "data" / "demonstrations.jsonl"
SIZES = {
    "full": {"streams": 50, "reads": 100.0, "warmup": 90.0, "seconds": 120.0, "tokens": 64, "batch": 4, "fill": 160},
    "small": {"streams": 3, "reads": 20.0, "warmup": 3.0, "seconds": 5.0, "tokens": 32, "batch": 2, "fill": 8},
}
MODEL = "loaded"
"""Alias of the model at the server, so that a folder can be one."""
EPOCHS = 50
"""The most there may be: the job outlasts the run."""
START_S = 1200.0
"""For unpacking the model, the job's first step and the first answers."""
SAMPLE_S = 1.0


def tool(name: str, description: str, **parameters: str) -> dict[str, Any]:
    """A tool's schema in OpenAI's form; parameters are name=type, all required."""
    schema = {
        "type": "object",
        "properties": {key: {"type": kind} for key, kind in parameters.items()},
        "required": list(parameters),
    }
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


TOOLS = [
    tool("calc", "Work out an expression.", expression="string"),
    tool("convert", "Convert a value into another unit.", value="number", unit="string", into="string"),
]


@dataclass(slots=True)
class Measured:
    """All that was seen. Moments are of `time.monotonic()`."""

    streams: Sequence[Stream]
    reads: list[Read] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    usage: Usage = field(default_factory=Usage)
    begin_s: float = 0.0
    """When the warm-up was over."""
    end_s: float = 0.0
    steps: tuple[int, int] = (0, 0)
    """Of the job, at the beginning and at the end."""
    client_cpu_s: float = 0.0
    """Of this process, warm-up excluded."""

    @property
    def seconds(self) -> float:
        """How long was measured."""
        return self.end_s - self.begin_s

    def reads_due(self) -> list[Read]:
        """Those whose moment was in that time."""
        return [one for one in self.reads if self.begin_s <= one.planned_s <= self.end_s]

    def samples(self, part: str) -> list[Sample]:
        """Of one process, warm-up excluded."""
        return self.usage.during(part, self.begin_s, self.end_s)


async def create_job(client: AsyncOpenAI, batch: int) -> tuple[str, str]:
    """Ids of a supervised job that goes on for long, and of its file."""
    lines = DEMONSTRATIONS.read_text(encoding="utf-8").splitlines()
    rows = [{"messages": json.loads(line)["messages"], "tools": TOOLS} for line in lines]
    data = "".join(json.dumps(row) + "\n" for row in rows)
    file = await client.files.create(file=("demonstrations.jsonl", data.encode()), purpose="fine-tune")
    job = await client.fine_tuning.jobs.create(
        model=MODEL,
        training_file=file.id,
        seed=0,
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": EPOCHS, "batch_size": batch}}},
    )
    return job.id, file.id


async def step_of(client: AsyncOpenAI, job_id: str) -> int:
    """Optimiser steps done. Raises RuntimeError with the last events for a job that has ended."""
    job = await client.fine_tuning.jobs.retrieve(job_id)
    page = await client.fine_tuning.jobs.list_events(job_id, limit=20)
    if job.status not in ("validating_files", "queued", "running"):
        said = "\n".join(event.message for event in page.data)
        raise RuntimeError(f"the training job is {job.status}, expected it to run to the end; its last events:\n{said}")
    steps: list[Any] = [event.data for event in page.data if event.type == "metrics"]
    return max((int(data["step"]) for data in steps), default=0)


async def ready(client: AsyncOpenAI, job_id: str, asked: Asked, options: argparse.Namespace) -> None:
    """Wait until the job has done a step and the engine has its full size: as many answers as it remembers."""
    async with asyncio.timeout(START_S):
        while await step_of(client, job_id) < 1:  # noqa: ASYNC110 (another process does it)
            await asyncio.sleep(1)
        await fill(options.fill, options.streams, asked)


async def run(server: ServerProcess, options: argparse.Namespace) -> Measured:
    """The whole run against a server that listens."""
    measured = Measured(streams=[Stream() for _ in range(options.streams)])
    # No retries: an error must be seen.
    limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
    local = {"Authorization": "Bearer local"}
    async with (
        AsyncOpenAI(base_url=f"{server.url}/v1", api_key="local", max_retries=0) as client,
        httpx.AsyncClient(base_url=f"{server.url}/v1", headers=local, timeout=60, limits=limits) as http,
    ):
        asked = Asked(client=client, model=MODEL, max_tokens=options.tokens, questions=questions())
        job_id, file_id = await create_job(client, options.batch)
        print(f"{server.url}: job {job_id}; waiting for its first step and first answers", flush=True)
        await ready(client, job_id, asked, options)
        job = f"/fine_tuning/jobs/{job_id}"
        paths = [
            "/fine_tuning/jobs",
            job,
            f"{job}/events",
            f"{job}/checkpoints",
            "/files",
            f"/files/{file_id}",
            "/models",
        ]
        loads = [chat(stream, asked, measured.errors) for stream in measured.streams]
        loads += [read(http, paths, options.reads, measured.reads, measured.errors)]
        loads += [measured.usage.watch(server, SAMPLE_S)]
        tasks = [asyncio.create_task(load) for load in loads]
        print(f"{options.streams} streams and {options.reads:g} reads/s: {options.warmup:g} s of warm-up", flush=True)
        await pause(tasks, options.warmup)
        await measure(client, job_id, tasks, measured, options.seconds)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    return measured


async def measure(
    client: AsyncOpenAI, job_id: str, tasks: Sequence[asyncio.Task[None]], measured: Measured, seconds: float
) -> None:
    """The time that counts, with the load going on before and after it."""
    used = psutil.Process().cpu_times()
    first = await step_of(client, job_id)
    measured.begin_s = time.monotonic()
    print(f"measuring for {seconds:g} s", flush=True)
    await pause(tasks, seconds)
    measured.end_s = time.monotonic()
    now = psutil.Process().cpu_times()
    measured.client_cpu_s = now.user + now.system - used.user - used.system
    measured.steps = (first, await step_of(client, job_id))
    # After a stall reads that were due are still to be sent; each says so only by being in the list.
    while measured.reads[-1].planned_s <= measured.end_s:  # noqa: ASYNC110
        await asyncio.sleep(SAMPLE_S / 10)
    await all_done(measured.reads_due())


async def pause(tasks: Sequence[asyncio.Task[None]], seconds: float) -> None:
    """Wait, unless one of the loads has stopped, which is raised."""
    done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
        raise RuntimeError("a load has ended by itself")


def bounds(measured: Measured) -> list[Bound]:
    """Every figure, and what is required of it."""
    rates = [stream.tokens_per_s(measured.begin_s, measured.end_s) for stream in measured.streams]
    latencies_ms = [one.latency_ms for one in measured.reads_due()]
    found = [
        Bound(name="slowest stream", unit="tokens/s", ours=min(rates), limit=1, must_be="at least"),
        Bound(name="median stream", unit="tokens/s", ours=median(rates)),
        Bound(name="all streams", unit="tokens/s", ours=sum(rates)),
        Bound(name="errors", unit="", ours=measured.errors.total(), limit=0),
        Bound(name="reads", unit="/s", ours=len(latencies_ms) / measured.seconds),
        Bound(name="reads, p50", unit="ms", ours=percentile(latencies_ms, 50)),
        Bound(name="reads, p99", unit="ms", ours=percentile(latencies_ms, 99), limit=500, must_be="below"),
        Bound(name="reads, slowest", unit="ms", ours=max(latencies_ms)),
        Bound(name="training steps", unit="", ours=measured.steps[1] - measured.steps[0], limit=1, must_be="at least"),
    ]
    for part in ("server", *PARTS.values()):
        samples = measured.samples(part)
        limit = None if part == "trainer" else 1
        found += [
            Bound(name=f"{part}: memory", unit="MB", ours=max(one.rss_mb for one in samples)),
            Bound(name=f"{part}: growth", unit="MB/min", ours=slope_mb_per_min(samples), limit=limit),
        ]
    return found


def details(measured: Measured, options: argparse.Namespace) -> dict[str, Any]:
    """What a reader needs to judge the figures."""
    due = measured.reads_due()
    begin_s, end_s = measured.begin_s, measured.end_s
    waits = [wait for stream in measured.streams for at, wait in stream.waits if begin_s <= at <= end_s]
    parts = {part: measured.samples(part) for part in ("server", *PARTS.values())}
    cpu = {part: samples[-1].cpu_s - samples[0].cpu_s for part, samples in parts.items()}
    by_path = {path: [one.latency_ms for one in due if one.path == path] for path in {one.path for one in due}}
    return {
        "options": {key: value for key, value in vars(options).items() if key != "json"},
        "errors": dict(measured.errors),
        "tokens_per_s": spread([stream.tokens_per_s(begin_s, end_s) for stream in measured.streams]),
        "first_token_s": spread(waits) if waits else None,
        "answers": sum(begin_s <= at <= end_s for stream in measured.streams for at in stream.answers),
        "reads_p99_ms": {path: round(percentile(found, 99), 1) for path, found in sorted(by_path.items())},
        "client_late_ms": {
            f"p{percent}": round(percentile([1000 * (one.sent_s - one.planned_s) for one in due], percent), 1)
            for percent in (50, 99)
        },
        "cores_busy": {
            part: round(seconds / measured.seconds, 2)
            for part, seconds in {**cpu, "client": measured.client_cpu_s}.items()
        },
        "pids": {part: sorted({one.pid for one in samples}) for part, samples in parts.items()},
        "memory_mb": {
            part: [[round(one.at_s - begin_s, 1), round(one.rss_mb, 1)] for one in samples]
            for part, samples in measured.usage.samples.items()
        },
        "training_steps": list(measured.steps),
    }


def options_from(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line, with sizes that were not given filled in."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct", help="name or folder")
    parser.add_argument("--small", action="store_true", help="to try it out; what is required holds at full size")
    parser.add_argument("--streams", type=int, help="chat streams at once")
    parser.add_argument("--tokens", type=int, help="of an answer at most")
    parser.add_argument("--reads", type=float, help="GETs a second")
    parser.add_argument("--batch", type=int, help="conversations a training step")
    parser.add_argument("--fill", type=int, help="answers before the load")
    parser.add_argument("--warmup", type=float, help="seconds of load before anything counts")
    parser.add_argument("--seconds", type=float, help="that are measured")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    for name, size in SIZES["small" if options.small else "full"].items():
        if getattr(options, name) is None:
            setattr(options, name, size)
        if getattr(options, name) <= 0:
            parser.error(f"--{name}: got {getattr(options, name)}, expected a number above 0")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = options_from(arguments)
    warn_when_busy()
    config = {"aliases": {MODEL: options.model}, "limits": {"requests_per_minute": 1_000_000}}
    with tempfile.TemporaryDirectory(prefix="agentrft-load-") as folder, ServerProcess(Path(folder), config) as server:
        measured = asyncio.run(run(server, options))
    more = details(measured, options)
    deliver("The server under load", bounds(measured), more, options.json)
    print(f"cores busy: {', '.join(f'{part} {cores}' for part, cores in more['cores_busy'].items())}")
    for error, count in measured.errors.items():
        print(f"{count} × {error}")


if __name__ == "__main__":
    main()
