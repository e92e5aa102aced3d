"""What an optimisation may spend and touch, and which items serve which purpose."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from agentrft.errors import UserError
from agentrft.optimise.edit import KINDS, Kind
from agentrft.types import Item

FEWEST_ITEMS = 20
_CONFIRM_SHARE = 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimisePlan:
    """Sizes and limits."""

    budget: int = 1200
    """Episodes in all, those that confirm among them."""
    samples: int = 4
    """Episodes per item of the baseline."""
    confirm_samples: int = 2
    """Episodes per item and side when the winner is confirmed."""
    kinds: Sequence[Kind] = KINDS
    locks: Sequence[str] = ()
    """Globs over components that nothing may touch."""
    seed: int = 0
    pass_threshold: float = 0.5
    max_arms: int = 24
    """Edits on the menu."""
    evolve_from: int = 1500
    """Episodes to search with from which on gepa evolves combinations; below, halving single edits finds more (decision
    0017)."""

    def confirm_cost(self, n_items: int) -> int:
        """Episodes that the confirmation takes on so many items."""
        return 2 * n_items * self.confirm_samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Items by what they are for."""

    search: Sequence[Item]
    """Proposers read their episodes, and candidates compete on them."""
    confirm: Sequence[Item]
    """Untouched until the winner is measured."""


def split_items(train: Sequence[Item], held_out: Sequence[Item], plan: OptimisePlan) -> Split:
    """Search on training items and confirm on held-out ones; without any, on two fifths of the training items.

    Both in an order drawn by the seed, of which budgets take the beginning: a file may have its hard items last. The
    confirmation gets at most half of the budget. Raises UserError where items or budget do not reach.
    """
    search, confirm = _shuffled(train, plan.seed), _shuffled(held_out, plan.seed)
    if not confirm:
        cut = round(len(search) * _CONFIRM_SHARE)
        confirm, search = search[:cut], search[cut:]
    confirm = confirm[: plan.budget // (4 * plan.confirm_samples)]
    if len(search) < FEWEST_ITEMS or len(confirm) < FEWEST_ITEMS:
        raise UserError(
            f"there are {len(search)} items to search with and {len(confirm)} to confirm on, expected at least "
            f"{FEWEST_ITEMS} of each: with fewer, luck decides. Add rows to `data.train` or `data.validation`, or "
            f"raise the budget ({plan.budget} episodes)",
            param="data.train",
            code="too_little_data",
        )
    return Split(search=search, confirm=confirm)


def _shuffled(items: Sequence[Item], seed: int) -> list[Item]:
    return sorted(items, key=lambda item: hashlib.sha256(f"{seed}/{item.id}".encode()).digest())
