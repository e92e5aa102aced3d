"""A limit ended the episode: turns, the length of a reply, time, or a budget of the guardrails."""

from __future__ import annotations

from collections.abc import Iterator

from agentrft.detectors.finding import Evidence, Finding, Kind, Owner, by_key
from agentrft.detectors.view import View, World
from agentrft.types import StopReason

_LIMITS = {
    StopReason.MAX_TURNS: "max_turns",
    StopReason.MAX_REPLY_TOKENS: "max_reply_tokens",
    StopReason.MAX_TIME: "max_time_s",
}


def find(world: World) -> Iterator[Finding]:
    """One finding per limit."""
    hits = [hit for view in world.views if (hit := _hit(view)) is not None]
    for limit, evidence in by_key(hits).items():
        now = getattr(world.views[0].seen.limits, limit, None)
        yield Finding(
            kind=Kind.NO_STOP,
            title=f"{limit}: reached without an answer",
            owner=Owner.HARNESS,
            description=f"`{limit}` ends {len({e.episode_id for e in evidence})} episodes before they answer.",
            evidence=evidence,
            proposal=f"Raise `{limit}`{f' (now {now:g})' if now is not None else ''}, tell the model what is left, or "
            "make outputs shorter so that fewer calls do.",
            target={"limit": limit},
        )


def _hit(view: View) -> tuple[str, Evidence] | None:
    stop, turn = view.episode.stop_reason, view.last_turn
    if stop in _LIMITS:
        return _LIMITS[stop], view.whole(f"ended by {_LIMITS[stop]}, after {len(view.steps)} calls", turn=turn)
    for step in view.steps:
        spent = (
            next((one.rule for one in step.result.interventions if _is_budget(one.rule) and one.enforced), None)
            if step.result
            else None
        )
        if spent is not None and (stop is StopReason.GUARDRAIL or not view.answered):
            return spent, view.at(step, f"{step.shown}: {spent} is used up", recovered=False)
    return None


def _is_budget(rule: str) -> bool:
    return rule.startswith("budgets.") or rule.endswith(".max_calls")
