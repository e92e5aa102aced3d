"""Tools that the agent may be better off without."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from agentrft.optimise.arena import Played
from agentrft.optimise.edit import Edit
from agentrft.optimise.propose.evidence import Evidence

FEWEST_CALLS = 3
MOST = 4


def toolset(evidence: Evidence) -> Iterator[Edit]:
    """Hide what was never called, all at once; then, one by one, what failed episodes call more than passing ones."""
    names = [spec.name for spec in evidence.tools]
    used = {call.tool for call in evidence.calls} & set(names)
    idle = [name for name in names if name not in used]
    if idle and used:
        why = f"{', '.join(idle)}: not called in {len(evidence.played)} episodes"
        yield _hidden(idle, why, ())
    if len(used) < 2:
        return  # an agent without tools is another agent
    ranked = sorted((name for name in names if name in used), key=lambda name: -_excess(evidence, name))
    for name in [name for name in ranked if _can_go(evidence, name)][:MOST]:
        why = f"failed episodes of an item call it {_excess(evidence, name):+.2f} times more than passing ones"
        with_more = [one for gap, failed in _gaps(evidence, name) if gap > 0 for one in failed if _count(one, name)]
        yield _hidden([name], why, tuple(one.episode.id for one in with_more))


def _hidden(names: Sequence[str], why: str, episodes: tuple[str, ...]) -> Edit:
    sets = tuple((("agent", "tool_docs", name, "hidden"), True) for name in names)
    component = f"tool:{names[0]}:hidden" if len(names) == 1 else "tools:idle"
    return Edit(kind="tools", component=component, sets=sets, why=why, evidence=episodes)


def _can_go(evidence: Evidence, name: str) -> bool:
    """It is called, failures are not fewer with it, and no item passes only with it."""
    if len(evidence.calls_of(name)) < FEWEST_CALLS or _excess(evidence, name) < 0:
        return False
    for episodes in _by_item(evidence).values():
        passing = [one for one in episodes if evidence.passed(one)]
        if passing and all(_count(one, name) for one in passing):
            return False
    return True


def _excess(evidence: Evidence, name: str) -> float:
    """Mean calls of it in failed minus in passing episodes of the same item, over items that have both; else 0."""
    gaps = [gap for gap, _ in _gaps(evidence, name)]
    return sum(gaps) / len(gaps) if gaps else 0.0


def _gaps(evidence: Evidence, name: str) -> list[tuple[float, list[Played]]]:
    """For each item with both: mean calls in failed minus in passing episodes, and its failed episodes."""
    gaps = []
    for episodes in _by_item(evidence).values():
        failed, passing = ([one for one in episodes if evidence.passed(one) is side] for side in (False, True))
        if failed and passing:
            means = [sum(_count(one, name) for one in side) / len(side) for side in (failed, passing)]
            gaps.append((means[0] - means[1], failed))
    return gaps


def _by_item(evidence: Evidence) -> dict[str, list[Played]]:
    found: dict[str, list[Played]] = {}
    for one in evidence.played:
        found.setdefault(one.episode.item_id, []).append(one)
    return found


def _count(one: Played, name: str) -> int:
    return sum(call.name == name for turn in one.episode.turns for call in turn.reply.tool_calls)
