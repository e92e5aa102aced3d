"""Which edits help, on few episodes: successive halving of single edits, then the survivors together.

Every comparison is paired: both candidates play the same items under the same seeds. Nothing here is significant, and
need not be: what comes out is measured on untouched items before anyone believes it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from agentrft.optimise.arena import Arena, slots_of
from agentrft.optimise.edit import Edit

FINALISTS = 4
PRIOR_SLOTS, PRIOR_GAIN = 8, 0.25
"""What failed episodes say for an edit weighs like so many slots, in which it gained so much of their share."""
FEWEST_SLOTS = 4
Tell = Callable[[str], None]


@dataclass(slots=True)
class Arm:
    """A single edit, and what it gained over the job in each slot so far."""

    edit: Edit
    gains: list[float] = field(default_factory=list)

    @property
    def mean(self) -> float:
        """Mean gain; 0 before the first slot."""
        return math.fsum(self.gains) / len(self.gains) if self.gains else 0.0

    @property
    def promise(self) -> float:
        """What arms are ranked by: the mean gain, and what speaks for the edit from the start, which slots outweigh."""
        expected = PRIOR_SLOTS * PRIOR_GAIN * self.edit.share
        return (math.fsum(self.gains) + expected) / (len(self.gains) + PRIOR_SLOTS)


async def halve(arena: Arena, menu: Sequence[Edit], budget: int, tell: Tell = lambda text: None) -> list[Arm]:
    """The menu's best edits, best first: each round halves them and plays the rest in further slots.

    Spends at most `budget` episodes; edits at the end of the menu that it does not reach for are left out.
    Source: Karnin, Koren and Somekh 2013, sequential halving.
    """
    reach = _reach(len(menu), budget)
    if reach < len(menu):
        tell(f"the budget reaches for {reach} of {len(menu)} edits")
    arms = [Arm(edit) for edit in menu[:reach]]
    rounds = _rounds(len(arms))
    start, end = 0, arena.spent + budget
    for number in range(rounds):
        share = (end - arena.spent) // (rounds - number)
        count = min(share // (len(arms) + 1), 2 * len(arena.items))
        if count < FEWEST_SLOTS:
            break
        slots = slots_of(len(arena.items), start, count)
        for arm in arms:
            arm.gains += await arena.gains([arm.edit], [], slots)
        start += count
        arms.sort(key=lambda arm: (-arm.promise, arm.edit.key))
        tell(f"round {number + 1} of {rounds}: {len(arms)} edits, best {arms[0].mean:+.3f} ({arms[0].edit.component})")
        kept = max(FINALISTS, math.ceil(len(arms) / 2))
        arms = arms[:kept]
    return [arm for arm in arms if arm.mean > 0]


def _reach(n_edits: int, budget: int) -> int:
    """The most edits that can all play in the first round, one at least."""
    can_all_play = (n for n in range(n_edits, 1, -1) if budget // _rounds(n) >= FEWEST_SLOTS * (n + 1))
    return next(can_all_play, 1)


def _rounds(n_arms: int) -> int:
    """Those that halve the arms down to the finalists, and one among these."""
    return max(0, math.ceil(math.log2(n_arms / FINALISTS))) + 1


async def combine(arena: Arena, arms: Sequence[Arm], budget: int, tell: Tell = lambda text: None) -> list[Edit]:
    """The best edit, and each further one that gains something on top of those before it."""
    chosen = [arm.edit for arm in arms[:1]]
    rest = [arm.edit for arm in arms[1:]]
    end = arena.spent + budget
    for number, edit in enumerate(rest):
        if edit.component in {one.component for one in chosen}:
            continue
        count = min((end - arena.spent) // (2 * (len(rest) - number)), len(arena.items))
        if count < FEWEST_SLOTS:
            break
        gains = await arena.gains([*chosen, edit], chosen, slots_of(len(arena.items), 0, count))
        if gains and math.fsum(gains) > 0:
            chosen.append(edit)
            tell(f"together with {edit.component}: {math.fsum(gains) / len(gains):+.3f} more")
    return chosen


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """An edit of the winner, and what is lost without it."""

    edit: Edit
    loss_without: float
    """Mean reward that the winner loses when only this edit is taken away; 0 where it is the only one."""
    n_slots: int


async def prune(arena: Arena, edits: Sequence[Edit], budget: int, tell: Tell = lambda text: None) -> list[Kept]:
    """The winner without its passengers: edits whose absence costs nothing. At least one stays.

    Search accepts harmless edits by luck; a smaller change is reviewed more easily, and transfers better.
    """
    kept = list(edits)
    losses: dict[str, tuple[float, int]] = {edit.key: (0.0, 0) for edit in edits}
    end = arena.spent + budget
    for number, edit in enumerate(reversed(edits)):
        if len(kept) == 1:
            break
        count = min((end - arena.spent) // (2 * (len(edits) - number)), len(arena.items))
        if count < FEWEST_SLOTS:
            break
        others = [one for one in kept if one is not edit]
        # From the far end of the items: the near end chose the edit, and flatters it.
        slots = slots_of(len(arena.items), len(arena.items) - count, count)
        gains = await arena.gains(kept, others, slots)
        loss = math.fsum(gains) / len(gains) if gains else 0.0
        losses[edit.key] = (loss, len(gains))
        if loss <= 0:
            kept = others
            tell(f"without {edit.component} nothing is lost: left out")
    return [Kept(edit=edit, loss_without=losses[edit.key][0], n_slots=losses[edit.key][1]) for edit in kept]
