"""An outside part failed, whatever it was asked: faults, outages, the same call that fails now and then."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from agentrft.detectors.finding import Evidence, Finding, Kind, Owner, by_key, clip
from agentrft.detectors.overflow_words import is_overflow
from agentrft.detectors.values import canonical
from agentrft.detectors.view import Step, View, World
from agentrft.detectors.words import is_outage, is_timeout
from agentrft.types import StopReason

_MIN_GROUP = 5
"""Episodes that made the same call in the same state, before one of them can be called odd."""
_AGREE = 0.8


def find(world: World) -> Iterator[Finding]:
    """One finding per part that failed: a tool by name, else the boundary that a fault names."""
    hits = [*_faults(world), *_outages(world), *_unsteady(world)]
    for part, evidence in by_key(dict.fromkeys(hits)).items():
        yield Finding(
            kind=Kind.ENV_FAULT,
            title=f"{part}: fails by itself",
            owner=Owner.ENV,
            description=f"{part} failed in {len({e.episode_id for e in evidence})} episodes for reasons that are not "
            "the call's. Training would learn the failures.",
            evidence=evidence,
            proposal=f"Mend {part}, or raise `guardrails.retries.transient`; leave these episodes out of the rates.",
            target={"tool": part},
        )


def _faults(world: World) -> Iterator[tuple[str, Evidence]]:
    for view in world.views:
        fault = view.episode.fault or ""
        if view.episode.stop_reason is StopReason.FAULT and not is_timeout(fault) and not is_overflow(fault):
            yield _part(view, fault), view.whole(f"fault: {clip(fault)}", turn=view.last_turn)


def _part(view: View, fault: str) -> str:
    """The tool that a fault names, else its boundary."""
    named = [name for name in view.specs if f"tool {name} " in f"{fault} "]
    called = [call.name for call in view.episode.turns[-1].reply.tool_calls] if view.episode.turns else []
    if named or (fault.startswith("tool") and len(called) == 1):
        return (named or called)[0]
    return fault.partition(":")[0] or "the environment"


def _outages(world: World) -> Iterator[tuple[str, Evidence]]:
    for view in world.views:
        for step in view.steps:
            if step.result is not None and step.result.tries > 1:
                yield step.name, view.at(step, f"answered only at try {step.result.tries}", recovered=True)
            elif step.failed and step.was_asked and is_outage(step.output) and not _repeats_an_argument(step):
                yield step.name, view.at(step, f"{step.shown} → {clip(step.output)}")


def _repeats_an_argument(step: Step) -> bool:
    """Whether the message is about a value of the call: `KeyError: 'usr_9'` is no broken tool."""
    text = step.output.casefold()
    return any(len(value) >= 4 and value.casefold() in text for _, value in step.values())


def _unsteady(world: World) -> Iterator[tuple[str, Evidence]]:
    """The odd ones out where at least five episodes of an item made the same call in the same state."""
    groups: dict[tuple[object, ...], list[tuple[View, Step]]] = {}
    for view in world.views:
        for state, step in _states(view):
            groups.setdefault((view.item_id, *step.key, *state), []).append((view, step))
    large = [group for group in groups.values() if len(group) >= _MIN_GROUP]
    steady = Counter(_name(group) for group in large if len(_odd(group)) <= (1 - _AGREE) * len(group))
    total = Counter(_name(group) for group in large)
    for group in large:
        failed = [(view, step) for view, step in group if step.failed]
        odd = _odd(group)
        if 0 < len(failed) < len(group) / 2:
            yield from _told(failed, f"{len(group) - len(failed)} other episodes were answered in the same state")
        elif (
            not failed
            and len(odd) <= (1 - _AGREE) * len(group)
            and steady[_name(group)] >= _AGREE * total[_name(group)]
        ):
            yield from _told(odd, f"{len(group) - len(odd)} other episodes were told otherwise in the same state")


def _told(some: list[tuple[View, Step]], others: str) -> Iterator[tuple[str, Evidence]]:
    for view, step in some:
        # Who was told something wrong does not get over it by hearing it.
        recovered = view.recovers(step) if step.failed else False
        yield step.name, view.at(step, f"{step.shown} → {clip(step.output, 50)}; {others}", recovered=recovered)


def _states(view: View) -> Iterator[tuple[tuple[object, ...], Step]]:
    """Every call with the state in which it was made: what had been changed, and how often it had been made before.

    A tool of which nobody knows that it only reads may have changed something.
    """
    changes: list[str] = []
    made: Counter[tuple[str, str]] = Counter()
    for turn in range(len(view.episode.turns)):
        steps = [step for step in view.steps if step.turn == turn and step.was_asked]
        yield from (((made[step.key], *changes), step) for step in steps if len(steps) == 1)
        for step in steps:
            made[step.key] += 1
            changes += [] if view.only_reads(step) else [*step.key, canonical(step.output)]


def _name(group: list[tuple[View, Step]]) -> str:
    return group[0][1].name


def _odd(group: list[tuple[View, Step]]) -> list[tuple[View, Step]]:
    """Those whose output is not the usual one."""
    outputs = [canonical(step.output) for _, step in group]
    usual = Counter(outputs).most_common(1)[0][0]
    return [one for one, output in zip(group, outputs, strict=True) if output != usual]
