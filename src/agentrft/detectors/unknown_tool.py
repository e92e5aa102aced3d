"""Calls of tools that are not offered, near misses of a name among them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rapidfuzz.distance import OSA

from agentrft.detectors.finding import Evidence, Finding, Kind, Owner, by_key
from agentrft.detectors.view import View, World

_NAME = re.compile(r"[A-Za-z_][\w.-]{1,40}")
_NO_TOOL = re.compile(r"\b(no|unknown)\s+tool\b", re.IGNORECASE)
_PROSE = frozenset(
    re.findall(
        r"\w+",
        "a an the i it in to of is and or as at on for from with this that there here we you he she they my your what "
        "how when where who which why yes no not ok okay answer sure let please can could will would first then",
    )
)
_MIN_EPISODES = 3


def find(world: World) -> Iterator[Finding]:
    """One finding per name that does not exist."""
    hits = [*_calls(world), *((name, _evidence(view, turn, name)) for view, turn, name in named_in_vain(world))]
    offered = sorted({name for view in world.views for name in view.specs})
    for name, evidence in by_key(hits).items():
        near = nearest(name, offered)
        hint = f"; did it mean `{near}`?" if near else ""
        yield Finding(
            kind=Kind.UNKNOWN_TOOL,
            title=f"{name}: called, but not offered{hint}",
            owner=Owner.INTERFACE,
            description=f"`{name}` is no tool here; offered are {', '.join(offered) or 'none'}.",
            evidence=evidence,
            proposal=f"Rename `{near}` to `{name}`, or say its name in the prompt."
            if near
            else f"Offer a tool `{name}`, rename the one that does it, or list the tools in the prompt.",
            target={"called": name, **({"tool": near} if near else {})},
        )


def nearest(name: str, offered: list[str]) -> str | None:
    """The offered name within one or two edits, by its length, or equal but for case and separators."""

    def flat(text: str) -> str:
        return re.sub(r"[\W_]", "", text).casefold()

    same = [one for one in offered if flat(one) == flat(name)]
    close = [one for one in offered if OSA.distance(one, name) <= _edits(min(len(one), len(name)))]
    return next(iter([*same, *close]), None)


def _edits(length: int) -> int:
    """How many edits leave a name recognisable: of three letters every change makes another word."""
    return 0 if length < 4 else 1 if length < 6 else 2


def named_in_vain(world: World) -> list[tuple[View, int, str]]:
    """(episode, turn, name) of unreadable replies that stand for a call of a tool that does not exist.

    Where a call is a line of text, a sentence and a wrong name look alike: the name must be close to an offered one, or
    be tried in several episodes with something behind it.
    """
    tried: dict[str, list[tuple[View, int, str]]] = {}
    for view in world.views:
        for number, turn in enumerate(view.episode.turns):
            name, _, rest = (turn.reply.content or "").strip().partition(" ")
            if turn.malformed and _NO_TOOL.search(turn.malformed[:200]) and _NAME.fullmatch(name) and rest.strip():
                tried.setdefault(name, []).append((view, number, name))
    return [
        hit
        for name, hits in tried.items()
        if name.casefold() not in _PROSE
        for hit in hits
        if nearest(name, list(hit[0].specs))
        or (name[0].islower() and len({view.id for view, _, _ in hits}) >= _MIN_EPISODES)
    ]


def _calls(world: World) -> Iterator[tuple[str, Evidence]]:
    for view in world.views:
        for step in view.steps:
            if view.specs and step.name not in view.specs and not step.succeeded:
                later = any(other.succeeded for other in view.steps if other.turn > step.turn)
                yield step.name, view.at(step, f"{step.shown}: no such tool", recovered=later)


def _evidence(view: View, turn: int, name: str) -> Evidence:
    later = any(step.succeeded for step in view.steps if step.turn > turn)
    note = f"{name}: no such tool"
    return Evidence(episode_id=view.id, item_id=view.item_id, turn=turn, call=None, note=note, recovered=later)
