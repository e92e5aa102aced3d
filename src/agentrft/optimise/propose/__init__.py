"""Proposers: what might help, found in the agent's own episodes. None of them needs a language model but `reflect`.

A proposer is a function from `Evidence` to edits; it may be wrong, because every edit is tried before it is believed.
Edits that more of the failed episodes speak for come first on the menu; among equals, the order of `PROPOSERS` decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

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


_CITED = 5
"""Episodes that an edit names; the rest only count."""


def propose(evidence: Evidence, plan: OptimisePlan, further: Iterable[Edit] = ()) -> list[Edit]:
    """The menu: edits that the plan allows and that change something, `further` ones of the caller's first."""
    failed = {one.episode.id for one in evidence.played if not evidence.passed(one)}

    def weighed(edit: Edit) -> Edit:
        share = len(failed.intersection(edit.evidence)) / len(failed) if failed else 0.0
        return replace(edit, evidence=edit.evidence[:_CITED], share=share)

    own = [weighed(edit) for proposer in PROPOSERS for edit in proposer(evidence)]
    found: dict[str, Edit] = {}
    for edit in (*further, *sorted(own, key=lambda edit: -edit.share)):
        changes = edited(evidence.document, [edit]) != evidence.document
        if changes and edit.kind in plan.kinds and not is_locked(edit.component, plan.locks):
            found.setdefault(edit.key, edit)
    return list(found.values())[: plan.max_arms]


__all__ = ["PROPOSERS", "Evidence", "propose"]
