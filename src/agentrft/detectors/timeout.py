"""A call, or the whole episode, took too long."""

from __future__ import annotations

from collections.abc import Iterator

from agentrft.detectors.finding import Evidence, Finding, Kind, Owner, by_key, clip
from agentrft.detectors.view import View, World
from agentrft.detectors.words import is_outage, is_timeout
from agentrft.types import StopReason


def find(world: World) -> Iterator[Finding]:
    """One finding per tool that is too slow, one for episodes."""
    hits = [hit for view in world.views for hit in _hits(view)]
    for part, evidence in by_key(hits).items():
        yield Finding(
            kind=Kind.TIMEOUT,
            title=f"{part}: too slow",
            owner=Owner.ENV,
            description=f"{part} takes too long in {len({e.episode_id for e in evidence})} episodes.",
            evidence=evidence,
            proposal=f"Make {part} faster (narrower queries, pages), or raise "
            f"{'`agent.limits.max_time_s`' if part == 'the episode' else '`agent.limits.tool_timeout_s`'}.",
            target={} if part == "the episode" else {"tool": part},
        )


def _hits(view: View) -> Iterator[tuple[str, Evidence]]:
    fault = view.episode.fault or ""
    if view.episode.stop_reason is StopReason.MAX_TIME:
        yield "the episode", view.whole(f"ended after {view.episode.wall_s:.0f} s", turn=view.last_turn)
    elif view.is_fault and is_timeout(fault):
        calls = view.episode.turns[-1].reply.tool_calls if view.episode.turns else ()
        named = [call.name for call in calls if f"tool {call.name} " in fault]
        part = (
            named[0]
            if named
            else calls[0].name
            if len(calls) == 1 and fault.startswith("tool")
            else fault.partition(":")[0]
        )
        yield part, view.whole(f"fault: {clip(fault)}", turn=view.last_turn)
    for step in view.steps:
        # A rule of the tool's own ("the query takes too long") is about the query, and a timeout all the same.
        if step.failed and step.was_asked and is_timeout(step.output) and not _is_other_outage(step.output):
            yield step.name, view.at(step, f"{step.shown} → {clip(step.output)}")


def _is_other_outage(text: str) -> bool:
    return is_outage(text) and not is_timeout(text)
