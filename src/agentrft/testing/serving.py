"""For tests of servers: an engine that plays from a script, and an application that really listens."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from agentrft.runtime.serving.wire import (
    CallMade,
    ChatEvent,
    ChatRequest,
    DrawnToken,
    Ended,
    LikelyToken,
    Started,
    TextDelta,
    check_bundle,
)
from agentrft.types import TokenUsage

if TYPE_CHECKING:
    import uvicorn

_PROMPT_TOKENS = 7


class ScriptedEngine:
    """Plays each request's reply from the next line of the script, the last one again and again.

    A line is a text, a list of events and pauses (seconds) that may end in an exception, or a function of the request
    that gives one of these. `requests` are those that came, `n_open` counts replies that are being played.
    """

    pid = 1
    starts = 1

    def __init__(self, *script: Line) -> None:
        self.requests: list[ChatRequest] = []
        self.n_open = 0
        self.plays(*script)

    def plays(self, *script: Line) -> None:
        """Go on with these lines."""
        self._script = list(script)

    async def chat(self, request: ChatRequest) -> AsyncGenerator[ChatEvent, None]:
        """The events of one reply; as the real one, it refuses another bundle than the model's."""
        check_bundle(request)
        self.requests.append(request)
        line = self._script.pop(0) if len(self._script) > 1 else self._script[0]
        played = line(request) if callable(line) else line
        steps = text_reply(request, played) if isinstance(played, str) else played
        self.n_open += 1
        try:
            for step in steps:
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, int | float):
                    await asyncio.sleep(step)
                else:
                    yield step
        finally:
            self.n_open -= 1

    async def close(self) -> None:
        """Nothing runs."""


Step = ChatEvent | Exception | float
Line = str | Sequence[Step] | Callable[[ChatRequest], "str | Sequence[Step]"]


def text_reply(request: ChatRequest, text: str) -> list[Step]:
    """A reply of that text, a word a token, cut off at the request's `max_tokens`."""
    words = [word for word in text.replace(" ", " \n").split("\n") if word]
    most = len(words) if request.max_tokens is None else request.max_tokens
    deltas = [TextDelta(text=word, tokens=_tokens(request, word)) for word in words[:most]]
    cut = most < len(words)
    return [Started(prompt_tokens=_PROMPT_TOKENS), *deltas, _end("length" if cut else "stop", len(deltas) + (not cut))]


def call_reply(*calls: tuple[str, str], text: str = "") -> list[Step]:
    """A reply that makes these calls (name, JSON arguments), after a text if there is one."""
    said: list[Step] = [TextDelta(text=text)] if text else []
    made = [CallMade(index=k, id=f"call_{k}", name=name, arguments=given) for k, (name, given) in enumerate(calls)]
    return [Started(prompt_tokens=_PROMPT_TOKENS), *said, *made, _end("tool_calls", 5)]


def _end(reason: Literal["stop", "length", "tool_calls"], n_tokens: int) -> Ended:
    usage = TokenUsage(prompt_tokens=_PROMPT_TOKENS, completion_tokens=n_tokens, cached_tokens=3)
    return Ended(finish_reason=reason, usage=usage, policy_version=0)


def _tokens(request: ChatRequest, word: str) -> tuple[DrawnToken, ...]:
    if not request.logprobs:
        return ()
    likely = LikelyToken(token=word, bytes=tuple(word.encode()), log_prob=-0.5)
    top = (likely,) * request.top_logprobs
    return (DrawnToken(token=word, bytes=likely.bytes, log_prob=likely.log_prob, top=top),)


@contextlib.contextmanager
def listening(app: Any, **options: Any) -> Iterator[str]:
    """Serves an ASGI application on 127.0.0.1 from a thread of its own; gives its URL, without a path."""
    import uvicorn

    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", **options)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield f"http://127.0.0.1:{_port(server, thread)}"
    finally:
        server.should_exit = True
        thread.join(timeout=20)


def _port(server: uvicorn.Server, thread: threading.Thread) -> int:
    while not server.started:
        thread.join(timeout=0.01)
        if not thread.is_alive():
            raise RuntimeError("the server did not start; its log says why")
    return server.servers[0].sockets[0].getsockname()[1]
