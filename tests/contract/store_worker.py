"""A process of its own that uses a store: `store_worker.py URL JOB NAME MODE COUNT`. Also makes the tests' records.

`write`  add COUNT events, metrics and episodes, one transaction each, and print `NAME KIND I` after each commit
`claim`  claim the job COUNT times for a minute each, and print the token, or `held`
`fenced` claim the job, then count its metric `counter` up by one COUNT times, printing the value after each commit
`status` move the job to `running` and back to `queued`, COUNT times
"""

from __future__ import annotations

import functools
import sys

from agentrft.errors import StoreFault, UserError
from agentrft.protocols import EpisodeRecord
from agentrft.store import SqlStore, open_store
from agentrft.types import Episode, Grade, Message, StopReason, TokenTrace, ToolCall, ToolResult, Turn

say = functools.partial(print, flush=True)


def make_record(
    job_id: str, episode_id: str, *, step: int = 3, item_id: str = "row-1", member: int = 0
) -> EpisodeRecord:
    """A record with something in every field."""
    call = ToolCall(id="call_0_0", name="grep", arguments='{"text":"port"}')
    asked = Message(role="assistant", tool_calls=(call,))
    answered = Message(role="assistant", content="Answer: 8080")
    result = ToolResult(call_id=call.id, output="port: 8080 ☃", is_error=False, wall_s=0.1 + 0.2, bytes_in=12)
    episode = Episode(
        id=episode_id,
        trace_id=f"trace_{episode_id}",
        item_id=item_id,
        step=step,
        member=member,
        attempt=1,
        messages=(
            Message(role="user", content="Which port?"),
            asked,
            Message(role="tool", content=result.output, tool_call_id=call.id),
            answered,
        ),
        turns=(
            Turn(reply=asked, results=(result,), start=2, end=4),
            Turn(reply=answered, malformed="not quite", start=5, end=6),
        ),
        stop_reason=StopReason.ANSWERED,
        tokens=TokenTrace(
            ids=[1, 2, 30000, 4, 5, 6],
            trained=[False, False, True, True, False, True],
            log_probs=[0.0, 0.0, -0.1, -1e-300, 0.0, -2 / 3],
            prompt_tokens=2,
            policy_version=7,
        ),
        wall_s=1 / 3,
    )
    grade = Grade(value=0.1 + 0.7, sub_grades={"exact": 1.0}, wall_s=0.25)
    return EpisodeRecord(
        job_id=job_id,
        phase="train",
        stage="rft",
        episode=episode,
        grade=grade,
        reward=0.7,
        advantage=-1.5,
        extra={"note": ["a", 1]},
    )


def write(store: SqlStore, job_id: str, name: str, count: int) -> None:
    for i in range(count):
        store.add_event(job_id, f"{name} {i}")
        say(name, "event", i)
        store.add_metrics(job_id, i, {name: float(i)})
        say(name, "metrics", i)
        store.add_episodes(job_id, [make_record(job_id, f"ep_{name}_{i}_{k}", step=i) for k in range(3)])
        say(name, "episodes", i)


def claim(store: SqlStore, job_id: str, name: str, count: int) -> None:
    for _ in range(count):
        try:
            say(store.claim_job(job_id, name, lease_s=60.0))
        except UserError:
            say("held")


def fenced(store: SqlStore, job_id: str, name: str, count: int) -> None:
    # The lease is already over when the next process asks: only the token keeps this one out.
    view = store.fenced(job_id, store.claim_job(job_id, name, lease_s=-1.0))
    try:
        for _ in range(count):
            steps = store.list_metrics(job_id)
            view.add_metrics(job_id, len(steps), {"counter": float(len(steps))})
            say(len(steps))
    except StoreFault:
        say("stale")


def status(store: SqlStore, job_id: str, _name: str, count: int) -> None:
    for _ in range(count):
        for after in ("running", "queued"):
            store.set_job_status(job_id, after)
            say(after)


MODES = {"write": write, "claim": claim, "fenced": fenced, "status": status}

if __name__ == "__main__":
    url, job_id, name, mode, count = sys.argv[1:]
    MODES[mode](open_store(url), job_id, name, int(count))
