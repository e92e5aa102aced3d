"""Proposers: what might help, found in the agent's own episodes. None of them needs a language model but `reflect`.

A proposer is a function from `Evidence` to edits; it may be wrong, because every edit is tried before it is believed.
The order of `PROPOSERS` is the order in which edits get a place on the menu when there are too many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from agentrft.optimise.edit import Edit, edited, is_locked
from agentrft.optimise.plan import OptimisePlan
from agentrft.optimise.propose.constraints import constraints
from agentrft.optimise.propose.demos import demos
from agentrft.optimise.propose.evidence import Evidence
from agentrft.optimise.propose.guards import guards
from agentrft.optimise.propose.order import order
from agentrft.optimise.propose.outputs import outputs
from agentrft.optimise.propose.snippets import snippets
from agentrft.optimise.propose.toolset import toolset

PROPOSERS: tuple[Callable[[Evidence], Iterable[Edit]], ...] = (
    constraints,
    order,
    outputs,
    toolset,
    demos,
    guards,
    snippets,
)


def propose(evidence: Evidence, plan: OptimisePlan, further: Iterable[Edit] = ()) -> list[Edit]:
    """The menu: edits that the plan allows and that change something, `further` ones of the user's first."""
    found: dict[str, Edit] = {}
    for edit in (*further, *(edit for proposer in PROPOSERS for edit in proposer(evidence))):
        changes = edited(evidence.document, [edit]) != evidence.document
        if changes and edit.kind in plan.kinds and not is_locked(edit.component, plan.locks):
            found.setdefault(edit.key, edit)
    return list(found.values())[: plan.max_arms]


__all__ = ["PROPOSERS", "Evidence", "propose"]
