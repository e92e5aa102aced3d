"""One optimisation from top to bottom: baseline, menu, search, prune, confirm.

Search and confirmation use different items. "No reliable change" is a normal result.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from agentrft.errors import BoundaryError
from agentrft.optimise.arena import Arena, Play, Played, slots_of
from agentrft.optimise.confirm import Confirmation, confirm
from agentrft.optimise.edit import Edit
from agentrft.optimise.evolve import evolve
from agentrft.optimise.plan import OptimisePlan, Split
from agentrft.optimise.propose import Evidence, propose
from agentrft.optimise.search import Kept, Tell, combine, halve, prune
from agentrft.types import ToolSpec
from agentrft.writing import write_whole

Verdict = Literal["adopted", "no_reliable_change", "nothing_to_try"]
SMALL_MENU = 10
"""Edits that are halved whatever the budget."""
_BASELINE_SHARE, _PRUNE_SHARE = 0.25, 0.15
_MOST_FAULTS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What an optimisation found."""

    verdict: Verdict
    menu: Sequence[Edit]
    """Everything that was tried."""
    kept: Sequence[Kept]
    """The winner's edits; adopted only where the verdict says so."""
    confirmation: Confirmation | None
    """None where there was no winner to confirm."""
    searched: float | None
    """Gain that the search itself saw, for comparison only: it flatters."""
    spent: int
    """Episodes."""


async def optimise(
    plan: OptimisePlan,
    split: Split,
    play: Play,
    document: Mapping[str, Any],
    tools: Sequence[ToolSpec],
    folder: Path,
    *,
    further: Callable[[Evidence], Awaitable[Sequence[Edit]]] | None = None,
    tell: Tell = lambda text: None,
) -> Outcome:
    """Find edits of the job `document` that raise the reward, and confirm them.

    `folder` keeps what was played; the same call on the same folder goes on where it was interrupted. `further` are
    proposers of the caller's, with a language model for example. Raises UserError for a document that is no job, and
    BoundaryError when most of the baseline's episodes are faults.
    """
    reserve = plan.confirm_cost(len(split.confirm))
    arena = Arena(play, document, split.search, plan.budget - reserve, folder / "search.jsonl")
    menu = await _menu(plan, arena, tools, folder / "menu.json", further, tell)
    tell(f"{len(menu)} edits to try, {arena.left} episodes to search with, {reserve} kept to confirm")
    if not menu:
        return Outcome(verdict="nothing_to_try", menu=(), kept=(), confirmation=None, searched=None, spent=arena.spent)
    to_prune = int(arena.left * _PRUNE_SHARE)
    winner = await _search(plan, arena, menu, arena.left - to_prune, tell)
    kept = await prune(arena, winner, to_prune, tell)
    for components, why in arena.unplayable.items():
        tell(f"{components} could not be played: {why}")
    edits = [one.edit for one in kept]
    if not edits:
        return Outcome(
            verdict="no_reliable_change", menu=menu, kept=(), confirmation=None, searched=None, spent=arena.spent
        )
    seen = await arena.gains(edits, [], slots_of(len(arena.items), 0, min(len(arena.items), max(arena.left // 2, 0))))
    untouched = Arena(play, document, split.confirm, reserve, folder / "confirm.jsonl")
    confirmation = await confirm(untouched, edits, plan.confirm_samples)
    return Outcome(
        verdict="adopted" if confirmation.adopted else "no_reliable_change",
        menu=menu,
        kept=kept,
        confirmation=confirmation,
        searched=sum(seen) / len(seen) if seen else None,
        spent=arena.spent + untouched.spent,
    )


async def _menu(
    plan: OptimisePlan,
    arena: Arena,
    tools: Sequence[ToolSpec],
    kept: Path,
    further: Callable[[Evidence], Awaitable[Sequence[Edit]]] | None,
    tell: Tell,
) -> list[Edit]:
    """Play the job as it is, and let proposers read the episodes; as it was, when that has been done before."""
    count = min(plan.samples * len(arena.items), int(plan.budget * _BASELINE_SHARE))
    slots = slots_of(len(arena.items), 0, count)
    known = _read_menu(kept)
    if known is not None:
        await arena.tallies([], slots)
        return known
    tell(f"baseline: {count} episodes on {min(count, len(arena.items))} items")
    played = await arena.play([], slots)
    _check_playable(played)
    evidence = Evidence(
        document=arena.document,
        items=arena.items,
        played=played,
        tools=tools,
        pass_threshold=plan.pass_threshold,
    )
    menu = propose(evidence, plan, await further(evidence) if further else ())
    _write_menu(menu, kept)
    return menu


async def _search(plan: OptimisePlan, arena: Arena, menu: Sequence[Edit], budget: int, tell: Tell) -> list[Edit]:
    if budget >= plan.evolve_from and len(menu) > SMALL_MENU:
        return await evolve(arena, menu, budget, seed=plan.seed, tell=tell)
    arms = await halve(arena, menu, budget * 4 // 5, tell)
    return await combine(arena, arms, budget // 5, tell)


def _check_playable(played: Sequence[Played]) -> None:
    without = sum(one.tally.reward is None for one in played)
    if without > _MOST_FAULTS * len(played):
        raise BoundaryError(
            f"{without} of {len(played)} episodes of the job as it is have no reward; mend its tools or grader first "
            "(`agentrft diagnose` shows what failed)"
        )


def _write_menu(menu: Sequence[Edit], path: Path) -> None:
    write_whole(path, json.dumps([asdict(edit) for edit in menu], indent=1))


def _read_menu(path: Path) -> list[Edit] | None:
    return [_edit(document) for document in json.loads(path.read_text(encoding="utf-8"))] if path.is_file() else None


def _edit(document: Mapping[str, Any]) -> Edit:
    """What `asdict` made, after JSON."""
    return Edit(
        kind=document["kind"],
        component=document["component"],
        sets=tuple((tuple(place), value) for place, value in document["sets"]),
        adds=tuple((tuple(place), told, sentence) for place, told, sentence in document["adds"]),
        why=document["why"],
        evidence=tuple(document["evidence"]),
        share=document.get("share", 0.0),  # menus of before have none
        files=document["files"],
    )
