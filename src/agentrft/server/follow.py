"""A job's events as server-sent events: `id` is the event's, `data` the event object, until the job is final.

Each connection reads the store for itself and holds one page at most, so a slow client costs no memory; one that stops
reading is dropped. `Last-Event-ID` goes on where a broken connection was.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from anyio import to_thread
from sse_starlette import EventSourceResponse, ServerSentEvent

from agentrft.jobs.event_object import event_object
from agentrft.server.state import ServerState
from agentrft.store import SqlStore
from agentrft.store.states import FINAL

PAGE = 100
HEARTBEAT_S = 15
_LOOK_EVERY_S = 0.5
_STALLED_S = 30.0
"""A client that takes nothing for so long has gone."""


def follow(state: ServerState, job_id: str, *, after: str | None = None) -> EventSourceResponse:
    """The stream of one job, whose events after `after` come first; raises UserError where that is no event's id."""
    state.store.list_events(job_id, after=after, limit=1)
    return EventSourceResponse(
        _events(state, job_id, after),
        sep="\n",
        ping=HEARTBEAT_S,
        send_timeout=_STALLED_S,
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _events(state: ServerState, job_id: str, after: str | None) -> AsyncIterator[ServerSentEvent]:
    while not state.is_stopping:
        is_final, page = await to_thread.run_sync(_look, state.store, job_id, after)
        for event in page:
            after = event["id"]
            yield ServerSentEvent(json.dumps(event_object(event)), id=after, event=event["type"], sep="\n")
        if len(page) < PAGE:
            if is_final:
                yield ServerSentEvent("[DONE]", event="done", sep="\n")
                return
            await asyncio.sleep(_LOOK_EVERY_S)


def _look(store: SqlStore, job_id: str, after: str | None) -> tuple[bool, list[dict[str, Any]]]:
    """Whether the job was final, and then the next events: what is written between the two reads is still sent."""
    is_final = store.get_job(job_id)["status"] in FINAL
    return is_final, store.list_events(job_id, after=after, limit=PAGE)
