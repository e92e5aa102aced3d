"""The conversation no longer fits: the model's context, or `max_episode_tokens`."""

from __future__ import annotations

from collections.abc import Iterator

from agentrft.detectors.finding import Evidence, Finding, Kind, Owner, clip
from agentrft.detectors.overflow_words import is_overflow
from agentrft.detectors.view import View, World
from agentrft.types import StopReason


def find(world: World) -> Iterator[Finding]:
    """One finding for the run."""
    evidence = tuple(one for view in world.views if (one := _evidence(view)) is not None)
    if evidence:
        yield Finding(
            kind=Kind.CONTEXT_OVERFLOW,
            title="the conversation no longer fits",
            owner=Owner.OUTPUT,
            description=f"{len(evidence)} episodes end because prompt, replies and tool results are too long together.",
            evidence=evidence,
            proposal="Lower `agent.limits.tool_output_tokens`, page or project long outputs, or raise "
            "`agent.limits.max_episode_tokens` up to the model's context.",
        )


def _evidence(view: View) -> Evidence | None:
    if view.episode.stop_reason is StopReason.MAX_EPISODE_TOKENS:
        longest = max(view.steps, key=lambda step: len(step.output), default=None)
        note = f"; its longest result is {longest.shown}, {len(longest.output):,} characters" if longest else ""
        return view.whole(f"ended by max_episode_tokens{note}", turn=view.last_turn)
    fault = view.episode.fault or ""
    if view.is_fault and is_overflow(fault):
        return view.whole(f"fault: {clip(fault)}", turn=view.last_turn)
    return None
