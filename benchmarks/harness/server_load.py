"""What clients ask of a server at the same time: chat streams one after the other, and reads at a steady rate."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import httpx
import openai
from openai import AsyncOpenAI

TOPICS = ("a lighthouse", "two rivers", "bread", "the sea in winter", "a lost key", "old maps", "a small town", "rain")
_PAUSE_S = 0.5
"""After a failed request, so that a server that is down is not asked in a tight loop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """How every chat request is made."""

    client: AsyncOpenAI
    model: str
    max_tokens: int
    """Of an answer."""
    questions: Iterator[str]


@dataclass(slots=True)
class Stream:
    """What one client saw that chats all the time. Moments are of `time.monotonic()`."""

    tokens: list[tuple[float, float]] = field(default_factory=list)
    """When a chunk came, and how many tokens it was."""
    waits: list[tuple[float, float]] = field(default_factory=list)
    """When a request was made, and seconds to its first text."""
    answers: list[float] = field(default_factory=list)
    """When one came to its end."""

    def tokens_per_s(self, begin_s: float, end_s: float) -> float:
        """Over that time, waits between answers included."""
        return sum(n for at, n in self.tokens if begin_s <= at <= end_s) / (end_s - begin_s)


@dataclass(slots=True, kw_only=True)
class Read:
    """One GET. Moments are of `time.monotonic()`."""

    path: str
    planned_s: float
    """When it was due; latency counts from here, so that a stall shows in every read that it delayed."""
    sent_s: float
    """Later than planned where this process was late itself."""
    done_s: float | None = None
    """When the answer, or a failure, was there; None before."""

    @property
    def latency_ms(self) -> float:
        """From the moment it was due to the last byte of its answer. Raises ValueError before it is done."""
        if self.done_s is None:
            raise ValueError(f"GET {self.path} is still under way; wait for it")
        return 1000 * (self.done_s - self.planned_s)


def questions() -> Iterator[str]:
    """No two alike, so that no answer comes out of what an earlier one left behind."""
    for n in itertools.count(1):
        yield f"Tell me story number {n}, about {TOPICS[n % len(TOPICS)]}."


def note(errors: Counter[str], what: str, error: object) -> None:
    """Count an error by what it said."""
    errors[f"{what}: {' '.join(str(error).split())[:300]}"] += 1


async def chat(stream: Stream, asked: Asked, errors: Counter[str]) -> None:
    """Ask, read the answer to its end, ask again; until cancelled."""
    while True:
        try:
            await answer(stream, asked)
        # A connection that breaks inside a stream is raised by httpx itself, a broken chunk as ValueError.
        except (openai.OpenAIError, httpx.HTTPError, ValueError) as error:
            note(errors, "chat", f"{type(error).__name__}: {error}")
            await asyncio.sleep(_PAUSE_S)


async def answer(stream: Stream, asked: Asked) -> None:
    """One request. Chunks count as one token until the usage at the end says how many they were together.

    Raises what the SDK and httpx raise, and ValueError for a stream that ends too early.
    """
    asked_s, before, n_tokens = time.monotonic(), len(stream.tokens), None
    chunks = await asked.client.chat.completions.create(
        model=asked.model,
        messages=[{"role": "user", "content": next(asked.questions)}],
        max_completion_tokens=asked.max_tokens,
        stream=True,
        stream_options={"include_usage": True},
    )
    async with chunks:
        async for chunk in chunks:
            now = time.monotonic()
            if chunk.choices and chunk.choices[0].delta.content:
                if len(stream.tokens) == before:
                    stream.waits.append((asked_s, now - asked_s))
                stream.tokens.append((now, 1.0))
            if chunk.usage is not None:
                n_tokens = chunk.usage.completion_tokens
    if n_tokens is None:
        raise ValueError("the stream ended without its usage")
    came = [at for at, _ in stream.tokens[before:]] or [time.monotonic()]
    stream.tokens[before:] = [(at, n_tokens / len(came)) for at in came]
    stream.answers.append(time.monotonic())


async def fill(n: int, at_once: int, asked: Asked) -> None:
    """Ask `n` questions, so that the server remembers as many conversations, as long ones, as it will under load."""
    free = asyncio.Semaphore(at_once)

    async def one() -> None:
        async with free:
            await answer(Stream(), asked)

    async with asyncio.TaskGroup() as filling:
        for _ in range(n):
            filling.create_task(one())


CONNECTIONS = 32
"""Reads under way at a time; later ones wait, which is in their latency. httpx goes through all that it has under way
at every turn: after a stall of the server, hundreds at once would be a stall of the client's own."""


async def read(
    http: httpx.AsyncClient, paths: Sequence[str], per_s: float, made: list[Read], errors: Counter[str]
) -> None:
    """GET the paths in turn, `per_s` a second, however long earlier ones take; until cancelled."""
    turn = asyncio.Semaphore(CONNECTIONS)
    begin_s = time.monotonic()
    async with asyncio.TaskGroup() as under_way:
        for n in itertools.count():
            planned_s = begin_s + n / per_s
            await asyncio.sleep(planned_s - time.monotonic())
            one = Read(path=paths[n % len(paths)], planned_s=planned_s, sent_s=time.monotonic())
            made.append(one)
            under_way.create_task(_read(http, turn, one, errors))


async def _read(http: httpx.AsyncClient, turn: asyncio.Semaphore, one: Read, errors: Counter[str]) -> None:
    try:
        async with turn:
            answer = await http.get(one.path)
        if answer.status_code != 200:
            raise ValueError(f"{answer.status_code} {answer.text}")
        answer.json()
    except (httpx.HTTPError, ValueError) as error:
        note(errors, f"GET {one.path}", f"{type(error).__name__}: {error}")
    one.done_s = time.monotonic()


async def all_done(reads: Sequence[Read]) -> None:
    """Wait until each of them has its answer or has failed: the slowest must not be left out."""
    while any(one.done_s is None for one in reads):  # noqa: ASYNC110 (there may be thousands of them)
        await asyncio.sleep(0.05)


def percentile(values: Sequence[float], percent: float) -> float:
    """Nearest-rank percentile: the smallest value that `percent` of them do not exceed. Raises ValueError for none."""
    if not values:
        raise ValueError("a percentile needs at least one value; was anything measured?")
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]
