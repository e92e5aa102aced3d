"""The web service behind the tools of parcels: `python server.py --port 8765`, then POST /call (docs/http-tools.md).

What the model got wrong is answered with 422 and an `output`, which it reads as an error. Arguments have been checked
against the schema by whoever calls, so anything else that goes wrong is a mistake of the job's: 500, and the episode
is void. It listens on 127.0.0.1 only and asks nobody who he is.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from itertools import takewhile

import uvicorn
from depot import Depot
from fastapi import FastAPI, Response

KEEP_S = 900.0
"""A depot that nobody has used for this long is forgotten: more than an episode may take (`max_time_s`)."""


@dataclass(frozen=True)
class Call:
    """One call of a tool, as Agent RFT sends it."""

    id: str
    call_id: str
    name: str
    arguments: str
    trace_id: str
    item: dict


@dataclass(frozen=True)
class Done:
    """A call and what it was answered."""

    call: Call
    status: int
    output: str

    def answers(self, call: Call) -> bool:
        return (self.call.name, self.call.arguments) == (call.name, call.arguments)


class Episode:
    """The depot of one episode and the calls that made it what it is."""

    def __init__(self, parcels: dict[str, str]) -> None:
        self.used_at = 0.0
        self._parcels = parcels
        self._depot = Depot(parcels)
        self._done: dict[str, Done] = {}

    def answer(self, call: Call) -> Done:
        """Do a new call; a call that comes again gets the same answer, and nothing is done."""
        known = self._done.get(call.call_id)
        if known is None or not known.answers(call):
            if known is not None:
                self._go_back_before(call.call_id)
            known = self._done[call.call_id] = self._do(call)
        return known

    def _go_back_before(self, call_id: str) -> None:
        """Undo this call and later ones: a job that was killed plays its last episodes again, perhaps differently."""
        kept = list(takewhile(lambda done: done.call.call_id != call_id, self._done.values()))
        self._depot = Depot(self._parcels)
        self._done = {done.call.call_id: self._do(done.call) for done in kept}

    def _do(self, call: Call) -> Done:
        tools = {"list": self._depot.list, "find": self._depot.find, "move": self._depot.move}
        try:
            return Done(call, 200, tools[call.name](**json.loads(call.arguments)))
        except ValueError as mistake:
            return Done(call, 422, str(mistake))


class Episodes:
    """The running episodes, the longest unused first; safe to use from several threads."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._episodes: dict[tuple[str, str], Episode] = {}

    def answer(self, call: Call) -> Done:
        """The answer to a call, in the depot of its `trace_id` and row, which its first call builds."""
        key = (call.trace_id, call.item["id"])
        with self._lock:
            episode = self._episodes.pop(key, None) or Episode(call.item["parcels"])
            episode.used_at = self._now()
            self._episodes[key] = episode
            self._forget_unused(episode.used_at)
            return episode.answer(call)

    def __len__(self) -> int:
        return len(self._episodes)

    def _forget_unused(self, now: float) -> None:
        for key in list(takewhile(lambda key: self._episodes[key].used_at < now - KEEP_S, self._episodes)):
            del self._episodes[key]


def make_app(episodes: Episodes) -> FastAPI:
    """The service over these episodes."""
    app = FastAPI()

    @app.post("/call")
    async def answer(body: dict) -> Response:
        call = Call(**{field.name: body[field.name] for field in fields(Call)})
        done = episodes.answer(call)
        ids = {"call_id": call.call_id, "id": call.id}
        # ASCII: half a surrogate pair in what the model wrote survives as an escape.
        content = json.dumps({"type": "function_call_output", **ids, "output": done.output})
        return Response(content, done.status, media_type="application/json")

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve the tools of parcels.")
    parser.add_argument("--port", type=int, default=8765, help="0 takes a free one.")
    port = parser.parse_args().port
    try:
        listening = socket.create_server(("127.0.0.1", port))
    except OSError as error:
        sys.exit(
            f"error: port {port} cannot be used: {error.strerror}. Expected a free one; stop what listens there "
            "(another run of this example?), or write another one into job.yaml"
        )
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # asyncio sets it for its own sockets only: 40 ms
    # Whoever starts this waits for the line: from here on connections are answered, if only when uvicorn is up.
    print(f"listening on http://127.0.0.1:{listening.getsockname()[1]}/call", flush=True)
    uvicorn.Server(uvicorn.Config(make_app(Episodes()), log_level="warning")).run(sockets=[listening])


if __name__ == "__main__":
    main()
