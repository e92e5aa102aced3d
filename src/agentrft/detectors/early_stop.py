"""An answer before the work was done, with more than half of the turns left."""

from __future__ import annotations

from collections.abc import Iterator

from agentrft.detectors.finding import Evidence, Finding, Kind, Owner
from agentrft.detectors.plan import Plan, done, plan_for
from agentrft.detectors.refusal_or_empty import refuses
from agentrft.detectors.view import View, World

_ROOM = 0.5
_MIN_CALLING = 5


def find(world: World) -> Iterator[Finding]:
    """One finding for the run."""
    evidence = tuple(_evidence(world))
    if evidence:
        yield Finding(
            kind=Kind.EARLY_STOP,
            title="answers before the work is done",
            owner=Owner.AGENT,
            description="Episodes answer while calls that successful ones make are missing and more than half of the "
            "turns are left.",
            evidence=evidence,
            proposal="Put a checklist into the prompt: what must have been called, and seen, before answering.",
        )


def _evidence(world: World) -> Iterator[Evidence]:
    calls_pay = _calls_pay(world)
    for view in world.views:
        if not view.answered or len(view.episode.turns) > _ROOM * view.seen.limits.max_turns:
            continue
        plan = plan_for(world, view)
        missing = _missing_tail(view, plan) if plan is not None else []
        if missing:
            note = f"answered after {len(view.steps)} calls, without {', '.join(missing)}"
            yield view.whole(note, turn=view.last_turn)
        elif plan is None and calls_pay and view.passed is False and _did_nothing(view):
            yield view.whole("answered without a call, as no success of the run does", turn=view.last_turn)


def _calls_pay(world: World) -> bool:
    """Whether most episodes of the run call tools, and nobody succeeds without: then answering at once is too early."""
    called = [view for view in world.views if view.steps]
    free = any(view.passed for view in world.views if _did_nothing(view))
    return len(called) >= _MIN_CALLING and 2 * len(called) >= len(world.views) and not free


def _did_nothing(view: View) -> bool:
    return bool(view.specs) and not view.steps and len(view.episode.turns) == 1 and not refuses(view.answer)


def _missing_tail(view: View, plan: Plan) -> list[str]:
    """The last part of the plan, where all before it was done and nothing else was tried for it."""
    have = done(view)
    tried = {step.name for step in view.steps}
    missing = [name for name in plan.core if name not in have]
    is_tail = list(plan.core[len(plan.core) - len(missing) :]) == missing
    gave_up = bool(tried & set(missing)) or bool(tried - plan.used)
    return missing if missing and is_tail and not gave_up else []
